package command

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"google.golang.org/protobuf/encoding/protowire"

	"quinto/fsm"
	"quinto/fsm/store"
)

// goldenFolder is a data folder as the named feature level writes it. After a release
// it stays for ever, and the next one gets its own: every release opens all of them.
const goldenFolder = "testdata/datadir-1"

// golden is what a client and a node find in the folder.
type golden struct {
	Revision uint64            `json:"revision"`
	State    string            `json:"state"`
	Full     string            `json:"full"`
	Bodies   map[string]string `json:"bodies"` // by path
}

var goldenPaths = []string{
	"buckets/b", "buckets/b/groups/g", "buckets/b/collections/c", "buckets/b/collections/c/records/r0", "buckets/b/collections/c/records?_sort=id",
	"buckets/b/collections/c/records?_since=0&_sort=id",
}

// stateOf opens the state in a data folder that no node uses, and returns its digests.
func stateOf(t *testing.T, dir string) (g golden) {
	t.Helper()
	st, err := store.Open(store.Options{Dir: filepath.Join(dir, storeFolder)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := st.Close(); err != nil {
			t.Error(err)
		}
	}()
	f, err := fsm.Open(st)
	if err != nil {
		t.Fatal(err)
	}
	v, err := f.View()
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	full, err := v.Hash()
	if err != nil {
		t.Fatal(err)
	}
	state := v.StateHash()
	return golden{Revision: uint64(v.Revision()), State: hex.EncodeToString(state[:]), Full: hex.EncodeToString(full[:])}
}

func bodies(t *testing.T, url string) map[string]string {
	t.Helper()
	out := map[string]string{}
	for _, p := range goldenPaths {
		status, body := send(t, "GET", url+p, "")
		if status != 200 {
			t.Fatalf("%s: %d %s", p, status, body)
		}
		out[p] = body
	}
	return out
}

// TestGoldenDataFolder: a data folder that an earlier binary has written is opened,
// byte for byte the same state and the same answers. UPDATE_GOLDEN=1 writes it anew,
// which after a release means that its users lose their data.
func TestGoldenDataFolder(t *testing.T) {
	if os.Getenv("UPDATE_GOLDEN") != "" {
		writeGolden(t)
	}
	raw, err := os.ReadFile(goldenFolder + ".json")
	if err != nil {
		t.Fatal(err)
	}
	var want golden
	if err := json.Unmarshal(raw, &want); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if err := unpack(goldenFolder+".tar.gz", dir); err != nil {
		t.Fatal(err)
	}
	if got := stateOf(t, dir); got.Revision != want.Revision || got.State != want.State || got.Full != want.Full {
		t.Errorf("state: %+v, want revision %d, state %s, full %s", got, want.Revision, want.State, want.Full)
	}
	p := startProgram(t, "--data", dir, "--port", "0")
	for path, got := range bodies(t, p.url) {
		if got != want.Bodies[path] {
			t.Errorf("%s: %s, want %s", path, got, want.Bodies[path])
		}
	}
	if status, body := send(t, "PUT", p.url+"buckets/after", ""); status != 201 {
		t.Errorf("a write to it: %d %s", status, body)
	}
}

// TestOlderBinaryRefusesItsFolder: once the cluster's feature level was raised, a
// binary that knows less does not start on the data, and says what it lacks.
func TestOlderBinaryRefusesItsFolder(t *testing.T) {
	dir := t.TempDir()
	if err := unpack(goldenFolder+".tar.gz", dir); err != nil {
		t.Fatal(err)
	}
	raiseFeatureLevel(t, dir, fsm.FeatureCurrent+1)
	code, _, errs := run(t, "start", "--data", dir, "--port", "0")
	want := fmt.Sprintf("feature level %d, this binary knows %d", fsm.FeatureCurrent+1, fsm.FeatureCurrent)
	if code == ExitOK || !strings.Contains(errs, want) || strings.Contains(errs, "goroutine") {
		t.Errorf("%d: %s, want %q", code, errs, want)
	}
}

// raiseFeatureLevel does to the state what a newer release would.
func raiseFeatureLevel(t *testing.T, dir string, level uint32) {
	t.Helper()
	st, err := store.Open(store.Options{Dir: filepath.Join(dir, storeFolder)})
	if err != nil {
		t.Fatal(err)
	}
	h := st.Acquire()
	key := []byte{0x0a} // space of the metadata
	v, closer, err := h.DB().Get(key)
	if err != nil {
		t.Fatal(err)
	}
	raised := protowire.AppendVarint(protowire.AppendTag(bytes.Clone(v), 3, protowire.VarintType), uint64(level)) // of a field, the last counts
	err = errors.Join(closer.Close(), h.DB().Set(key, raised, pebble.NoSync), h.DB().Flush())
	h.Release()
	if err = errors.Join(err, st.Close()); err != nil {
		t.Fatal(err)
	}
}

func writeGolden(t *testing.T) {
	dir := t.TempDir()
	p := startProgram(t, "--data", dir, "--port", "0")
	for _, w := range []struct{ method, path, body string }{
		{"PUT", "buckets/b", `{"permissions":{"read":["system.Everyone"]}}`},
		{"PUT", "buckets/b/groups/g", `{"data":{"members":["basicauth:alice"]}}`},
		{"PUT", "buckets/b/collections/c", ""},
		{"PUT", "buckets/b/collections/c/records/r0", `{"data":{"n":1.0,"s":"ü\u0001"},"permissions":{"write":["/buckets/b/groups/g"]}}`},
		{"PATCH", "buckets/b/collections/c/records/r0", `{"data":{"m":18446744073709551615}}`},
		{"PUT", "buckets/b/collections/c/records/gone", ""},
		{"DELETE", "buckets/b/collections/c/records/gone", ""},
		{"POST", "batch", `{"defaults":{"method":"PUT"},"requests":[{"path":"/v1/buckets/b/collections/c/records/x"},{"path":"/v1/buckets/b/collections/c/records/y"}]}`},
	} {
		if status, body := send(t, w.method, p.url+w.path, w.body); status >= 300 {
			t.Fatalf("%s %s: %d %s", w.method, w.path, status, body)
		}
	}
	g := golden{Bodies: bodies(t, p.url)}
	p.end(t)
	s := stateOf(t, dir)
	g.Revision, g.State, g.Full = s.Revision, s.State, s.Full
	raw, err := json.MarshalIndent(g, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(os.MkdirAll("testdata", 0o755), os.WriteFile(goldenFolder+".json", append(raw, '\n'), 0o644), pack(dir, goldenFolder+".tar.gz")); err != nil {
		t.Fatal(err)
	}
}

func pack(dir, file string) error {
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		if err := w.WriteHeader(&tar.Header{Name: filepath.ToSlash(name), Mode: 0o600, Size: int64(len(data))}); err != nil {
			return err
		}
		_, err = w.Write(data)
		return err
	})
	if err = errors.Join(err, w.Close(), z.Close()); err != nil {
		return err
	}
	return os.WriteFile(file, b.Bytes(), 0o644)
}

func unpack(file, dir string) error {
	raw, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	z, err := gzip.NewReader(bytes.NewReader(raw))
	if err != nil {
		return err
	}
	for r := tar.NewReader(z); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		data, err := io.ReadAll(r)
		path := filepath.Join(dir, filepath.FromSlash(h.Name))
		if err = errors.Join(err, os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, data, 0o600)); err != nil {
			return err
		}
	}
}
