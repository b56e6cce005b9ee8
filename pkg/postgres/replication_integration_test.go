//go:build integration

package postgres_test

import (
	"archive/tar"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/walship/walship/pkg/pgdata"
	"github.com/walship/walship/pkg/postgres"
	"github.com/walship/walship/pkg/wal"
	"github.com/walship/walship/test/pgtest"
)

func replication(t *testing.T, c *pgtest.Cluster, user string) *postgres.Replication {
	t.Helper()
	session, err := postgres.ConnectReplication(t.Context(), strings.Replace(c.ConnString("postgres"), "user=postgres", "user="+user, 1))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = session.Close() }) // the test may have ended it
	return session
}

// TestReplication is the protocol with each major, as a role that may do
// nothing but replicate.
func TestReplication(t *testing.T) {
	for _, major := range pgtest.Majors() {
		t.Run(major.String(), func(t *testing.T) {
			options := []pgtest.Option{pgtest.SegmentSize(1), pgtest.Checksums(true)}
			if major >= 17 {
				options = append(options, pgtest.Set("summarize_wal", "on"))
			}
			c := pgtest.New(t, major, options...)
			c.Start(t)
			space := pgtest.MkdirNobody(t, pgtest.WorkDir(t), "space")
			c.Exec(t, "CREATE ROLE carrier LOGIN REPLICATION", "CREATE TABLESPACE space LOCATION '"+space+"'",
				"CREATE TABLE moved TABLESPACE space AS SELECT generate_series(1, 1000) AS id",
				"CREATE TABLE damaged AS SELECT generate_series(1, 1000) AS id", "CHECKPOINT")
			session := replication(t, c, "carrier")
			t.Run("facts", func(t *testing.T) { testReplicationFacts(t, session, major) })
			var manifest []byte
			t.Run("backup", func(t *testing.T) { manifest = testBaseBackup(t, session) })
			if major >= 17 {
				t.Run("incremental", func(t *testing.T) { testIncremental(t, c, session, manifest) })
			}
			t.Run("wal", func(t *testing.T) { testStream(t, c, session) })
			t.Run("damage", func(t *testing.T) { testDamage(t, c, session) })
		})
	}
}

