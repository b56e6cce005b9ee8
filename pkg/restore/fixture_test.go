package restore

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"log/slog"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/walship/walship/pkg/object"
	"github.com/walship/walship/pkg/pgdata"
	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/storage/mem"
	"github.com/walship/walship/pkg/wal"
)

// madeBackup is a backup that a test puts together. Its fields may be changed
// before commit seals it into a repository.
type madeBackup struct {
	record        *repo.Backup
	parts         [][]tarEntry
	manifest      []pgdata.ManifestFile
	configuration []tarEntry
}

type tarEntry struct {
	tar.Header
	content []byte
}

func file(name, content string) tarEntry {
	return tarEntry{tar.Header{Name: name, Typeflag: tar.TypeReg, Mode: 0o600, Size: int64(len(content))}, []byte(content)}
}

func dir(name string) tarEntry {
	return tarEntry{tar.Header{Name: name + "/", Typeflag: tar.TypeDir, Mode: 0o700}, nil}
}

func link(name, to string) tarEntry {
	return tarEntry{tar.Header{Name: name, Typeflag: tar.TypeSymlink, Linkname: to}, nil}
}

// controlFile returns a pg_control of PostgreSQL 15 for a cluster.
func controlFile(systemID uint64) string {
	data := make([]byte, pgdata.ControlFileSize)
	le := binary.LittleEndian
	le.PutUint64(data[0:], systemID)
	le.PutUint32(data[8:], 1300)
	le.PutUint32(data[12:], 202209061)
	le.PutUint32(data[204:], 8)
	le.PutUint64(data[208:], math.Float64bits(1234567.0))
	le.PutUint32(data[228:], testSegment)
	le.PutUint32(data[288:], crc32.Checksum(data[:288], crc32.MakeTable(crc32.Castagnoli)))
	return string(data)
}

func backupLabel(b *repo.Backup) string {
	return fmt.Sprintf("START WAL LOCATION: %s (file %s)\nCHECKPOINT LOCATION: %s\nBACKUP METHOD: streamed\nBACKUP FROM: primary\n"+
		"START TIME: 2026-11-20 09:00:00 UTC\nLABEL: test\nSTART TIMELINE: %d\n",
		b.StartLSN, wal.SegmentName(b.Timeline, wal.SegmentNumber(b.StartLSN, b.SegmentSize), b.SegmentSize), b.Checkpoint, b.Timeline)
}

// smallBackup is a cluster in two parts with a tablespace.
func smallBackup() *madeBackup {
	b := &madeBackup{record: backup("20261120T090000Z", 1, 2, 9, "800:800:")}
	b.record.Tablespaces = []repo.Tablespace{{OID: 16400, Location: "/nonexistent/fast", Size: 4}}
	b.parts = [][]tarEntry{
		{
			dir("base"), dir("base/1"), dir("global"), dir("pg_wal"), dir("pg_wal/archive_status"), dir("pg_notify"),
			dir("pg_tblspc"), dir("pg_tblspc/16400"), dir("pg_tblspc/16400/PG_15_202209061"),
			file("base/1/1259", strings.Repeat("page", 5000)), file("PG_VERSION", "15\n"), file("base/1/empty", ""), file("not UTF-8 \xff", "x"),
			file("pg_tblspc/16400/PG_15_202209061/5/16401", "row\n"),
			file("postgresql.conf", "max_wal_senders = 99\nmax_wal_senders = 25 # more\n#max_connections = 900\n"),
			file("postgresql.auto.conf", "work_mem = '8MB'\nrestore_command = 'cp old'\n"), file("standby.signal", ""),
		},
		{
			file("backup_label", backupLabel(b.record)), file("tablespace_map", "16400 /nonexistent/fast\n"),
			file("global/pg_control", controlFile(testSystem)),
		},
	}
	b.list()
	return b
}

// list makes the manifest of what the parts have.
func (b *madeBackup) list() {
	b.manifest = nil
	for _, part := range b.parts {
		for _, e := range part {
			if e.Typeflag == tar.TypeReg && e.Name != "tablespace_map" {
				b.manifest = append(b.manifest, entryOf(e))
			}
		}
	}
}

func entryOf(e tarEntry) pgdata.ManifestFile {
	hash := pgdata.ChecksumSHA256.New()
	hash.Write(e.content)
	return pgdata.ManifestFile{Path: e.Name, Size: int64(len(e.content)), Modified: clock(8), Algorithm: pgdata.ChecksumSHA256, Checksum: hash.Sum(nil)}
}

// makeRepository makes a repository in memory, without the probe of Init.
func makeRepository() *repo.Repository {
	info := repo.Info{Format: repo.Format, ID: strings.Repeat("5a", 16), Encryption: "none"}
	store := mem.New()
	store.Now = func() time.Time { return clock(23) }
	if _, err := store.Put(context.Background(), "repository.json", strings.NewReader("{}")); err != nil {
		panic(err)
	}
	return &repo.Repository{
		Store: store, Info: info,
		Sealer: &object.Sealer{Repository: info.ID},
		Opener: &object.Opener{Repository: info.ID},
	}
}

