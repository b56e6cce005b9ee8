package backup

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/walship/walship/pkg/object"
	"github.com/walship/walship/pkg/pgdata"
	"github.com/walship/walship/pkg/postgres"
	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/storage"
)

// TestGroupAccess: the record says whether the data directory's group may read.
func TestGroupAccess(t *testing.T) {
	for mode, want := range map[os.FileMode]bool{0o700: false, 0o750: true} {
		s := newSite(t)
		if err := os.Chmod(s.dir, mode); err != nil {
			t.Fatal(err)
		}
		if b, _ := s.mustPush(t); b.GroupAccess != want {
			t.Errorf("of a data directory of mode %v the record says %v", mode, b.GroupAccess)
		}
	}
}

func TestRecord(t *testing.T) {
	s := newSite(t)
	var last Progress
	s.options.Progress = func(p Progress) { last = p }
	b, r := s.mustPush(t)
	// What the last part holds isn't copied from files.
	if before := b.PlainSize - int64(len(testLabel)) - pgdata.ControlFileSize; last.ID != b.ID || last.Bytes != before || last.Total != before || last.Files != b.Files-2 {
		t.Errorf("the last that was said of the progress is %+v", last)
	}
	if b.ID != "20261120T142500Z" || b.SystemID != testSystemID || b.Label != "nightly" || b.Host != "db1" || b.DataDirectory != s.dir {
		t.Errorf("the record says %+v", b)
	}
	if b.Timeline != 1 || b.StartLSN != testRedo || b.Checkpoint != 0x6007A0 || b.StopLSN != 0x700100 || b.SegmentSize != testSegment {
		t.Errorf("the record says timeline %d, start %s, checkpoint %s, stop %s, segments of %d", b.Timeline, b.StartLSN, b.Checkpoint, b.StopLSN, b.SegmentSize)
	}
	if b.StopSnapshot != "750:750:" || !b.StopTime.Equal(s.server.stop.Time) || b.Required.MaxConnections != 100 {
		t.Errorf("the record says snapshot %q, stop %s, %+v", b.StopSnapshot, b.StopTime, b.Required)
	}
	if want := []pgdata.ManifestWALRange{{Timeline: 1, Start: testRedo, End: 0x700100}}; !slices.Equal(r.ranges, want) {
		t.Errorf("the manifest needs %v, want %v", r.ranges, want)
	}
	if r.entries["backup_label"] != testLabel {
		t.Errorf("backup_label is %q", r.entries["backup_label"])
	}
	var size, stored int64
	files := 0
	for name, content := range r.entries {
		if !strings.HasSuffix(name, "/") {
			size += int64(len(content))
			files++
		}
	}
	for _, o := range append(b.Parts, b.Manifest) {
		stored += o.StoredSize
	}
	if b.PlainSize != size || b.Files != int64(files) || b.StoredSize != stored {
		t.Errorf("the record counts %d files of %d bytes, %d stored; there are %d of %d, %d stored", b.Files, b.PlainSize, b.StoredSize, files, size, stored)
	}
	if b.Configuration != nil {
		t.Error("there is an object for configuration, but all of that lies in the data directory")
	}
}

func TestRefusedServers(t *testing.T) {
	for want, change := range map[string]func(*site){
		"no recipient is configured":    func(s *site) { s.repository.Sealer = nil },
		"it is in production":           func(s *site) { s.server.facts.InRecovery = true },
		"wal_level is minimal":          func(s *site) { s.server.facts.WALLevel = "minimal" },
		"archive_mode is off":           func(s *site) { s.server.facts.ArchiveMode = "off" },
		"archive_command is empty":      func(s *site) { s.server.facts.ArchiveCommand = "" },
		"belongs to cluster":            func(s *site) { s.server.facts.SystemID = 1 },
		"this walship doesn't know it":  func(s *site) { s.server.facts.Version = 160001 },
		"must run on the server's host": func(s *site) { s.options.DataDirectory = filepath.Join(s.dir, "elsewhere") },
		"may not do that":               func(s *site) { s.server.startErr = errors.New("may not do that") },
		"isn't the one of the server":   func(s *site) { s.server.started = func() { useControl(t, s, -1) } },
		"it is in archive recovery":     func(s *site) { s.server.started = func() { useState(t, s, pgdata.StateInArchiveRecovery) } },
		"read control file":             func(s *site) { _ = os.Truncate(filepath.Join(s.dir, "global/pg_control"), 100) },
		"was created while the backup":  func(s *site) { s.server.started = func() { _ = os.MkdirAll(s.dir+"/pg_tblspc/16500", 0o700) } },
		`tablespace "ts" (16400)`:       func(s *site) { s.server.tablespaces = []postgres.Tablespace{{OID: 16400, Name: "ts"}} },
	} {
		t.Run(want, func(t *testing.T) {
			s := newSite(t)
			change(s)
			if _, err := s.push(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want an error with %q", err, want)
			}
			for info, err := range s.store.List(t.Context(), "", "") {
				t.Errorf("the repository has %s (%v)", info.Key, err)
			}
		})
	}
}