func testReplicationFacts(t *testing.T, session *postgres.Replication, major pgtest.Major) {
	f, err := session.Facts(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if f.Version/10000 != int(major) || f.SegmentSize != 1<<20 || f.WALLevel != "replica" || f.ArchiveMode != "off" || f.Archiving() || f.InRecovery {
		t.Errorf("the facts are %+v", f)
	}
	before := time.Now()
	clock, err := session.Clock(t.Context())
	if err != nil || clock.Before(before.Truncate(time.Microsecond)) || clock.After(time.Now()) {
		t.Errorf("the server's clock says %v, %v", clock, err)
	}
}

// streams are what a backup consists of, by the paths of the manifest.
type streams struct {
	files    map[string]int64
	links    int
	manifest []byte
	end      postgres.BaseBackupEnd
	start    wal.LSN
}

func receive(t *testing.T, session *postgres.Replication, o postgres.BaseBackupOptions) streams {
	t.Helper()
	b, err := session.StartBaseBackup(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	if known := b.Size > 1<<20; known != o.Sizes {
		t.Errorf("the size is said to be %d", b.Size)
	}
	s := streams{files: map[string]int64{}, start: b.Start}
	for {
		stream, err := b.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		if stream.Manifest {
			if s.manifest, err = io.ReadAll(b); err != nil {
				t.Fatal(err)
			}
			continue
		}
		prefix := ""
		if stream.OID != 0 {
			prefix = filepath.Join("pg_tblspc", strconv.FormatUint(uint64(stream.OID), 10)) + "/"
		}
		archive := tar.NewReader(b)
		for {
			entry, err := archive.Next()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if entry.Typeflag == tar.TypeReg {
				s.files[prefix+entry.Name] = entry.Size
			}
			if entry.Typeflag == tar.TypeSymlink {
				s.links++
			}
		}
	}
	if s.end, err = b.Finish(); err != nil {
		t.Fatal(err)
	}
	return s
}

// testBaseBackup checks that what comes is what the manifest says.
func testBaseBackup(t *testing.T, session *postgres.Replication) []byte {
	s := receive(t, session, postgres.BaseBackupOptions{Label: "it's one", Fast: true, Checksums: pgdata.ChecksumSHA256, MaxRate: postgres.MaxServerRate, Sizes: true})
	if s.links != 1 || len(s.end.Damage) > 0 || s.end.Stop <= s.start || s.end.Timeline != 1 {
		t.Errorf("%d links, from %s to %+v", s.links, s.start, s.end)
	}
	m, err := pgdata.ReadManifest(bytes.NewReader(s.manifest), pgdata.ManifestLimits{})
	if err != nil {
		t.Fatal(err)
	}
	for f, err := range m.Files() {
		if err != nil {
			t.Fatal(err)
		}
		if size, ok := s.files[f.Path]; !ok || size != f.Size || f.Algorithm != pgdata.ChecksumSHA256 {
			t.Errorf("the manifest has %+v, the archives %d, %v", f, size, ok)
		}
		delete(s.files, f.Path)
	}
	ranges, err := m.Finish()
	if err != nil || len(ranges) != 1 || ranges[0].Start != s.start || ranges[0].End != s.end.Stop {
		t.Errorf("the manifest's WAL is %+v, %v, want %s to %s", ranges, err, s.start, s.end.Stop)
	}
	if len(s.files) > 0 {
		t.Errorf("the archives have more than the manifest: %v", s.files)
	}
	// The session is good for more.
	if _, err := session.IdentifySystem(t.Context()); err != nil {
		t.Error(err)
	}
	return s.manifest
}

func testIncremental(t *testing.T, c *pgtest.Cluster, session *postgres.Replication, manifest []byte) {
	c.Exec(t, "UPDATE damaged SET id = id WHERE id = 1", "CHECKPOINT")
	if err := session.UploadManifest(t.Context(), bytes.NewReader(manifest)); err != nil {
		t.Fatal(err)
	}
	s := receive(t, session, postgres.BaseBackupOptions{Label: "changes", Fast: true, Checksums: pgdata.ChecksumCRC32C, Incremental: true})
	incremental := 0
	for name := range s.files {
		if strings.HasPrefix(filepath.Base(name), "INCREMENTAL.") {
			incremental++
		}
	}
	if incremental == 0 {
		t.Error("an incremental backup has no incremental file")
	}
	if err := replication(t, c, "carrier").UploadManifest(t.Context(), strings.NewReader("nonsense")); err == nil {
		t.Error("the server took nonsense for a manifest")
	}
}

// testStream receives a whole segment that a slot kept, and compares it with
// the server's own file.
func testStream(t *testing.T, c *pgtest.Cluster, session *postgres.Replication) {
	slot, err := session.ReserveWAL(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	at, err := session.IdentifySystem(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	const size = 1 << 20
	from := wal.LSN(wal.SegmentNumber(at.LSN, size) * size)
	c.Exec(t, "CREATE TABLE filler_of_wal AS SELECT generate_series(1, 100) AS id", "SELECT pg_switch_wal()")
	var got bytes.Buffer
	err = session.StreamWAL(t.Context(), slot, from, at.Timeline, func(lsn wal.LSN, data []byte) (wal.LSN, bool, error) {
		if lsn != from+wal.LSN(got.Len()) {
			return 0, false, errors.New("a gap in the WAL")
		}
		got.Write(data)
		return from, got.Len() >= size, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	name := wal.SegmentName(at.Timeline, wal.SegmentNumber(from, size), size)
	want, err := os.ReadFile(filepath.Join(c.DataDir, "pg_wal", name.String()))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got.Bytes()[:size], want) {
		t.Errorf("%s differs from what was streamed", name)
	}
	if _, err := session.Clock(t.Context()); err != nil {
		t.Errorf("the session is good for no more: %v", err)
	}
	testStreamEnded(t, replication(t, c, "carrier"), from, at.Timeline)
}

// testStreamEnded ends a stream's context just before the server is told what is
// safe: the reason for the end is returned, and not that the message wasn't sent.
func testStreamEnded(t *testing.T, session *postgres.Replication, from wal.LSN, timeline wal.TimelineID) {
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	err := session.StreamWAL(ctx, "", from, timeline, func(lsn wal.LSN, data []byte) (wal.LSN, bool, error) {
		cancel(enough)
		time.Sleep(50 * time.Millisecond) // until the connection is given up
		return lsn + wal.LSN(len(data)), false, nil
	})
	if !errors.Is(err, enough) {
		t.Errorf("a stream that was ended: %v", err)
	}
}

// testDamage is fault 35: the server's own verification.
func testDamage(t *testing.T, c *pgtest.Cluster, session *postgres.Replication) {
	path := filepath.Join(c.DataDir, c.SQL(t, "SELECT pg_relation_filepath('damaged')"))
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	var word [4]byte
	if _, err := file.ReadAt(word[:], 8000); err != nil {
		t.Fatal(err)
	}
	binary.BigEndian.PutUint32(word[:], ^binary.BigEndian.Uint32(word[:]))
	if _, err := file.WriteAt(word[:], 8000); err != nil {
		t.Fatal(err)
	}
	o := postgres.BaseBackupOptions{Label: "damaged", Fast: true, Checksums: pgdata.ChecksumNone}
	s := receive(t, session, o)
	if all := strings.Join(s.end.Damage, "\n"); !strings.Contains(all, filepath.Base(path)) || len(s.manifest) == 0 {
		t.Errorf("the damage is %q", all)
	}
	o.IgnorePageChecksums = true
	if s := receive(t, session, o); len(s.end.Damage) > 0 {
		t.Errorf("without verification the damage is %q", s.end.Damage)
	}
}
