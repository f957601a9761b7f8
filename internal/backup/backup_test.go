package backup

import (
	"bytes"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"quinto/fsm/store"
)

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// archive is one of a real store with enough in it for many blocks.
func archive(t testing.TB) ([]byte, *Head) {
	t.Helper()
	s, err := store.Open(store.Options{FS: vfs.NewMem(), Dir: "state"})
	check(t, err)
	defer func() { _ = s.Close() }()
	h := s.Acquire()
	r := rand.New(rand.NewPCG(1, 2))
	for i := range 400 {
		v := make([]byte, 1000)
		for j := range v {
			v[j] = byte(r.Uint32())
		}
		check(t, h.DB().Set(fmt.Appendf(nil, "key-%06d", i), v, pebble.NoSync))
	}
	h.Release()
	size, rc, err := s.OpenBackup()
	check(t, err)
	head := &Head{Kind: KindState, Cluster: "0123456789ab-cdef", Revision: 400, Index: 410, Term: 3, Clock: 1_700_000_000_000,
		Made: 1_700_000_001_000, Level: 1, StateHash: "00ff", Size: size, Node: "n1", Program: "1.2.3", Confirmed: true}
	var out bytes.Buffer
	check(t, Encode(&out, head, rc))
	check(t, rc.Close())
	return out.Bytes(), head
}

func TestArchive(t *testing.T) {
	data, head := archive(t)
	size, err := Size(head)
	if err != nil || size != int64(len(data)) {
		t.Fatal(size, len(data), err)
	}
	sum, err := Verify(bytes.NewReader(data))
	check(t, err)
	if sum.Head != *head || sum.Bytes != size {
		t.Fatalf("%+v", sum)
	}
	h, n, r, err := Peek(bytes.NewReader(data))
	check(t, err)
	again, err := io.ReadAll(r)
	if err != nil || n != size || *h != *head || !bytes.Equal(again, data) {
		t.Fatal(n, err)
	}
	var copied bytes.Buffer
	_, err = Copy(&copied, bytes.NewReader(data), func(_ *Head, n int64) error {
		if n != size {
			t.Error(n)
		}
		return nil
	})
	if err != nil || !bytes.Equal(copied.Bytes(), data) {
		t.Fatal(err)
	}
}

// Every byte that is changed and every length that is cut is refused, with its place.
func TestFaultHasAPlace(t *testing.T) {
	data, _ := archive(t)
	r := rand.New(rand.NewPCG(3, 4))
	places := []int{0, 7, 8, 9, 10, 12, 15, 16, len(data) - 1, len(data) - endBytes, len(data) - endBytes + 5}
	for range 150 {
		places = append(places, r.IntN(len(data)))
	}
	for _, at := range places {
		flipped := bytes.Clone(data)
		flipped[at] ^= 1 << r.IntN(8)
		_, err := Verify(bytes.NewReader(flipped))
		var f *Fault
		if !errors.As(err, &f) {
			t.Fatalf("byte %d: %v", at, err)
		}
		if f.Offset > int64(at) || int64(at) >= f.Offset+blockHead+BlockBytes {
			t.Errorf("byte %d: the fault is said to be at %d: %v", at, f.Offset, err)
		}
		_, err = Verify(bytes.NewReader(data[:at]))
		if !errors.As(err, &f) || f.Offset > int64(at) {
			t.Errorf("cut at %d: %v", at, err)
		}
	}
	if _, err := Verify(bytes.NewReader(append(bytes.Clone(data), 0))); !errors.Is(err, ErrDamaged) {
		t.Errorf("a byte behind the end: %v", err)
	}
	// Two blocks that changed places.
	head := len(data) - endBytes - func() int { a, _ := NewReader(bytes.NewReader(data)); return int((a.size() - endBytes) - a.headLen) }()
	block := blockHead + BlockBytes
	swapped := bytes.Clone(data)
	copy(swapped[head:], data[head+block:head+2*block])
	copy(swapped[head+block:], data[head:head+block])
	if _, err := Verify(bytes.NewReader(swapped)); err == nil || !strings.Contains(err.Error(), fmt.Sprintf("block 0 at byte %d", head)) {
		t.Errorf("swapped blocks: %v", err)
	}
	// A fault tells the file of the database that it is in.
	flipped := bytes.Clone(data)
	flipped[len(data)/2] ^= 4
	if _, err := Verify(bytes.NewReader(flipped)); err == nil || !strings.HasPrefix(err.Error(), "file 0000") {
		t.Errorf("%v", err)
	}
}

