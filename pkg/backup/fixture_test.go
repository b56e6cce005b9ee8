package backup

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/binary"
	"hash/crc32"
	"io"
	"log/slog"
	"os"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/walship/walship/pkg/object"
	"github.com/walship/walship/pkg/pgdata"
	"github.com/walship/walship/pkg/postgres"
	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/storage"
	"github.com/walship/walship/pkg/storage/mem"
	"github.com/walship/walship/pkg/wal"
)

// What testdata/pg_control says: a cluster of PostgreSQL 15 made with 1 MiB
// segments.
const (
	testSystemID = 7710411533005170106
	testRedo     = wal.LSN(0x600768)
	testVersion  = "PG_15_202209061"
	testSegment  = 1 << 20
)

// scriptedServer stands for a running server. started and listed are called
// where a test wants something to happen.
type scriptedServer struct {
	facts       postgres.Facts
	tablespaces []postgres.Tablespace
	stop        postgres.BackupStop
	startErr    error
	stopErr     error
	ping        func(context.Context) error
	started     func()
	listed      func()
}

func (s *scriptedServer) Facts(context.Context) (postgres.Facts, error) { return s.facts, nil }
func (s *scriptedServer) Tablespaces(context.Context) ([]postgres.Tablespace, error) {
	if s.listed != nil {
		s.listed()
	}
	return s.tablespaces, nil
}
func (s *scriptedServer) StartBackup(context.Context, string, bool) (postgres.BackupStart, error) {
	if s.started != nil {
		s.started()
	}
	return postgres.BackupStart{LSN: testRedo, Time: time.Date(2026, 11, 20, 14, 25, 0, 0, time.UTC)}, s.startErr
}
func (s *scriptedServer) StopBackup(context.Context) (postgres.BackupStop, error) {
	return s.stop, s.stopErr
}
func (s *scriptedServer) Ping(ctx context.Context) error {
	if s.ping == nil {
		return nil
	}
	return s.ping(ctx)
}

const testLabel = `START WAL LOCATION: 0/600768 (file 000000010000000000000006)
CHECKPOINT LOCATION: 0/6007A0
BACKUP METHOD: streamed
BACKUP FROM: primary
START TIME: 2026-11-20 14:25:00 UTC
LABEL: nightly
START TIMELINE: 1
`

// site is a data directory, its server, and a repository.
type site struct {
	dir        string
	server     *scriptedServer
	store      storage.Store
	repository *repo.Repository
	options    Options
}

func newSite(t testing.TB) *site {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "data")
	control, err := os.ReadFile("testdata/pg_control")
	if err != nil {
		t.Fatal(err)
	}
	writeTree(t, dir, map[string]string{
		"PG_VERSION": "15\n", "global/pg_control": string(control), "global/1262": "databases", "global/pg_filenode.map": "map",
		"base/1/PG_VERSION": "15\n", "base/1/1259": "classes", "postgresql.conf": "port = 1\n", "postgresql.auto.conf": "",
		"pg_hba.conf": "local all all trust\n", "pg_ident.conf": "", "pg_xact/0000": "commits",
		"pg_wal/000000010000000000000006": "wal", "pg_wal/archive_status/000000010000000000000006.done": "", "pg_replslot/slot/state": "x", "pg_tblspc/": "", "pg_twophase/": "",
	})
	s := &site{dir: dir, store: mem.New(), options: Options{Label: "nightly", Checksums: pgdata.ChecksumSHA256, Concurrency: 2, WALTimeout: time.Minute}}
	s.server = &scriptedServer{
		facts: postgres.Facts{
			Version: 150018, SystemID: testSystemID, SegmentSize: testSegment, DataDirectory: dir, WALLevel: "replica",
			ArchiveMode: "on", ArchiveCommand: "walship wal push %p",
			ConfigFile: dir + "/postgresql.conf", HBAFile: dir + "/pg_hba.conf", IdentFile: dir + "/pg_ident.conf",
		},
		stop: postgres.BackupStop{LSN: 0x700100, Label: []byte(testLabel), Time: time.Date(2026, 11, 20, 14, 26, 0, 0, time.UTC), Snapshot: "750:750:"},
	}
	s.use(t, s.store)
	useState(t, s, pgdata.StateInProduction)
	return s
}

