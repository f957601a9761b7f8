package certs

import (
	"bytes"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"slices"
	"strings"
	"sync"
	"time"
)

const (
	// GossipKeyBytes is the length of a key of gossip: AES-256.
	GossipKeyBytes = 32
	// MaxGossipKeys bounds the keys of one file: each message may be tried with all.
	MaxGossipKeys = 4

	// keysSum begins the line with the checksum of the keys. A key whose bits have
	// flipped is a key too, which nobody else has. Files without the line, of other
	// makers, are taken at their word.
	keysSum = "# CRC-32C of the keys: "
)

// ReadKeys reads a file of gossip keys: one in base64 per line, the first encrypts,
// all decrypt; lines that begin with # are comments, but for the checksum that
// writeKeys puts there. Errors wrap ErrInvalid or are the system's.
func ReadKeys(path string) ([][]byte, error) {
	text, err := readFile(path)
	if err != nil {
		return nil, err
	}
	if bytes.ContainsRune(text, 0) { // in a comment too: the line may have been another
		return nil, fmt.Errorf("%s: %w: no text", path, ErrInvalid)
	}
	var keys [][]byte
	sum := ""
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSpace(line)
		if rest, ok := strings.CutPrefix(line, keysSum); ok {
			sum = rest
		}
		if line == "" || line[0] == '#' {
			continue
		}
		key, err := base64.StdEncoding.DecodeString(line)
		if err != nil || len(key) != GossipKeyBytes {
			return nil, fmt.Errorf("%s: %w: key %d is not %d bytes in base64", path, ErrInvalid, len(keys)+1, GossipKeyBytes)
		}
		if slices.ContainsFunc(keys, func(k []byte) bool { return bytes.Equal(k, key) }) {
			return nil, fmt.Errorf("%s: %w: key %d is there twice", path, ErrInvalid, len(keys)+1)
		}
		keys = append(keys, key)
	}
	if len(keys) == 0 || len(keys) > MaxGossipKeys {
		return nil, fmt.Errorf("%s: %w: %d keys: 1 to %d", path, ErrInvalid, len(keys), MaxGossipKeys)
	}
	if sum != "" && sum != sumOfKeys(keys) {
		return nil, fmt.Errorf("%s: %w: its keys do not have the checksum that it names: it is damaged, or was edited (then remove that line)", path, ErrInvalid)
	}
	return keys, nil
}

func sumOfKeys(keys [][]byte) string {
	return fmt.Sprintf("%08x", crc32.Checksum(bytes.Join(keys, nil), crc32.MakeTable(crc32.Castagnoli)))
}

// InitKeys writes a new file with one random key; ErrExists rather than replace one.
func InitKeys(path string) error {
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", path, ErrExists)
	}
	return writeKeys(path, [][]byte{newKey()})
}

// The three steps of a rotation, each to be done on all nodes before the next.
const (
	// KeysAdd makes a new key that decrypts only.
	KeysAdd = "add"
	// KeysUse makes the newest key the one that encrypts.
	KeysUse = "use"
	// KeysDrop forgets all keys but the one that encrypts.
	KeysDrop = "drop"
)

// RotateKeys does one step in the file at path.
func RotateKeys(path, step string) error {
	keys, err := ReadKeys(path)
	if err != nil {
		return err
	}
	switch last := len(keys) - 1; step {
	case KeysAdd:
		if len(keys) == MaxGossipKeys {
			return fmt.Errorf("%s: %w: %d keys already: %s the old ones first", path, ErrInvalid, len(keys), KeysDrop)
		}
		keys = append(keys, newKey())
	case KeysUse:
		keys = append([][]byte{keys[last]}, keys[:last]...)
	case KeysDrop:
		keys = keys[:1]
	default:
		return fmt.Errorf("%w: step %q: %s, %s or %s", ErrInvalid, step, KeysAdd, KeysUse, KeysDrop)
	}
	return writeKeys(path, keys)
}

func newKey() []byte {
	key := make([]byte, GossipKeyBytes)
	rand.Read(key) // never fails: crypto/rand ends the program instead
	return key
}

func writeKeys(path string, keys [][]byte) error {
	var b strings.Builder
	b.WriteString("# Keys of gossip: the first encrypts, all decrypt. The same file on all nodes.\n" + keysSum + sumOfKeys(keys) + "\n")
	for _, k := range keys {
		b.WriteString(base64.StdEncoding.EncodeToString(k) + "\n")
	}
	return WriteFile(path, []byte(b.String()), 0o600)
}

// KeyStore holds the keys of a file and follows it.
type KeyStore struct {
	path string
	log  Logger

	mu      sync.Mutex
	keys    [][]byte
	seen    stamp
	changed func([][]byte)

	closed chan struct{}
	once   sync.Once
	wg     sync.WaitGroup
}

// OpenKeys reads the file at path and follows it until Close, looking at each poll (0:
// five seconds). A file that cannot be used leaves the keys as they are, with a warning.
func OpenKeys(path string, poll time.Duration, log Logger) (*KeyStore, error) {
	if poll == 0 {
		poll = pollInterval
	}
	s := &KeyStore{path: path, log: log, seen: stampOf(path), closed: make(chan struct{})}
	var err error
	if s.keys, err = ReadKeys(path); err != nil {
		return nil, fmt.Errorf("gossip keys: %w", err)
	}
	if info := s.seen.info; info != nil && info.Mode().Perm()&othersMayRead != 0 {
		log.Warn("everybody on this machine may read the gossip keys", "file", path)
	}
	s.wg.Go(func() { s.poll(poll) })
	return s, nil
}

// Follow calls f with the keys, now and after each change, one call at a time.
func (s *KeyStore) Follow(f func(keys [][]byte)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.changed = f
	f(s.keys)
}

// Keys returns the keys of the moment; the first encrypts.
func (s *KeyStore) Keys() [][]byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.keys
}

// Close ends the watch.
func (s *KeyStore) Close() error {
	s.once.Do(func() { close(s.closed) })
	s.wg.Wait()
	return nil
}

func (s *KeyStore) poll(every time.Duration) {
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			s.look()
		case <-s.closed:
			return
		}
	}
}

func (s *KeyStore) look() {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := stampOf(s.path)
	if now.same(s.seen) {
		return
	}
	s.seen = now
	keys, err := ReadKeys(s.path)
	if err != nil {
		s.log.Warn("the new file of gossip keys cannot be used; the old keys stay in force", "error", err)
		return
	}
	s.keys = keys
	s.log.Info("gossip keys read again", "keys", len(keys))
	if s.changed != nil {
		s.changed(keys)
	}
}

func stampOf(path string) stamp {
	info, err := os.Stat(path)
	if err != nil { // shows when it is read
		return stamp{}
	}
	return stamp{size: info.Size(), mtime: info.ModTime(), info: info}
}
