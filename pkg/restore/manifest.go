package restore

import (
	"bytes"
	"fmt"
	"hash"
	"io"
	"strings"
	"sync"

	"github.com/walship/walship/pkg/object"
	"github.com/walship/walship/pkg/pgdata"
)

// manifest is what the backup's manifest says of every file, and which of
// them have come. Several goroutines may use it.
type manifest struct {
	mu    sync.Mutex
	files map[string]*manifestFile
	left  int
}

type manifestFile struct {
	size      int64
	algorithm pgdata.ChecksumAlgorithm
	checksum  []byte
	claimed   bool
	kept      bool // it is in its place already
}

// readManifest reads a whole manifest, which has to be of the given cluster.
func readManifest(src io.Reader, systemID uint64) (*manifest, error) {
	m := &manifest{files: make(map[string]*manifestFile)}
	_, err := eachFile(src, systemID, func(f pgdata.ManifestFile) error {
		m.files[f.Path] = &manifestFile{size: f.Size, algorithm: f.Algorithm, checksum: bytes.Clone(f.Checksum)}
		return nil
	})
	m.left = len(m.files)
	return m, err
}

// eachFile passes on the files of a whole manifest, which has to be of the given
// cluster, and returns the WAL that the backup needs. What was passed on counts
// only without an error.
func eachFile(src io.Reader, systemID uint64, each func(pgdata.ManifestFile) error) ([]pgdata.ManifestWALRange, error) {
	r, err := pgdata.ReadManifest(src, pgdata.ManifestLimits{})
	if err != nil {
		return nil, err
	}
	for f, err := range r.Files() {
		if err != nil {
			return nil, err
		}
		if err := each(f); err != nil {
			return nil, err
		}
	}
	if id := r.SystemID(); r.Version() > 1 && id != systemID {
		return nil, fmt.Errorf("it is of cluster %d, not of %d", id, systemID)
	}
	return r.Finish()
}

// claim returns what the manifest says of a file that has come, once.
func (m *manifest) claim(name string, size int64) (*manifestFile, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.files[name]
	switch {
	case f == nil:
		return nil, fmt.Errorf("file %q isn't in the backup's manifest", name)
	case f.claimed:
		return nil, fmt.Errorf("file %q comes twice", name)
	case f.size != size:
		return nil, fmt.Errorf("file %q has %d bytes, its manifest says %d", name, size, f.size)
	}
	f.claimed = true
	m.left--
	return f, nil
}

// keep notes that a file is in its place already.
func (m *manifest) keep(name string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.files[name].kept = true
}

// kept tells whether all files of a list are in their places already and
// haven't come; names that end with a slash are of directories.
func (m *manifest) kept(names []string) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, name := range names {
		if f := m.files[name]; !strings.HasSuffix(name, "/") && (f == nil || !f.kept || f.claimed) {
			return false
		}
	}
	return true
}

// missing names a file that hasn't come; "" when all have.
func (m *manifest) missing() (name string, count int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for path, f := range m.files {
		if !f.claimed && (name == "" || path < name) {
			name = path
		}
	}
	return name, m.left
}

// checker hashes a file as its manifest entry asks.
type checker struct {
	want *manifestFile
	hash hash.Hash // nil: the manifest has no checksum
}

func (f *manifestFile) checker() checker { return checker{f, f.algorithm.New()} }

func (c checker) tee(dst io.Writer) io.Writer {
	if c.hash == nil {
		return dst
	}
	return io.MultiWriter(dst, c.hash)
}

func (c checker) check(name string) error {
	if c.hash != nil && !bytes.Equal(c.hash.Sum(nil), c.want.checksum) {
		return fmt.Errorf("%w: file %q doesn't have the %s checksum of its manifest", object.ErrCorrupt, name, c.want.algorithm)
	}
	return nil
}