func TestForeignAndNewer(t *testing.T) {
	data, head := archive(t)
	newer := bytes.Clone(data)
	newer[9] = 2
	kind, level := *head, *head
	kind.Kind, level.Level = "future", 99
	for name, c := range map[string]struct {
		in   []byte
		want error
		text string
	}{
		"empty":   {nil, ErrForeign, "byte 0"},
		"text":    {[]byte("[app:main]\nsomething = else\n"), ErrForeign, "byte 0"},
		"version": {newer, ErrNewer, "its format is 2"},
		"kind":    {encoded(t, &kind), ErrNewer, "future"},
		"level":   {encoded(t, &level), ErrNewer, "feature level 99"},
	} {
		if _, err := Verify(bytes.NewReader(c.in)); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func encoded(t *testing.T, h *Head) []byte {
	t.Helper()
	b, err := encodeHead(h)
	check(t, err)
	return b
}

// What is on other people's disks can always be read.
func TestGolden(t *testing.T) {
	content := bytes.Repeat([]byte("0123456789abcdef"), BlockBytes/16+1)
	h := &Head{Kind: KindState, Cluster: "c", Revision: 7, Index: 9, Term: 2, Clock: 5, Made: 6, Level: 1, StateHash: "ab", Size: int64(len(content)), Node: "n", Program: "p"}
	var out bytes.Buffer
	check(t, Encode(&out, h, bytes.NewReader(content)))
	b := out.Bytes()
	// The content is not worth a file: head, the head of the second block, and the end.
	a, err := NewReader(bytes.NewReader(b))
	check(t, err)
	second := int(a.headLen) + blockHead + BlockBytes
	got := hex.EncodeToString(b[:a.headLen]) + "\n" + hex.EncodeToString(b[second:]) + "\n"
	file := filepath.Join("testdata", "archive-1.hex")
	if os.Getenv("UPDATE_GOLDEN") != "" {
		check(t, os.MkdirAll("testdata", 0o755))
		check(t, os.WriteFile(file, []byte(got), 0o644))
	}
	want, err := os.ReadFile(file)
	if err != nil || string(want) != got {
		t.Fatalf("the format of archives changed (%v)\n got %s\nwant %s", err, got, want)
	}
}

func TestFolder(t *testing.T) {
	places(t, &Folder{filepath.Join(t.TempDir(), "new")})
}

// places is what every Place does.
func places(t *testing.T, p Place) {
	t.Helper()
	ctx := t.Context()
	data, head := archive(t)
	name := Name(head)
	if _, err := Newest(ctx, p, ""); !errors.Is(err, ErrNone) {
		t.Errorf("an empty place: %v", err)
	}
	sum, err := Store(ctx, p, name, bytes.NewReader(data), int64(len(data)))
	if err != nil || sum.Head != *head {
		t.Fatalf("%+v %v", sum, err)
	}
	// A source that breaks, or that is damaged, leaves nothing behind.
	for _, bad := range []io.Reader{io.MultiReader(bytes.NewReader(data[:len(data)/2]), failing{}), bytes.NewReader(data[:len(data)-3])} {
		if _, err := Store(ctx, p, strings.Replace(name, "-400", "-401", 1), bad, int64(len(data))); err == nil {
			t.Error("half an archive was stored")
		}
	}
	names, err := p.List(ctx)
	if err != nil || !slices.Equal(names, []string{name}) {
		t.Fatal(names, err)
	}
	if newest, err := Newest(ctx, p, head.Cluster); err != nil || newest != name {
		t.Error(newest, err)
	}
	if _, err := Newest(ctx, p, "another"); !errors.Is(err, ErrNone) {
		t.Error(err)
	}
	if _, err := p.Open(ctx, strings.Replace(name, "-400", "-402", 1)); !errors.Is(err, ErrNone) {
		t.Error(err)
	}
	check(t, p.Remove(ctx, name))
	if names, err := p.List(ctx); err != nil || len(names) != 0 {
		t.Error(names, err)
	}
}

type failing struct{}

// Read implements io.Reader.
func (failing) Read([]byte) (int, error) { return 0, errors.New("the disk is gone") }

func TestExpired(t *testing.T) {
	now := time.Date(2026, 11, 22, 12, 0, 0, 0, time.UTC)
	name := func(cluster string, days int) string {
		return Name(&Head{Kind: KindState, Cluster: cluster + "-rest", Made: 0, Revision: 5})[:0] +
			fmt.Sprintf("quinto-%s-%s-5.backup", cluster, now.AddDate(0, 0, -days).Format(nameTime))
	}
	var names []string
	for d := range 10 {
		names = append(names, name("aaaaaaaa", d), name("bbbbbbbb", d))
	}
	names = append(names, "important.backup", "quinto-aaaaaaaa-x.backup", "quinto-aaaaaaaa-"+fmt.Sprintf("%020d-%020d.log", 1, 2))
	days := func(gone []string) (out []int) {
		for _, n := range gone {
			if !OfCluster(n, "aaaaaaaa-rest") {
				t.Errorf("%s is not of this cluster", n)
			}
			at, _ := MadeAt(n)
			out = append(out, int(now.Sub(at).Hours()/24))
		}
		slices.Sort(out)
		return out
	}
	for _, c := range []struct {
		keep Keep
		good string
		want []int
	}{
		{Keep{Count: 7}, name("aaaaaaaa", 0), []int{7, 8, 9}},
		{Keep{Count: 0}, name("aaaaaaaa", 0), []int{1, 2, 3, 4, 5, 6, 7, 8, 9}},
		{Keep{Count: 1}, name("aaaaaaaa", 9), []int{1, 2, 3, 4, 5, 6, 7, 8}},
		{Keep{Count: 2, Age: 5 * 24 * time.Hour}, name("aaaaaaaa", 0), []int{6, 7, 8, 9}},
		{Keep{Count: 100}, "", nil},
	} {
		if got := days(Expired(names, "aaaaaaaa-rest", c.good, c.keep, now)); !slices.Equal(got, c.want) {
			t.Errorf("%+v: %v, want %v", c.keep, got, c.want)
		}
	}
}

func TestSplit(t *testing.T) {
	for in, want := range map[string][2]string{
		"s3://b":                   {"s3://b", ""},
		"s3://b/p/q":               {"s3://b/p/q", ""},
		"s3://b/p/quinto-x.backup": {"s3://b/p/", "quinto-x.backup"},
		"s3://b/quinto-x.backup":   {"s3://b/", "quinto-x.backup"},
		"/var/backups/":            {"/var/backups/", ""},
		"/var/backups/file":        {"/var/backups/", "file"},
		"file":                     {"", "file"},
	} {
		place, name := Split(in, func(path string) bool { return strings.HasSuffix(path, "/") })
		if place != want[0] || name != want[1] {
			t.Errorf("%s: %q %q", in, place, name)
		}
	}
}

// The S3 place against a server: QUINTO_TEST_S3 is the URL of one with a bucket
// "test" (scripts/s3 starts it).
func TestS3(t *testing.T) {
	endpoint := os.Getenv("QUINTO_TEST_S3")
	if endpoint == "" {
		t.Skip("QUINTO_TEST_S3 is not set: make s3")
	}
	for _, prefix := range []string{"", "/some/where"} {
		p, err := OpenS3("s3://test"+prefix, S3Options{Endpoint: endpoint, Region: "us-east-1"})
		check(t, err)
		places(t, p)
	}
	p, err := OpenS3("s3://no-such-bucket", S3Options{Endpoint: endpoint, Region: "us-east-1"})
	check(t, err)
	if _, err := p.List(context.Background()); err == nil || !strings.Contains(err.Error(), "s3://no-such-bucket") {
		t.Error(err)
	}
}

func TestS3Addresses(t *testing.T) {
	for _, bad := range []string{"s3://", "s3:///x", "file"} {
		if _, err := OpenS3(bad, S3Options{}); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	for _, bad := range []string{"localhost:9000", "ftp://x", "http://", "http://host/path"} {
		if _, err := OpenS3("s3://b", S3Options{Endpoint: bad}); err == nil {
			t.Errorf("endpoint %q was taken", bad)
		}
	}
}