func TestAborted(t *testing.T) { // faults 10, 36 and 37
	for want, change := range map[string]func(*site){
		"server is gone":               func(s *site) { s.server.stopErr = errors.New("server is gone") },
		"ended another backup":         func(s *site) { s.server.stop.Label = []byte(strings.Replace(testLabel, "0/600768", "0/600800", 1)) },
		"parse backup_label":           func(s *site) { s.server.stop.Label = []byte("?") },
		"ends before it starts":        func(s *site) { s.server.stop.LSN = 1 },
		"checksum of the control file": func(s *site) { s.server.listed = func() { damageControl(t, s) } },
	} {
		t.Run(want, func(t *testing.T) {
			s := newSite(t)
			s.archiveWAL(t, 6, 7)
			change(s)
			_, err := s.push(t.Context())
			if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "backup 20261120T142500Z aborted") {
				t.Errorf("got %v, want an error with %q", err, want)
			}
			s.noBackup(t)
		})
	}
}

// A store that fails one operation on keys that contain part.
type failing struct {
	storage.Store
	part  string
	after bool // the object is stored, and the response lost
	fired bool
}

func (f *failing) Put(ctx context.Context, key string, body io.Reader) (storage.Info, error) {
	if f.fired || !strings.Contains(key, f.part) {
		return f.Store.Put(ctx, key, body)
	}
	f.fired = true
	if !f.after {
		return storage.Info{}, fmt.Errorf("put %s: connection reset", key) // as storages name it
	}
	// The client's own retry met what it had written.
	if _, err := f.Store.Put(ctx, key, body); err != nil {
		return storage.Info{}, err
	}
	return storage.Info{}, storage.ErrExist
}

func TestStorageFails(t *testing.T) { // faults 10 and 15
	for _, part := range []string{"start.json", "cluster.json", "000001.tar", "000002.tar", "backup_manifest", "/backups/", "configuration.tar"} {
		for _, after := range []bool{false, true} {
			t.Run(part, func(t *testing.T) {
				s := newSite(t)
				s.archiveWAL(t, 6, 7)
				s.server.facts.ConfigFile = filepath.Join(t.TempDir(), "postgresql.conf")
				if err := os.WriteFile(s.server.facts.ConfigFile, nil, 0o600); err != nil {
					t.Fatal(err)
				}
				store := &failing{Store: s.store, part: part, after: after}
				s.use(t, store)
				_, err := s.push(t.Context())
				if !store.fired {
					t.Fatal("the fault didn't fire")
				}
				if after {
					if err != nil {
						t.Errorf("a lost response: %v", err)
					}
					return
				}
				if err == nil || !strings.Contains(err.Error(), "connection reset") {
					t.Errorf("got %v, want the storage's error", err)
				} else if named := strings.Contains(err.Error(), "backup 20261120T142500Z aborted"); named != (part != "start.json") {
					t.Errorf("%v: names the backup: %t", err, named)
				} else if strings.Count(err.Error(), "/parts/") > 1 {
					t.Errorf("%v: names the object more than once", err)
				}
				s.noBackup(t)
			})
		}
	}
}

