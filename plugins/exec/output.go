//go:build unix

package exec

import (
	"strings"
	"sync"
)

// output bounds what a program writes to both its outputs.
type output struct {
	end  func() // the program
	mu   sync.Mutex
	n    int
	tail []byte // of the standard error
}

// stream is one of the outputs.
type stream struct {
	out  *output
	keep bool
}

// Write implements io.Writer. Beyond the bound it ends the program.
func (s *stream) Write(p []byte) (int, error) {
	o := s.out
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.n += len(p); o.n > MaxOutputBytes {
		o.end()
		return 0, errOutput
	}
	if s.keep {
		o.tail = append(o.tail, p...)
		o.tail = append(o.tail[:0:0], o.tail[max(0, len(o.tail)-shownBytes):]...)
	}
	return len(p), nil
}

func (o *output) tooLong() bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.n > MaxOutputBytes
}

// said is the end of the standard error, for an error.
func (o *output) said() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	text := strings.TrimSpace(strings.ToValidUTF8(string(o.tail), ""))
	if text == "" {
		return ""
	}
	return ": " + text
}
