package admin

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
	"time"
)

// Bounds of a bundle, which is kept in memory: a folder beyond them is surely
// another one.
const (
	MaxFiles = 10_000
	MaxBytes = 128 << 20
)

var errTooBig = errors.New("more than a bundle may have")

// file is one file of the bundle.
type file struct {
	data    []byte
	media   string
	etag    string
	changed time.Time
}

func newFile(name string, data []byte, changed time.Time) *file {
	sum := sha256.Sum256(data)
	return &file{data: data, media: mediaType(name), etag: `"` + hex.EncodeToString(sum[:16]) + `"`, changed: changed}
}

// readBundle reads the regular files of a folder. Links are left out: they could
// lead anywhere.
func readBundle(folder string) (map[string]*file, error) {
	root, err := os.OpenRoot(folder)
	if err != nil {
		return nil, err
	}
	files, size := map[string]*file{}, int64(0)
	err = fs.WalkDir(root.FS(), ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		if size += info.Size(); size > MaxBytes || len(files) == MaxFiles {
			return fmt.Errorf("%w: at most %d files and %d bytes", errTooBig, MaxFiles, MaxBytes)
		}
		data, err := fs.ReadFile(root.FS(), name)
		if err == nil {
			files[name] = newFile(name, data, info.ModTime())
		}
		return err
	})
	return files, errors.Join(err, root.Close())
}

// mediaTypes are those of the files of a web page. A table of our own, so that the
// answer does not depend on what is installed on the machine.
var mediaTypes = map[string]string{
	".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".mjs": "text/javascript", ".txt": "text/plain", ".xml": "text/xml",
	".md": "text/markdown", ".svg": "image/svg+xml", ".json": "application/json", ".map": "application/json", ".webmanifest": "application/manifest+json",
	".wasm": "application/wasm", ".png": "image/png", ".jpg": "image/jpeg", ".jpeg": "image/jpeg", ".gif": "image/gif", ".webp": "image/webp",
	".avif": "image/avif", ".ico": "image/vnd.microsoft.icon", ".woff": "font/woff", ".woff2": "font/woff2", ".ttf": "font/ttf", ".otf": "font/otf",
}

func mediaType(name string) string {
	media := mediaTypes[strings.ToLower(path.Ext(name))]
	switch {
	case media == "":
		return "application/octet-stream"
	case strings.HasPrefix(media, "text/"), strings.HasSuffix(media, "+xml"):
		return media + "; charset=UTF-8"
	}
	return media
}
