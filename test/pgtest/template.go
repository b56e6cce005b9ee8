package pgtest

import (
	"bytes"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// initialise makes a data directory with initdb. That takes longer than the rest
// of many tests, so that a cluster without special wishes is a copy of one that
// was made before, with a system identifier of its own.
func (c *Cluster) initialise(t testing.TB, args []string) {
	t.Helper()
	for _, arg := range args {
		if strings.HasPrefix(arg, "--waldir") {
			c.initdb(t, c.DataDir, args)
			return
		}
	}
	template := c.template(t, args)
	// With new times, as initdb's files have.
	if output, err := exec.Command("cp", "-r", "--preserve=mode,ownership", template, c.DataDir).CombinedOutput(); err != nil {
		t.Fatalf("copy a cluster: %v\n%s", err, output)
	}
	if err := renew(c.DataDir); err != nil {
		t.Fatalf("give the copy of a cluster its own system identifier: %v", err)
	}
}

func (c *Cluster) initdb(t testing.TB, dir string, args []string) {
	t.Helper()
	MustRun(t, c.program("initdb", append([]string{"-D", dir}, args...)...))
}

// template returns the path of a data directory that initdb made with these
// arguments, by this process or another.
func (c *Cluster) template(t testing.TB, args []string) string {
	t.Helper()
	folder := filepath.Join(base, "templates")
	if err := os.Mkdir(folder, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		t.Fatal(err)
	}
	version := MustRun(t, c.program("postgres", "--version"))
	key := sha256.Sum256(fmt.Appendf(nil, "%s %q", version, args))
	path := filepath.Join(folder, c.Major.String()+"-"+hex.EncodeToString(key[:8]))
	if _, err := os.Stat(path); err == nil {
		return path
	}
	made := filepath.Join(c.Dir, "template")
	c.initdb(t, made, args)
	// Another process may have been quicker; then this one goes with the test.
	if err := os.Rename(made, path); err != nil && !errors.Is(err, fs.ErrExist) {
		t.Fatal(err)
	}
	return path
}

// renew gives a cluster that never ran another system identifier, in its control
// file (src/include/catalog/pg_control.h) and in the headers of its segments
// (src/include/access/xlog_internal.h).
func renew(dataDir string) error {
	path := filepath.Join(dataDir, "global", "pg_control")
	control, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	table := crc32.MakeTable(crc32.Castagnoli)
	sumAt := 0 // where the checksum of all before it stands differs between majors
	for at := 200; at < 512 && sumAt == 0; at += 4 {
		if crc32.Checksum(control[:at], table) == binary.LittleEndian.Uint32(control[at:]) {
			sumAt = at
		}
	}
	if sumAt == 0 {
		return fmt.Errorf("%s has no checksum that is right", path)
	}
	old := bytes.Clone(control[:8])
	_, _ = rand.Read(control[:4]) // the time when it was made stays; it never fails
	binary.LittleEndian.PutUint32(control[sumAt:], crc32.Checksum(control[:sumAt], table))
	if err := os.WriteFile(path, control, 0o600); err != nil {
		return err
	}
	segments, err := filepath.Glob(filepath.Join(dataDir, "pg_wal", "0*"))
	if err != nil {
		return err
	}
	for _, segment := range segments {
		if err := renewSegment(segment, old, control[:8]); err != nil {
			return err
		}
	}
	return nil
}

func renewSegment(path string, from, to []byte) error {
	segment, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	const at = 24 // in the long header of its first page
	there := make([]byte, 8)
	_, err = segment.ReadAt(there, at)
	if err == nil && bytes.Equal(there, from) {
		_, err = segment.WriteAt(to, at)
	} else if err == nil && !bytes.Equal(there, make([]byte, 8)) { // it wasn't used yet
		err = fmt.Errorf("%s isn't of this cluster", path)
	}
	return errors.Join(err, segment.Close())
}