func TestForeignPart(t *testing.T) {
	s := newSite(t)
	s.archiveWAL(t, 6, 7)
	key := repo.PartKey(testSystemID, "20261120T142500Z", 1) + ".zst"
	if _, err := s.store.Put(t.Context(), key, strings.NewReader("not ours")); err != nil {
		t.Fatal(err)
	}
	if _, err := s.push(t.Context()); !errors.Is(err, storage.ErrExist) {
		t.Errorf("got %v, want a part that isn't ours to be an error", err)
	}
	s.noBackup(t)
}

func TestCancelled(t *testing.T) { // fault 10
	s := newSite(t)
	ctx, cancel := context.WithCancelCause(t.Context())
	s.server.started = func() { cancel(errors.New("terminated by the user")) }
	if _, err := s.push(ctx); err == nil || !strings.Contains(err.Error(), "terminated by the user") {
		t.Errorf("got %v, want the reason of the end", err)
	}
	s.noBackup(t)
}

func TestSessionLost(t *testing.T) { // fault 37
	gone := errors.New("server closed the connection")
	server := &scriptedServer{ping: func(context.Context) error { return gone }}
	held, release := holdSession(t.Context(), server, time.Millisecond)
	defer release()
	<-held.Done()
	if err := causeOf(held, context.Canceled); !errors.Is(err, gone) || !strings.Contains(err.Error(), "the session that holds the backup is gone") {
		t.Errorf("the reason is %v", err)
	}
}

func TestProveWAL(t *testing.T) { // fault 38
	t.Run("waits", func(t *testing.T) {
		s := newSite(t)
		s.archiveWAL(t, 6)
		r := s.begin(t)
		done := make(chan error)
		go func() { done <- r.finish(t.Context()) }()
		// The manifest is stored right before the proof begins.
		waitFor(t, func() bool {
			_, err := s.store.Stat(t.Context(), repo.ManifestKey(testSystemID, r.record.ID)+".zst")
			return err == nil
		})
		s.noBackup(t)
		s.archiveWAL(t, 7)
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	})
	t.Run("gives up", func(t *testing.T) {
		s := newSite(t)
		s.archiveWAL(t, 6)
		s.options.WALTimeout = 300 * time.Millisecond
		_, err := s.push(t.Context())
		if err == nil || !strings.Contains(err.Error(), "000000010000000000000007, which the backup needs, isn't archived") {
			t.Errorf("got %v, want an error that names the segment", err)
		}
		s.noBackup(t)
	})
	t.Run("another server's", func(t *testing.T) { // fault 25
		s := newSite(t)
		s.archiveWAL(t, 6, 7)
		writeTree(t, s.dir, map[string]string{
			"pg_wal/000000010000000000000007": "wal", "pg_wal/archive_status/000000010000000000000007.ready": "",
		})
		s.options.WALTimeout = 300 * time.Millisecond
		_, err := s.push(t.Context())
		if err == nil || !strings.Contains(err.Error(), "000000010000000000000007, which the backup needs, is in the repository, but") {
			t.Errorf("got %v, want an error that names the segment", err)
		}
		s.noBackup(t)
	})
	t.Run("another repository's", func(t *testing.T) {
		s := newSite(t)
		s.archiveWAL(t, 7)
		s.archiveAs(t, &object.Sealer{Repository: strings.Repeat("f", 32)}, 6)
		_, err := s.push(t.Context())
		if err == nil || !strings.Contains(err.Error(), "000000010000000000000006, which the backup needs, was stored as") {
			t.Errorf("got %v, want an error that names the segment", err)
		}
		s.noBackup(t)
	})
	t.Run("history", func(t *testing.T) {
		s := newSite(t)
		r := s.begin(t)
		r.record.Timeline, r.record.StopLSN = 3, 0x700000
		missing, err := r.missingWAL(t.Context())
		if err != nil || len(missing) != 2 || missing[0].String() != "00000003.history" || missing[1].String() != "000000030000000000000006" {
			t.Errorf("missing %v (%v), want the history file and the segment", missing, err)
		}
	})
}

func waitFor(t *testing.T, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatal("what was waited for didn't happen")
		}
		time.Sleep(5 * time.Millisecond)
	}
}