// use makes a store the site's repository, without the probe that init makes.
func (s *site) use(t testing.TB, store storage.Store) {
	t.Helper()
	info := repo.Info{Format: repo.Format, ID: "000102030405060708090a0b0c0d0e0f", Created: time.Now(), Encryption: "none"}
	r, err := repo.New(store, info, repo.Keys{})
	if err != nil {
		t.Fatal(err)
	}
	s.repository = r
}

// archiveWAL puts segments in the repository, by number.
func (s *site) archiveWAL(t testing.TB, segments ...uint64) {
	t.Helper()
	for _, n := range segments {
		s.archiveAs(t, s.repository.Sealer, n)
	}
}

// archiveAs puts a segment in the repository as another's sealer makes it.
func (s *site) archiveAs(t testing.TB, sealer *object.Sealer, segment uint64) {
	t.Helper()
	name := wal.SegmentName(1, segment, testSegment)
	var sealed bytes.Buffer
	w, err := sealer.Seal(&sealed, repo.Header(testSystemID, name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("wal")); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.store.Put(t.Context(), s.repository.FileKey(testSystemID, name), &sealed); err != nil {
		t.Fatal(err)
	}
}

func (s *site) push(ctx context.Context) (*repo.Backup, error) {
	return Push(ctx, Deps{Repository: s.repository, Server: s.server, Log: discard(), Version: "test", Host: "db1"}, s.options)
}

// mustPush takes a backup whose WAL is archived, and reads it back.
func (s *site) mustPush(t *testing.T) (*repo.Backup, *restored) {
	t.Helper()
	s.archiveWAL(t, 6, 7)
	if _, err := s.push(t.Context()); err != nil {
		t.Fatal(err)
	}
	refs, err := s.repository.Backups(t.Context(), testSystemID)
	if err != nil || len(refs) != 1 {
		t.Fatalf("%d backups are listed (%v), want 1", len(refs), err)
	}
	b, err := s.repository.Backup(t.Context(), refs[0])
	if err != nil {
		t.Fatal(err)
	}
	return b, s.restore(t, b)
}

// noBackup fails the test when a backup is listed.
func (s *site) noBackup(t *testing.T) {
	t.Helper()
	refs, err := s.repository.Backups(t.Context(), testSystemID)
	if err != nil || len(refs) != 0 {
		t.Errorf("%d backups are listed (%v), want none", len(refs), err)
	}
}

// restored is what the objects of a backup hold.
type restored struct {
	entries  map[string]string // content by name; directories end in a slash
	order    []string
	part     map[string]int // which part has it
	manifest map[string]pgdata.ManifestFile
	ranges   []pgdata.ManifestWALRange
}

// restore opens every object of a backup and holds the manifest against what
// the parts have.
func (s *site) restore(t *testing.T, b *repo.Backup) *restored {
	t.Helper()
	r := &restored{entries: make(map[string]string), part: make(map[string]int), manifest: make(map[string]pgdata.ManifestFile)}
	for i, p := range b.Parts {
		for name, content := range untar(t, s.open(t, p, repo.PartHeader(b.SystemID, b.ID, i+1))) {
			if _, twice := r.entries[name]; twice {
				t.Errorf("%s is in the backup twice", name)
			}
			r.entries[name], r.part[name] = content, i
			r.order = append(r.order, name)
		}
	}
	manifest, err := pgdata.ReadManifest(bytes.NewReader(s.open(t, b.Manifest, repo.ManifestHeader(b.SystemID, b.ID))), pgdata.ManifestLimits{})
	if err != nil {
		t.Fatal(err)
	}
	for f, err := range manifest.Files() {
		if err != nil {
			t.Fatal(err)
		}
		r.manifest[f.Path] = f
		content, there := r.entries[f.Path]
		if !there || int64(len(content)) != f.Size {
			t.Errorf("%s: the manifest says %d bytes, the parts have %d (%v)", f.Path, f.Size, len(content), there)
		}
		if h := f.Algorithm.New(); h != nil {
			_, _ = io.WriteString(h, content) // never fails
			if !bytes.Equal(h.Sum(nil), f.Checksum) {
				t.Errorf("%s: its checksum in the manifest is wrong", f.Path)
			}
		}
	}
	if r.ranges, err = manifest.Finish(); err != nil {
		t.Fatal(err)
	}
	for name := range r.entries {
		if _, listed := r.manifest[name]; !listed && !strings.HasSuffix(name, "/") && name != "tablespace_map" {
			t.Errorf("%s isn't in the manifest", name)
		}
	}
	return r
}

// open reads an object and holds it against the backup's record.
func (s *site) open(t *testing.T, o repo.Object, want object.Header) []byte {
	t.Helper()
	body, info, err := s.store.Get(t.Context(), o.Key, 0, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if info.Size != o.StoredSize {
		t.Errorf("%s has %d bytes, the record says %d", o.Key, info.Size, o.StoredSize)
	}
	if want.Digest, err = object.ParseDigest(o.PlainDigest); err != nil {
		t.Fatal(err)
	}
	want.PlainSize = o.PlainSize
	reader, err := s.repository.Opener.Open(body, want)
	if err != nil {
		t.Fatal(err)
	}
	content, err := io.ReadAll(reader)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

func untar(t *testing.T, content []byte) map[string]string {
	t.Helper()
	entries := make(map[string]string)
	for archive := tar.NewReader(bytes.NewReader(content)); ; {
		header, err := archive.Next()
		if err == io.EOF {
			return entries
		}
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(archive)
		if err != nil {
			t.Fatal(err)
		}
		entries[header.Name] = string(data)
	}
}

// writeTree makes files by their paths; one that ends in a slash is a
// directory, and content that starts with "-> " makes a link.
func writeTree(t testing.TB, dir string, files map[string]string) {
	t.Helper()
	for name, content := range files {
		full := filepath.Join(dir, name)
		parent := path.Dir(full)
		if strings.HasSuffix(name, "/") {
			parent = full
		}
		err := os.MkdirAll(parent, 0o700)
		if target, link := strings.CutPrefix(content, "-> "); err == nil && link {
			err = os.Symlink(target, full)
		} else if err == nil && parent != full {
			err = os.WriteFile(full, []byte(content), 0o600)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func partHeader(b *repo.Backup, n int) object.Header { return repo.PartHeader(b.SystemID, b.ID, n) }

// useControl gives the data directory a control file whose last checkpoint is
// n bytes further.
func useControl(t *testing.T, s *site, n int64) {
	t.Helper()
	changeControl(t, s, func(content []byte) {
		binary.LittleEndian.PutUint64(content[40:], uint64(int64(testRedo)+n))
	})
}

// useState gives the data directory a control file with another state.
func useState(t testing.TB, s *site, state pgdata.State) {
	t.Helper()
	changeControl(t, s, func(content []byte) { binary.LittleEndian.PutUint32(content[16:], uint32(state)) })
}

func changeControl(t testing.TB, s *site, change func(content []byte)) {
	t.Helper()
	file := filepath.Join(s.dir, pgdata.ControlFileName)
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	change(content)
	const checksum = 288 // offset of version 1300
	binary.LittleEndian.PutUint32(content[checksum:], crc32.Checksum(content[:checksum], crc32.MakeTable(crc32.Castagnoli)))
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
}

// damageControl flips a bit of the control file.
func damageControl(t *testing.T, s *site) {
	t.Helper()
	file := filepath.Join(s.dir, pgdata.ControlFileName)
	content, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	content[100] ^= 1
	if err := os.WriteFile(file, content, 0o600); err != nil {
		t.Fatal(err)
	}
}
