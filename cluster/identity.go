package cluster

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"

	"github.com/cespare/xxhash/v2"
	"github.com/google/uuid"
)

// The stages of a node's life, as its identity file has them.
const (
	stageNew       = "new"       // knows nobody
	stageBootstrap = "bootstrap" // decided on the configuration in Bootstrap, perhaps not yet in the log
	stageAdmitted  = "admitted"  // accepted by a cluster, perhaps nothing received yet
	stageMember    = "member"    // has a Raft log; losing it from now on is fatal
)

const (
	identityFile   = "node"
	identityFormat = 1
)

// founder is one node of a bootstrap configuration.
type founder struct {
	Name string `json:"name"`
	ID   string `json:"id"`
	Addr string `json:"addr"`
}

// foundersHash names a bootstrap configuration; founders are sorted by name.
func foundersHash(founders []founder) uint64 {
	if len(founders) == 0 {
		return 0
	}
	var b []byte
	for _, f := range founders {
		b = appendString(appendString(appendString(b, f.Name), f.ID), f.Addr)
	}
	return xxhash.Sum64(b) | 1 // never 0, which means "none"
}

// identityData is the content of the identity file.
type identityData struct {
	Format    int       `json:"format"`
	Name      string    `json:"name"`
	ID        string    `json:"id"` // of this data directory: made once, at random
	Cluster   string    `json:"cluster,omitempty"`
	Stage     string    `json:"stage"`
	Bootstrap []founder `json:"bootstrap,omitempty"`
	LogStore  string    `json:"log_store,omitempty"` // empty: LogBolt
	// Recovering: this node became the only voter, and its former peers are not yet
	// noted as removed.
	Recovering bool `json:"recovering,omitempty"`
	// Removed: the cluster has removed this directory.
	Removed bool `json:"removed,omitempty"`
	// Damaged says what is wrong with the state: the node does not start.
	Damaged string `json:"damaged,omitempty"`
	// Rebuilding: state and log were dropped, and the node has not caught up since.
	Rebuilding bool `json:"rebuilding,omitempty"`
}

// identity is who this data directory is; changes are on disk before they are
// seen. With the memory backend it lives in memory only.
type identity struct {
	path string // "" with the memory backend

	mu   sync.Mutex
	data identityData
}

// openIdentity reads the identity of c's data directory or makes one. It returns
// ErrOtherNode when the directory belongs to another name, ErrLogStore when its log
// was made with the other library, ErrDamaged when the file does not decode.
func openIdentity(c *Config) (*identity, error) {
	dir, name := c.DataDir, c.Name
	fresh := identityData{Format: identityFormat, Name: name, ID: uuid.NewString(), Stage: stageNew}
	if c.Memory {
		return &identity{data: fresh}, nil
	}
	if c.LogStore == LogWAL {
		fresh.LogStore = LogWAL
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("cluster: data directory: %w", err)
	}
	id := &identity{path: filepath.Join(dir, identityFile)}
	raw, err := os.ReadFile(id.path)
	if errors.Is(err, fs.ErrNotExist) {
		id.data = fresh
		return id, id.write(fresh)
	}
	if err != nil {
		return nil, fmt.Errorf("cluster: identity: %w", err)
	}
	if id.data, err = decodeIdentity(raw); err != nil {
		return nil, fmt.Errorf("cluster: %q: %w", id.path, err)
	}
	if id.data.Name != name {
		return nil, fmt.Errorf("cluster: %w: it is %q, started as %q", ErrOtherNode, id.data.Name, name)
	}
	if made, want := cmp.Or(id.data.LogStore, LogBolt), cmp.Or(c.LogStore, LogBolt); made != want {
		return nil, fmt.Errorf("cluster: %w: %q was made with %s, the setting says %s: "+
			"set it back, or start the node with an empty folder and a new name", ErrLogStore, dir, made, want)
	}
	return id, nil
}

// NameOf returns the name of the node whose data directory dir is; "" when it has no
// identity yet. ErrDamaged when that does not decode.
func NameOf(dir string) (string, error) {
	path := filepath.Join(dir, identityFile)
	raw, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("cluster: identity: %w", err)
	}
	d, err := decodeIdentity(raw)
	if err != nil {
		return "", fmt.Errorf("cluster: %q: %w", path, err)
	}
	return d.Name, nil
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// encodeIdentity returns one line of JSON and one with its CRC-32C in hex.
func encodeIdentity(d identityData) ([]byte, error) {
	line, err := json.Marshal(d)
	if err != nil {
		return nil, err
	}
	return fmt.Appendf(nil, "%s\n%08x\n", line, crc32.Checksum(line, castagnoli)), nil
}

func decodeIdentity(raw []byte) (identityData, error) {
	var d identityData
	line, sum, ok := strings.Cut(strings.TrimSuffix(string(raw), "\n"), "\n")
	want, err := strconv.ParseUint(sum, 16, 32)
	if !ok || err != nil || crc32.Checksum([]byte(line), castagnoli) != uint32(want) {
		return d, fmt.Errorf("%w: checksum of the node's identity", ErrDamaged)
	}
	if err := json.Unmarshal([]byte(line), &d); err != nil {
		return d, fmt.Errorf("%w: identity: %w", ErrDamaged, err)
	}
	if d.Format != identityFormat || d.ID == "" || d.Name == "" {
		return d, fmt.Errorf("%w: identity of format %d", ErrDamaged, d.Format)
	}
	return d, nil
}

func (id *identity) get() identityData {
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.data
}

// update changes the identity, on disk first.
func (id *identity) update(change func(*identityData)) error {
	id.mu.Lock()
	defer id.mu.Unlock()
	next := id.data
	change(&next)
	if err := id.write(next); err != nil {
		return fmt.Errorf("cluster: identity: %w", err)
	}
	id.data = next
	return nil
}

// write replaces the file by rename; file and directory are synced, since what
// it says (a bootstrap, an admission) is acted on next.
func (id *identity) write(d identityData) error {
	if id.path == "" {
		return nil
	}
	raw, err := encodeIdentity(d)
	if err != nil {
		return err
	}
	tmp := id.path + ".tmp"
	f, err := os.OpenFile(tmp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	if _, err = f.Write(raw); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := os.Rename(tmp, id.path); err != nil {
		return err
	}
	dir, err := os.Open(filepath.Dir(id.path))
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}
