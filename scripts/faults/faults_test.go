package main

import (
	"testing"

	"quinto/internal/mutants"
)

// Every mutant still fits the source, and its harm exists; `make mutants` proves
// that the checker finds it.
func TestMutantsFitTheSource(t *testing.T) {
	root, err := mutants.Root()
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range mutants.All() {
		if _, err := m.Plant(root, t.TempDir()); err != nil {
			t.Errorf("%s: %v", m.Name, err)
		}
		harmNamed(provocations[m.Name].harm)
	}
}

// The selection of a seed is what its budget allows, and another seed takes others.
func TestSelectionFollowsTheSeed(t *testing.T) {
	pick := func(seed uint64) (names string) {
		o := &options{seed: seed, count: 5, network: true, disks: true, faultsBuild: true}
		all := sample(harms(), o)
		if len(all) != 5 {
			t.Fatalf("%d harms chosen", len(all))
		}
		for _, h := range all {
			names += h.name + " "
		}
		return names
	}
	first, second := pick(1), pick(2)
	if again := pick(1); again != first {
		t.Errorf("one seed, two selections: %s, %s", first, again)
	}
	if first == second && second == pick(3) {
		t.Error("the selection does not follow the seed")
	}
}
