package repo

import (
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/walship/walship/pkg/storage"
	"github.com/walship/walship/pkg/storage/mem"
	"github.com/walship/walship/pkg/wal"
)

var day = time.Date(2026, 11, 20, 14, 25, 0, 0, time.UTC)

func TestInitOnce(t *testing.T) {
	ctx, store := t.Context(), mem.New()
	if _, err := Open(ctx, store); !errors.Is(err, ErrNotInitialised) {
		t.Fatalf("open before init: %v", err)
	}
	made, err := Init(ctx, store, InitOptions{Encrypted: true, Now: day})
	if err != nil {
		t.Fatal(err)
	}
	if !made.Probe.ConditionalWrites || !made.Probe.Delete || made.Probe.Detail != "" {
		t.Errorf("probe of a good storage: %+v", made.Probe)
	}
	opened, err := Open(ctx, store)
	if err != nil || opened != made || !opened.Encrypted() {
		t.Errorf("opened %+v, %v; made %+v", opened, err, made)
	}
	again, err := Init(ctx, store, InitOptions{Now: day})
	if !errors.Is(err, ErrInitialised) || again.ID != made.ID {
		t.Errorf("second init: %+v, %v", again, err)
	}
	for info, err := range store.List(ctx, "", "") {
		if err != nil || info.Key != infoKey {
			t.Errorf("init left %s, %v", info.Key, err)
		}
	}
}

// overwriting is a storage that ignores conditions on writes of some keys.
type overwriting struct {
	storage.Store
	which string // part of the key
	one   sync.Mutex
}

func (o *overwriting) Put(ctx context.Context, key string, body io.Reader) (storage.Info, error) {
	if strings.Contains(key, o.which) {
		o.one.Lock()
		defer o.one.Unlock()
		if err := o.Delete(ctx, key); err != nil {
			return storage.Info{}, err
		}
	}
	return o.Store.Put(ctx, key, body)
}

func TestInitRefusesOverwriting(t *testing.T) { // fault 23
	for _, which := range []string{"/once", "/race", "/stream"} {
		store := &overwriting{Store: mem.New(), which: which}
		info, err := Init(t.Context(), store, InitOptions{Now: day})
		if !errors.Is(err, ErrUnconditional) || info.Probe.ConditionalWrites || info.Probe.Detail == "" {
			t.Errorf("%s: init gave %+v, %v", which, info.Probe, err)
		}
		if _, err := Open(t.Context(), store); !errors.Is(err, ErrNotInitialised) {
			t.Errorf("%s: after a refused init the repository opens: %v", which, err)
		}
		info, err = Init(t.Context(), store, InitOptions{Now: day, UnsafeSingleWriter: true})
		if err != nil || !info.UnsafeSingleWriter {
			t.Errorf("%s: unsafe init gave %+v, %v", which, info, err)
		}
	}
}

// appendOnly is a storage whose credentials may not delete.
type appendOnly struct{ storage.Store }

func (appendOnly) Delete(context.Context, ...string) error { return storage.ErrDenied }

func TestInitAppendOnly(t *testing.T) { // fault 54
	info, err := Init(t.Context(), appendOnly{mem.New()}, InitOptions{Now: day})
	if err != nil || info.Probe.Delete || !info.Probe.ConditionalWrites {
		t.Errorf("init with credentials that may not delete: %+v, %v", info.Probe, err)
	}
}

func TestOpenRefuses(t *testing.T) {
	id := strings.Repeat("0f", 16)
	for name, content := range map[string]string{
		"newer format":       `{"format": 2, "id": "` + id + `", "encryption": "age"}`,
		"no id":              `{"format": 1, "encryption": "age"}`,
		"unknown encryption": `{"format": 1, "id": "` + id + `", "encryption": "rot13"}`,
		"no JSON":            `<Error>`,
		"too large":          strings.Repeat(" ", maxInfo+1),
	} {
		store := mem.New()
		if _, err := store.Put(t.Context(), infoKey, strings.NewReader(content)); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(t.Context(), store); err == nil || errors.Is(err, ErrNotInitialised) {
			t.Errorf("%s: open gave %v", name, err)
		}
	}
}

// newRepository makes a repository in memory, without the probe of Init.
func newRepository(t *testing.T) *Repository {
	t.Helper()
	r, err := New(mem.New(), Info{Format: Format, ID: strings.Repeat("5a", 16), Encryption: "none"}, Keys{})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func put(t *testing.T, r *Repository, keys ...string) {
	t.Helper()
	for _, key := range keys {
		if _, err := r.Store.Put(t.Context(), key, strings.NewReader("x")); err != nil {
			t.Fatal(err)
		}
	}
}

const cluster = 7431000000000000001

func TestListWAL(t *testing.T) {
	r := newRepository(t)
	names := []string{ // in the order of their keys
		"000000010000000000000001", "000000010000000000000002", "000000010000000000000002.00000028.backup",
		"0000000100000001000000FF", "00000002.history", "000000010000000000000003.partial", "000000020000000000000003",
	}
	for _, s := range names {
		name, err := wal.ParseFileName(s)
		if err != nil {
			t.Fatal(err)
		}
		put(t, r, r.FileKey(cluster, name))
	}
	put(t, r, "7431000000000000001/wal/notes.txt", "7431000000000000001/wal/0000000100000000/000000020000000000000003.zst",
		"7431000000000000002/wal/00000009.history", "743/wal/00000008.history")
	slices.Sort(names[2:6]) // of one timeline, then the next one's history
	list := func(from string) (got []string) {
		var start wal.FileName
		if from != "" {
			start, _ = wal.ParseFileName(from)
		}
		for file, err := range r.ListWAL(t.Context(), cluster, start) {
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, file.Name.String())
		}
		return got
	}
	want := []string{
		"000000010000000000000001", "000000010000000000000002.00000028.backup", "000000010000000000000002",
		"000000010000000000000003.partial", "0000000100000001000000FF", "00000002.history", "000000020000000000000003",
	}
	if got := list(""); !slices.Equal(got, want) {
		t.Errorf("all: %v, want %v", got, want)
	}
	if got := list("000000010000000000000003"); !slices.Equal(got, want[3:]) {
		t.Errorf("from a segment: %v, want %v", got, want[3:])
	}
	if got := list("00000002.history"); !slices.Equal(got, want[5:]) {
		t.Errorf("from a history file: %v, want %v", got, want[5:])
	}
	timelines, err := r.Histories(t.Context(), cluster)
	if err != nil || !slices.Equal(timelines, []wal.TimelineID{2}) {
		t.Errorf("histories: %v, %v", timelines, err)
	}
	clusters, err := r.Clusters(t.Context())
	if err != nil || !slices.Equal(clusters, []uint64{743, cluster, cluster + 1}) {
		t.Errorf("clusters: %v, %v", clusters, err)
	}
}

