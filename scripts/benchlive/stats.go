//go:build linux

package main

import (
	"math/rand/v2"
	"slices"
	"sort"
	"time"
)

const (
	draws    = 2000 // of the bootstrap
	drawSeed = 1
)

// quantile is the smallest value that the share q of all does not exceed; each of
// the samples is sorted.
func quantile(samples [][]int64, q float64) int64 {
	all, most := 0, int64(0)
	for _, s := range samples {
		if all += len(s); len(s) > 0 {
			most = max(most, s[len(s)-1])
		}
	}
	need := int(q * float64(all))
	return int64(sort.Search(int(most), func(v int) bool {
		n := 0
		for _, s := range samples {
			n += sort.Search(len(s), func(i int) bool { return s[i] > int64(v) })
		}
		return n > need
	}))
}

// comparison is one quantile with streams and without.
type comparison struct {
	without, with time.Duration
	ratio         float64
	low, high     float64 // of the ratio: 95 of 100 draws lie between
}

// compare pools the legs of each side. The interval is of a bootstrap that draws
// whole legs, since the writes within one have much in common.
func compare(without, with [][]int64, q float64) comparison {
	ratio := func(without, with [][]int64) (a, b int64, r float64) {
		a, b = quantile(without, q), quantile(with, q)
		return a, b, float64(b) / float64(max(a, 1))
	}
	a, b, r := ratio(without, with)
	c := comparison{without: time.Duration(a) * time.Microsecond, with: time.Duration(b) * time.Microsecond, ratio: r}
	random := rand.New(rand.NewPCG(drawSeed, 0))
	draw := func(from [][]int64) (to [][]int64) {
		for range from {
			to = append(to, from[random.IntN(len(from))])
		}
		return to
	}
	ratios := make([]float64, draws)
	for i := range ratios {
		_, _, ratios[i] = ratio(draw(without), draw(with))
	}
	slices.Sort(ratios)
	c.low, c.high = ratios[draws*25/1000], ratios[draws*975/1000]
	return c
}

// took is how long writes took, of each leg.
func took(legs []leg, of func(*leg) *sample) (all [][]int64) {
	for i := range legs {
		all = append(all, of(&legs[i]).Took)
	}
	return all
}
