package pgdata

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/walship/walship/pkg/wal"
)

// controlFile is the pg_control of a fresh cluster, of that major's initdb.
func controlFile(t testing.TB, major int) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", "control", strconv.Itoa(major)))
	if err != nil {
		t.Fatal(err)
	}
	return append(data, make([]byte, ControlFileSize-len(data))...)
}

// seal makes the checksum of a changed control file right.
func seal(data []byte) []byte {
	end, _ := crcOffset(binary.LittleEndian.Uint32(data[offsetControlVersion:]))
	binary.LittleEndian.PutUint32(data[end:], crc32.Checksum(data[:end], crc32.MakeTable(crc32.Castagnoli)))
	return data
}

func TestParseControlFile(t *testing.T) {
	versions := map[int]uint32{14: 1300, 15: 1300, 16: 1300, 17: 1700, 18: 1800}
	for major, version := range versions {
		t.Run(strconv.Itoa(major), func(t *testing.T) {
			c, err := ParseControlFile(controlFile(t, major))
			if err != nil {
				t.Fatal(err)
			}
			if c.Major != major || c.PGControlVersion != version || c.State != StateShutDown || c.Timeline != 1 ||
				c.Checkpoint != c.Redo || c.Checkpoint == 0 || c.NextXID < 700 || c.SystemID>>32 < 0x6b000000 ||
				c.MaxConnections != 100 || c.WALLevel != WALLevelReplica || c.BlockSize != 8192 || c.WALSegmentSize != 16<<20 {
				t.Errorf("%+v", c)
			}
			if c.Time.Year() != 2026 || c.CheckpointTime.Location() != time.UTC {
				t.Errorf("times %s, %s", c.Time, c.CheckpointTime)
			}
		})
	}
}

// A version 13 server has the layout of 14.
func TestParseControlFile13(t *testing.T) {
	data := controlFile(t, 14)
	binary.LittleEndian.PutUint32(data[offsetCatalogVersion:], 202007201)
	if c, err := ParseControlFile(seal(data)); err != nil || c.Major != 13 {
		t.Errorf("major %d, %v", c.Major, err)
	}
}

func TestParseControlFileRefuses(t *testing.T) {
	cases := []struct {
		name   string
		change func(data []byte) []byte
		torn   bool
	}{
		{"cut", func(data []byte) []byte { return data[:511] }, false},
		{"torn", func(data []byte) []byte { data[100]++; return data }, true},
		{"unknown version", func(data []byte) []byte { data[8] = 1; return seal(data) }, false},
		{"other byte order", func(data []byte) []byte { copy(data[8:], []byte{0, 0, 5, 20}); return data }, false},
		{"other alignment", func(data []byte) []byte { data[offsetMaxAlign] = 4; return seal(data) }, false},
		{"segment size", func(data []byte) []byte { data[offsetWALSegmentSize] = 1; return seal(data) }, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			_, err := ParseControlFile(c.change(controlFile(t, 15)))
			if err == nil || errors.Is(err, ErrControlFileTorn) != c.torn {
				t.Errorf("error: %v", err)
			}
		})
	}
}

// A read that a writing server tore is done again (fault 34).
func TestReadUntorn(t *testing.T) {
	whole := controlFile(t, 15)
	torn := func(at int) []byte {
		data := bytes.Clone(whole)
		data[at]++
		return data
	}
	cases := []struct {
		name  string
		reads [][]byte
		used  int
		torn  bool
	}{
		{"whole", [][]byte{whole}, 1, false},
		{"torn twice", [][]byte{torn(40), torn(41), whole}, 3, false},
		{"damaged", [][]byte{torn(40), torn(40), whole}, 2, true},
		{"always torn", [][]byte{torn(40), torn(41), torn(42), whole}, 3, true},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			used := 0
			_, data, err := readUntorn(3, 0, func() ([]byte, error) {
				used++
				return c.reads[used-1], nil
			})
			if used != c.used || errors.Is(err, ErrControlFileTorn) != c.torn || (err == nil) == c.torn {
				t.Errorf("%d reads, error: %v", used, err)
			}
			if err == nil && !bytes.Equal(data, whole) {
				t.Error("other bytes")
			}
		})
	}
}

func writeControl(t *testing.T, dir string, data []byte) {
	t.Helper()
	if err := os.MkdirAll(filepath.Join(dir, "global"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, ControlFileName), data, 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestFindControlFile(t *testing.T) {
	near, working, configured, empty := t.TempDir(), t.TempDir(), t.TempDir(), t.TempDir()
	ids := make(map[string]uint64)
	for i, dir := range []string{near, working, configured} {
		data := controlFile(t, 15)
		ids[dir] = uint64(i + 1)
		binary.LittleEndian.PutUint64(data, ids[dir])
		writeControl(t, dir, seal(data))
	}
	elsewhere := t.TempDir()
	if err := os.Symlink(elsewhere, filepath.Join(near, "pg_wal")); err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		name, working, near, configured string
		want                            string // the directory; "" for none
	}{
		{"beside", working, near + "/pg_wal/000000010000000000000001", configured, near},
		{"relative, as PostgreSQL gives it", near, "pg_wal/000000010000000000000001", configured, near},
		{"working directory", working, elsewhere + "/000000010000000000000001", configured, working},
		{"configured", empty, elsewhere + "/RECOVERYXLOG", configured, configured},
		{"no file given", empty, "", configured, configured},
		{"nowhere", empty, elsewhere + "/RECOVERYXLOG", "", ""},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Chdir(c.working)
			control, dir, err := FindControlFile(c.near, c.configured)
			if c.want == "" {
				if !errors.Is(err, ErrNoControlFile) {
					t.Errorf("error: %v", err)
				}
				return
			}
			if err != nil || control.SystemID != ids[c.want] {
				t.Errorf("system id %d of %s, error: %v", control.SystemID, dir, err)
			}
		})
	}
	t.Run("a damaged one isn't passed over", func(t *testing.T) {
		t.Chdir(working)
		damaged := t.TempDir()
		writeControl(t, damaged, make([]byte, ControlFileSize))
		if _, _, err := FindControlFile(damaged+"/pg_wal/x", configured); err == nil || errors.Is(err, ErrNoControlFile) {
			t.Errorf("error: %v", err)
		}
	})
}

func FuzzParseControlFile(f *testing.F) {
	for _, major := range []int{14, 15, 16, 17, 18} {
		f.Add(controlFile(f, major)[:512])
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) >= 512 {
			if _, known := crcOffset(binary.LittleEndian.Uint32(data[offsetControlVersion:])); known {
				data = seal(bytes.Clone(data))
			}
		}
		c, err := ParseControlFile(data)
		if err == nil && !wal.ValidSegmentSize(c.WALSegmentSize) {
			t.Errorf("segment size %d", c.WALSegmentSize)
		}
	})
}