func TestBackups(t *testing.T) {
	r := newRepository(t)
	var ids []string
	for range 11 { // all begun in one second
		start, err := r.CreateBackup(t.Context(), Start{SystemID: cluster, StartTime: day, StartLSN: 0x3000028, Timeline: 1})
		if err != nil {
			t.Fatal(err)
		}
		ids = append(ids, start.ID)
		object := Object{Key: PartKey(cluster, start.ID, 1) + r.Suffix()}
		manifest := Object{Key: ManifestKey(cluster, start.ID) + r.Suffix()}
		b := &Backup{ID: start.ID, SystemID: cluster, Timeline: 1, StartLSN: 0x3000028, StopLSN: 0x3000100,
			SegmentSize: 1 << 24, Parts: []Object{object}, Manifest: manifest, StopTime: day}
		if start.ID == "20261120T142500Z-3" {
			continue // never committed
		}
		if err := r.CommitBackup(t.Context(), b); err != nil {
			t.Fatal(err)
		}
		if err := r.CommitBackup(t.Context(), b); err != nil {
			t.Errorf("committing once more, as after a lost response: %v", err)
		}
		b.Label = "other"
		if err := r.CommitBackup(t.Context(), b); !errors.Is(err, storage.ErrExist) {
			t.Errorf("committing something else under the same key: %v", err)
		}
	}
	refs, err := r.Backups(t.Context(), cluster)
	if err != nil {
		t.Fatal(err)
	}
	want := slices.DeleteFunc(slices.Clone(ids), func(id string) bool { return id == "20261120T142500Z-3" })
	var got []string
	for _, ref := range refs {
		got = append(got, ref.ID)
		b, err := r.Backup(t.Context(), ref)
		if err != nil || b.ID != ref.ID || b.StopLSN != 0x3000100 {
			t.Errorf("backup %s: %+v, %v", ref.ID, b, err)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("listed %v, want %v", got, want)
	}
}

func TestNoteCluster(t *testing.T) {
	r := newRepository(t)
	for _, major := range []int{15, 17} { // the first one stays
		if err := r.NoteCluster(t.Context(), Cluster{SystemID: cluster, Major: major, SegmentSize: 1 << 24, Seen: day}); err != nil {
			t.Fatal(err)
		}
	}
	got, err := readObject(t.Context(), r.Store, clusterKey(cluster), maxInfo)
	if err != nil || !strings.Contains(string(got), `"major": 15`) || !strings.Contains(string(got), `"wal_segment_size": 16777216`) {
		t.Errorf("cluster.json is %s, %v", got, err)
	}
}

func TestBackupRecordRefused(t *testing.T) {
	r := newRepository(t)
	ref := BackupRef{ID: "20261120T142500Z", SystemID: cluster, Timeline: 1, StartLSN: 0x28, StopLSN: 0x100}
	for name, record := range map[string]string{
		"other id":       `{"format":1,"id":"20261120T142501Z"}`,
		"outside folder": `{"format":1,"id":"20261120T142500Z","system_identifier":"7431000000000000001","timeline":1,"start_lsn":"0/28","stop_lsn":"0/100","wal_segment_size":16777216,"parts":[{"key":"repository.json"}],"manifest":{"key":"x"}}`,
		"newer format":   `{"format":2}`,
		"cut":            `{"format":1,`,
	} {
		if err := r.Store.Delete(t.Context(), ref.Key()); err != nil {
			t.Fatal(err)
		}
		if _, err := r.Store.Put(t.Context(), ref.Key(), strings.NewReader(record)); err != nil {
			t.Fatal(err)
		}
		if b, err := r.Backup(t.Context(), ref); err == nil {
			t.Errorf("%s: accepted %+v", name, b)
		}
	}
	for _, key := range []string{"x", backupsPrefix(cluster) + "00000001-0000000000000028-0000000000000100-latest.json",
		backupsPrefix(cluster) + "1-28-100-20261120T142500Z.json", ref.Key() + ".tmp"} {
		if got, ok := parseBackupKey(cluster, key); ok {
			t.Errorf("key %s taken for %+v", key, got)
		}
	}
	if got, ok := parseBackupKey(cluster, ref.Key()); !ok || got != ref {
		t.Errorf("key %s gave %+v", ref.Key(), got)
	}
}
