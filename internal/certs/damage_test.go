package certs

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"testing"
	"time"
)

// damage is a copy of data with a flipped bit, zeroes, cut or emptied.
func damage(r *rand.Rand, data []byte) ([]byte, string) {
	bad, at := bytes.Clone(data), r.IntN(len(data))
	switch n := r.IntN(10); n {
	case 0:
		return bad[:at], fmt.Sprintf("cut at %d", at)
	case 1:
		end := min(at+64, len(bad))
		clear(bad[at:end])
		return bad, fmt.Sprintf("zeroes from %d to %d", at, end)
	default:
		bit := r.IntN(8)
		bad[at] ^= 1 << bit
		return bad, fmt.Sprintf("bit %d at %d", bit, at)
	}
}

// TestDamagedCertificateFiles: whatever happens to one of the files, the start is
// refused in one line, or it has no effect: the same certificate and key, and a
// node of the same authority is trusted. While a node runs it keeps what it has, and
// says so.
func TestDamagedCertificateFiles(t *testing.T) {
	dir := authority(t)
	leaf := issue(t, dir, "n1", 1)
	other := issue(t, dir, "n2", 1)
	f := files(dir, "n1")
	log := &journal{}
	running := must[*Store](t)(Open(f, Options{Name: "n1", What: "test", Log: log, Poll: time.Hour}))
	defer func() { _ = running.Close() }()
	same := func(m *Material) bool {
		return m.Leaf.Equal(leaf) && Verify([]*x509.Certificate{other}, m.Authorities, x509.ExtKeyUsageServerAuth, time.Now()) == nil
	}
	r := rand.New(rand.NewPCG(11, 11))
	for path, mode := range map[string]fs.FileMode{f.CA: 0o644, f.Cert: 0o644, f.Key: 0o600} {
		whole := must[[]byte](t)(os.ReadFile(path))
		refused, warnings := 0, log.count("cannot be used; the old ones stay in force")
		for range 150 {
			bad, how := damage(r, whole)
			if err := WriteFile(path, bad, mode); err != nil {
				t.Fatal(err)
			}
			s, err := Open(f, Options{Name: "n1", What: "test", Log: &journal{}, Poll: time.Hour})
			if err == nil {
				if !same(s.Current()) {
					t.Errorf("%s, %s: other credentials", path, how)
				}
				_ = s.Close()
			} else if refused++; bytes.ContainsRune([]byte(err.Error()), '\n') {
				t.Errorf("%s, %s: several lines: %v", path, how, err)
			}
			running.look()
			running.look() // the first look waits for the other files of a change
			if !running.now.Load().Leaf.Equal(leaf) {
				t.Errorf("%s, %s: taken while running", path, how)
			}
			if said := log.count("cannot be used; the old ones stay in force") - warnings; said != refused {
				t.Fatalf("%s, %s: %d warnings for %d files that cannot be used", path, how, said, refused)
			}
		}
		if err := WriteFile(path, whole, mode); err != nil {
			t.Fatal(err)
		}
		running.look()
		if refused < 75 {
			t.Errorf("%s: %d of 150 refused", path, refused)
		}
	}
}

// TestDamagedGossipKeys: a key whose bits flipped is no key; what is accepted is the
// key that was written.
func TestDamagedGossipKeys(t *testing.T) {
	path, log := t.TempDir()+"/gossip.key", &journal{}
	if err := errors.Join(InitKeys(path), RotateKeys(path, KeysAdd)); err != nil {
		t.Fatal(err)
	}
	whole, want := must[[]byte](t)(os.ReadFile(path)), must[[][]byte](t)(ReadKeys(path))
	running := must[*KeyStore](t)(OpenKeys(path, time.Hour, log))
	defer func() { _ = running.Close() }()
	equal := func(keys [][]byte) bool { return bytes.Equal(bytes.Join(keys, nil), bytes.Join(want, nil)) }
	r := rand.New(rand.NewPCG(12, 12))
	refused := 0
	for range 400 {
		bad, how := damage(r, whole)
		if err := WriteFile(path, bad, 0o600); err != nil {
			t.Fatal(err)
		}
		if keys, err := ReadKeys(path); err != nil {
			refused++
		} else if !equal(keys) {
			t.Errorf("%s: other keys", how)
		}
		running.look()
		if !equal(running.Keys()) {
			t.Errorf("%s: taken while running", how)
		}
		if said := log.count("old keys stay in force"); said != refused {
			t.Fatalf("%s: %d warnings for %d files that cannot be used", how, said, refused)
		}
	}
	if refused < 200 {
		t.Errorf("%d of 400 refused", refused)
	}
	keys := bytes.ReplaceAll(whole, []byte("#"), []byte("# ")) // of another maker: no checksum
	if err := WriteFile(path, keys, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := ReadKeys(path); err != nil || !equal(got) {
		t.Errorf("a file without a checksum: %v", err)
	}
}