// seal stores content as an object and describes it.
func seal(t *testing.T, r *repo.Repository, key string, h object.Header, content []byte) repo.Object {
	t.Helper()
	var stored bytes.Buffer
	w, err := r.Sealer.Seal(&stored, h)
	if err == nil {
		_, err = w.Write(content)
	}
	if err == nil {
		err = w.Close()
	}
	if err == nil {
		_, err = r.Store.Put(context.Background(), key+r.Suffix(), &stored)
	}
	if err != nil {
		t.Fatalf("seal %s: %v", key, err)
	}
	result := w.Result()
	return repo.Object{
		Key: key + r.Suffix(), StoredSize: result.StoredSize, StoredSHA256: hex.EncodeToString(result.StoredDigest.Sum),
		PlainSize: result.PlainSize, PlainDigest: result.PlainDigest.String(),
	}
}

func makeTar(t *testing.T, entries []tarEntry) []byte {
	t.Helper()
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, e := range entries {
		if err := w.WriteHeader(&e.Header); err != nil {
			t.Fatalf("make tar: %v", err)
		}
		if _, err := w.Write(e.content); err != nil {
			t.Fatalf("make tar: %v", err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatalf("make tar: %v", err)
	}
	return out.Bytes()
}

// commit stores the backup and the WAL that it needs.
func (b *madeBackup) commit(t *testing.T, r *repo.Repository) {
	t.Helper()
	id := b.record.ID
	b.record.Parts = nil
	for i, entries := range b.parts {
		b.record.Parts = append(b.record.Parts,
			seal(t, r, repo.PartKey(testSystem, id, i+1), repo.PartHeader(testSystem, id, i+1), makeTar(t, entries)))
	}
	var manifest bytes.Buffer
	w, err := pgdata.NewManifestWriter(&manifest, 1, testSystem)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range b.manifest {
		if err := w.Add(f); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close([]pgdata.ManifestWALRange{{Timeline: 1, Start: b.record.StartLSN, End: b.record.StopLSN}}); err != nil {
		t.Fatal(err)
	}
	b.record.Manifest = seal(t, r, repo.ManifestKey(testSystem, id), repo.ManifestHeader(testSystem, id), manifest.Bytes())
	if b.configuration != nil {
		o := seal(t, r, repo.ConfigurationKey(testSystem, id), repo.ConfigurationHeader(testSystem, id), makeTar(t, b.configuration))
		b.record.Configuration = &o
	}
	if err := r.CommitBackup(context.Background(), b.record); err != nil {
		t.Fatal(err)
	}
	archiveOf(t, r, b.record)
}

// request restores the small backup below a directory of the test.
func request(work string) Request {
	return Request{
		Target: Target{Kind: TargetImmediate}, Directory: filepath.Join(work, "data"),
		Tablespaces: map[string]string{"16400": filepath.Join(work, "fast")}, RestoreCommand: "walship wal fetch %f %p",
	}
}

// restoreInto plans and runs.
func restoreInto(t *testing.T, r *repo.Repository, q Request) (*Result, error) {
	t.Helper()
	p, err := MakePlan(context.Background(), Of(r), q)
	if err != nil {
		t.Fatalf("MakePlan: %v", err)
	}
	return Run(context.Background(), r, p, Options{Concurrency: 2, Settings: []byte("# settings\n"), Log: discard})
}

// tree reads a directory: path to content, "/" for a directory, "-> …" for a
// link.
func tree(t *testing.T, path string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(path, func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, _ := filepath.Rel(path, name)
		info, err := entry.Info()
		if err != nil {
			return err
		}
		want := fs.FileMode(0o600)
		switch {
		case entry.IsDir():
			all[rel], want = "/", 0o700
		case entry.Type() == fs.ModeSymlink:
			to, err := os.Readlink(name)
			all[rel] = "-> " + to
			return err
		default:
			data, err := os.ReadFile(name)
			all[rel] = string(data)
			if err != nil {
				return err
			}
		}
		if info.Mode().Perm() != want {
			t.Errorf("%s has mode %v, want %v", name, info.Mode().Perm(), want)
		}
		return nil
	})
	if err != nil {
		t.Fatalf("read %s: %v", path, err)
	}
	return all
}

var discard = slog.New(slog.DiscardHandler)

func write(t *testing.T, name, content string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(name), 0o700), os.WriteFile(name, []byte(content), 0o600)); err != nil {
		t.Fatal(err)
	}
}

// paths lists everything below a directory.
func paths(t *testing.T, directory string) string {
	t.Helper()
	var all []string
	err := filepath.WalkDir(directory, func(name string, _ fs.DirEntry, err error) error {
		rel, relErr := filepath.Rel(directory, name)
		all = append(all, rel)
		return errors.Join(err, relErr)
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(all, "\n")
}

// commitEmpty makes a backup exist for a planner, which doesn't look into its
// objects.
func commitEmpty(t testing.TB, r *repo.Repository, b *repo.Backup) {
	t.Helper()
	for _, o := range append([]repo.Object{b.Manifest}, b.Parts...) {
		if _, err := r.Store.Put(t.Context(), o.Key, strings.NewReader("")); err != nil {
			t.Fatal(err)
		}
	}
	if err := r.CommitBackup(t.Context(), b); err != nil {
		t.Fatal(err)
	}
}
