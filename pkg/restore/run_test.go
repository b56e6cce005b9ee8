package restore

import (
	"archive/tar"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/walship/walship/pkg/object"
	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/wal"
)

func TestRun(t *testing.T) {
	r, work := makeRepository(), t.TempDir()
	smallBackup().commit(t, r)
	q := request(work)
	result, err := restoreInto(t, r, q)
	if err != nil {
		t.Fatal(err)
	}
	data := tree(t, q.Directory)
	for name, want := range map[string]string{
		".": "/", "base/1/1259": strings.Repeat("page", 5000), "base/1/empty": "", "not UTF-8 \xff": "x", "PG_VERSION": "15\n", "pg_notify": "/",
		"pg_wal": "/", "pg_wal/archive_status": "/", "recovery.signal": "",
		"global/pg_control": controlFile(testSystem), "backup_label": backupLabel(smallBackup().record),
		"pg_tblspc/16400": "-> " + filepath.Join(work, "fast"),
	} {
		if got, ok := data[name]; !ok || got != want {
			t.Errorf("%s is %.40q, %v; want %.40q", name, got, ok, want)
		}
	}
	for _, name := range []string{"tablespace_map", "standby.signal"} {
		if _, ok := data[name]; ok {
			t.Errorf("%s was restored", name)
		}
	}
	conf := data["postgresql.auto.conf"]
	for _, want := range []string{"work_mem = '8MB'\n", "restore_command = 'walship wal fetch %f %p'\n", "recovery_target = 'immediate'\n",
		"max_wal_senders = '25'\n", "max_connections = '100'\n", "archive_mode = 'off'\n"} {
		if !strings.Contains(conf, want) {
			t.Errorf("postgresql.auto.conf lacks %q:\n%s", want, conf)
		}
	}
	if got := tree(t, filepath.Join(work, "fast"))["PG_15_202209061/5/16401"]; got != "row\n" {
		t.Errorf("the tablespace's file is %q", got)
	}
	if got := tree(t, result.StateDirectory)["walship.toml"]; got != "# settings\n" {
		t.Errorf("the settings file is %q", got)
	}
	if !strings.Contains(result.Start, "pg_ctl -D "+q.Directory+" -l ") {
		t.Errorf("start command %q", result.Start)
	}
	// Fault 44: what is there now is never written over.
	var refused *RefusedError
	if _, err := restoreInto(t, r, q); !errors.As(err, &refused) {
		t.Errorf("restoring again: %v, want a refusal", err)
	}
}

// TestRunWALDirectory is rule 7, a linked pg_wal.
func TestRunWALDirectory(t *testing.T) {
	r, work := makeRepository(), t.TempDir()
	smallBackup().commit(t, r)
	q := request(work)
	q.WALDirectory = filepath.Join(work, "wal")
	if _, err := restoreInto(t, r, q); err != nil {
		t.Fatal(err)
	}
	if got := tree(t, q.Directory)["pg_wal"]; got != "-> "+q.WALDirectory {
		t.Errorf("pg_wal is %q", got)
	}
	if got := tree(t, q.WALDirectory)["archive_status"]; got != "/" {
		t.Errorf("pg_wal/archive_status is %q", got)
	}
}

// TestRunConfiguration is rule 6, Debian's configuration.
func TestRunConfiguration(t *testing.T) {
	r, work := makeRepository(), t.TempDir()
	b := smallBackup()
	b.configuration = []tarEntry{
		file("etc/postgresql/15/main/postgresql.conf", "max_connections = 400\ninclude_dir = 'conf.d'\nhba_file = '/etc/postgresql/15/main/pg_hba.conf'\n"),
		file("etc/postgresql/15/main/pg_hba.conf", "local all all peer\n"),
	}
	b.record.ConfigurationOf = map[string]string{
		"config_file": "/etc/postgresql/15/main/postgresql.conf", "hba_file": "/etc/postgresql/15/main/pg_hba.conf",
		"ident_file": "/etc/../../outside", "shared_preload_libraries": "/evil"}
	b.commit(t, r)
	q := request(work)
	result, err := restoreInto(t, r, q)
	if err != nil {
		t.Fatal(err)
	}
	state := tree(t, result.StateDirectory)
	if got := state["configuration/etc/postgresql/15/main/pg_hba.conf"]; got != "local all all peer\n" {
		t.Errorf("pg_hba.conf is %q", got)
	}
	if got := state["configuration/etc/postgresql/15/main/conf.d"]; got != "/" {
		t.Errorf("the included folder is %q", got)
	}
	if conf := tree(t, q.Directory)["postgresql.auto.conf"]; !strings.Contains(conf, "max_connections = '400'\n") {
		t.Errorf("max_connections isn't the configuration's:\n%s", conf)
	}
	want := "-o '-c data_directory=" + q.Directory + " -c external_pid_file=" + result.Configuration + "/postmaster.pid -c config_file=" + result.Configuration +
		"/etc/postgresql/15/main/postgresql.conf -c hba_file=" + result.Configuration + "/etc/postgresql/15/main/pg_hba.conf -c ident_file=" + result.Configuration + "/outside' start"
	if !strings.Contains(result.Start, want) {
		t.Errorf("start command %q, want %q in it", result.Start, want)
	}
}

// TestRunRefusesContent is faults 49, 50 and 52, and what the manifest is for.
// Whatever is wrong, there is no pg_control, and the next restore works.
func TestRunRefusesContent(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(b *madeBackup)
		says   string
	}{
		{"path that escapes", func(b *madeBackup) { b.add(file("../evil", "x")) }, "isn't one of a file"},
		{"path that escapes behind a folder", func(b *madeBackup) { b.add(file("base/../../evil", "x")) }, "isn't one of a file"},
		{"absolute path", func(b *madeBackup) { b.add(file("/tmp/evil", "x")) }, "isn't one of a file"},
		{"path with a dot", func(b *madeBackup) { b.add(file("./base/1/9", "x")) }, "isn't one of a file"},
		{"symbolic link", func(b *madeBackup) { b.add(link("base/2", "/etc")) }, "neither a file nor a directory"},
		{"link in pg_tblspc", func(b *madeBackup) { b.add(link("pg_tblspc/16400", "/etc")) }, "neither a file nor a directory"},
		{"hard link", func(b *madeBackup) {
			b.add(tarEntry{Header: tar.Header{Name: "base/3", Typeflag: tar.TypeLink, Linkname: "PG_VERSION"}})
		}, "neither a file nor a directory"},
		{"device", func(b *madeBackup) { b.add(tarEntry{Header: tar.Header{Name: "base/4", Typeflag: tar.TypeChar}}) }, "neither a file nor a directory"},
		{"unknown tablespace", func(b *madeBackup) { b.add(file("pg_tblspc/16999/x", "x")); b.list() }, "doesn't name"},
		{"file in pg_tblspc", func(b *madeBackup) { b.add(file("pg_tblspc/x", "x")); b.list() }, "doesn't name"},
		{"not in the manifest", func(b *madeBackup) { b.add(file("base/1/9", "x")) }, "isn't in the backup's manifest"},
		{"a manifest in a part", func(b *madeBackup) { b.add(file("backup_manifest", "x")) }, "isn't in the backup's manifest"},
		{"twice in the parts", func(b *madeBackup) { b.add(file("PG_VERSION", "15\n")) }, "comes twice"},
		{"twice in the manifest", func(b *madeBackup) { b.manifest = append(b.manifest, b.manifest[0]) }, "twice"},
		{"not in the parts", func(b *madeBackup) { b.manifest = append(b.manifest, entryOf(file("base/1/1", "x"))) }, "aren't in its parts"},
		{"other size", func(b *madeBackup) { b.manifest[0].Size++ }, "its manifest says"},
		{"other content", func(b *madeBackup) { b.manifest[0].Checksum[3] ^= 1 }, "checksum"},
		{"other content of pg_control", func(b *madeBackup) { b.manifest[len(b.manifest)-1].Checksum[3] ^= 1 }, "checksum"},
		{"file where a folder is", func(b *madeBackup) { b.add(file("base/1/1259/x", "x")); b.list() }, "base/1/1259"},
		{"no label", func(b *madeBackup) { b.parts[1] = b.parts[1][1:]; b.list() }, "backup_label"},
		{"label of another backup", func(b *madeBackup) {
			other := *b.record
			other.Checkpoint++
			b.parts[1][0] = file("backup_label", backupLabel(&other))
			b.list()
		}, "backup_label starts at"},
		{"incremental label", func(b *madeBackup) {
			b.parts[1][0] = file("backup_label", backupLabel(b.record)+"INCREMENTAL FROM LSN: 0/2000028\nINCREMENTAL FROM TLI: 1\n")
			b.list()
		}, "incremental"},
		{"no pg_control", func(b *madeBackup) { b.parts[1] = b.parts[1][:2]; b.list() }, "no global/pg_control"},
		{"pg_control of another cluster", func(b *madeBackup) { b.parts[1][2] = file("global/pg_control", controlFile(42)); b.list() }, "is of cluster 42"},
		{"damaged pg_control", func(b *madeBackup) { b.parts[1][2].content[100]++; b.list() }, "checksum"},
		{"short pg_control", func(b *madeBackup) { b.parts[1][2] = file("global/pg_control", "short"); b.list() }, "bytes"},
		{"escape in the configuration", func(b *madeBackup) { b.configuration = []tarEntry{file("../../evil", "x")} }, "isn't one of a configuration file"},
		{"link in the configuration", func(b *madeBackup) { b.configuration = []tarEntry{link("etc", "/etc")} }, "neither a file nor a directory"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r, work := makeRepository(), t.TempDir()
			bad := smallBackup()
			c.change(bad)
			bad.commit(t, r)
			q := request(work)
			_, err := restoreInto(t, r, q)
			if err == nil || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("Run: %v; want an error that says %q", err, c.says)
			}
			if strings.HasPrefix(c.name, "other content") && !errors.Is(err, object.ErrCorrupt) {
				t.Errorf("Run: %v, which isn't an ErrCorrupt", err)
			}
			checkUnstartable(t, q.Directory)
			if _, err := os.Lstat(filepath.Join(work, "evil")); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("a file was written outside: %v", err)
			}
			good := makeRepository()
			smallBackup().commit(t, good)
			if _, err := restoreInto(t, good, q); err != nil {
				t.Errorf("restoring a good backup over the leftovers: %v", err)
			}
		})
	}
}

func (b *madeBackup) add(e tarEntry) { b.parts[0] = append(b.parts[0], e) }

func checkUnstartable(t *testing.T, directory string) {
	t.Helper()
	if _, err := os.Lstat(filepath.Join(directory, "global/pg_control")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("pg_control is there after a restore that failed: %v", err)
	}
}

// TestRunRefusesObjects is fault 52: objects that aren't those of the record.
func TestRunRefusesObjects(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(b *repo.Backup)
	}{
		{"parts swapped", func(b *repo.Backup) { b.Parts[0], b.Parts[1] = b.Parts[1], b.Parts[0] }},
		{"key of the other part", func(b *repo.Backup) { b.Parts[0].Key = b.Parts[1].Key }},
		{"other stored digest", func(b *repo.Backup) { b.Parts[0].StoredSHA256 = b.Parts[1].StoredSHA256 }},
		{"other stored size", func(b *repo.Backup) { b.Parts[0].StoredSize++ }},
		{"other plain size", func(b *repo.Backup) { b.Parts[0].PlainSize++ }},
		{"other plain digest", func(b *repo.Backup) { b.Parts[0].PlainDigest = b.Parts[1].PlainDigest }},
		{"malformed digest", func(b *repo.Backup) { b.Parts[0].PlainDigest = "md5:00" }},
		{"manifest for a part", func(b *repo.Backup) { b.Parts[0] = b.Manifest }},
		{"other manifest", func(b *repo.Backup) { b.Manifest.StoredSHA256 = b.Parts[1].StoredSHA256 }},
		{"object that isn't there", func(b *repo.Backup) { b.Parts[1].Key += "x" }},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r, work := makeRepository(), t.TempDir()
			smallBackup().commit(t, r)
			q := request(work)
			p, err := MakePlan(context.Background(), Of(r), q)
			if err != nil {
				t.Fatal(err)
			}
			c.change(p.record)
			if _, err := Run(context.Background(), r, p, quiet); err == nil {
				t.Error("the restore succeeded")
			}
			checkUnstartable(t, q.Directory)
		})
	}
	r, work := makeRepository(), t.TempDir()
	smallBackup().commit(t, r)
	p, err := MakePlan(context.Background(), Of(r), request(work))
	if err != nil {
		t.Fatal(err)
	}
	r.Opener = &object.Opener{Repository: strings.Repeat("0", 32)}
	if _, err := Run(context.Background(), r, p, quiet); !errors.Is(err, object.ErrMismatch) {
		t.Errorf("objects of another repository: %v, want ErrMismatch", err)
	}
}

// TestRunRefusesDirectories is fault 44. Nothing is touched.
func TestRunRefusesDirectories(t *testing.T) {
	for _, c := range []struct {
		name string
		make func(t *testing.T, q *Request, work string)
		says string
	}{
		{"file in it", func(t *testing.T, q *Request, work string) { write(t, q.Directory+"/precious", "x") }, "isn't empty"},
		{"a file itself", func(t *testing.T, q *Request, work string) { write(t, q.Directory, "x") }, "isn't a directory"},
		{"a link", func(t *testing.T, q *Request, work string) {
			if err := errors.Join(os.Mkdir(work+"/real", 0o700), os.Symlink(work+"/real", q.Directory)); err != nil {
				t.Fatal(err)
			}
		}, "isn't a directory"},
		{"parent missing", func(t *testing.T, q *Request, work string) { q.Directory = work + "/no/data" }, "make it first"},
		{"running server", func(t *testing.T, q *Request, work string) {
			// This process works elsewhere, so its id alone isn't a server.
			if err := os.Mkdir(q.Directory, 0o700); err != nil {
				t.Fatal(err)
			}
			t.Chdir(q.Directory)
			write(t, q.Directory+"/postmaster.pid", strconv.Itoa(os.Getpid())+"\n")
		}, "runs in"},
		{"tablespace not empty", func(t *testing.T, q *Request, work string) { write(t, work+"/fast/precious", "x") }, "tablespace 16400"},
		{"WAL directory not empty", func(t *testing.T, q *Request, work string) {
			q.WALDirectory = work + "/wal"
			write(t, work+"/wal/precious", "x")
		}, "WAL directory"},
		{"tablespace in the data directory by a link", func(t *testing.T, q *Request, work string) {
			if err := errors.Join(os.Mkdir(work+"/other", 0o700), os.Symlink(work, work+"/link")); err != nil {
				t.Fatal(err)
			}
			for from := range q.Tablespaces {
				q.Tablespaces[from] = work + "/link/" + filepath.Base(q.Directory)
			}
		}, "can't be one directory"},
		{"state directory of something else", func(t *testing.T, q *Request, work string) { write(t, q.Directory+".walship/precious", "x") }, "isn't walship's"},
		{"state directory that others can write to", func(t *testing.T, q *Request, work string) {
			write(t, q.Directory+".walship/restore.json", `{"format": 1, "places": ["`+q.Directory+`"]}`)
			write(t, q.Directory+"/precious", "x")
			if err := os.Chmod(q.Directory+".walship", 0o777); err != nil {
				t.Fatal(err)
			}
		}, "this user's alone"},
	} {
		t.Run(c.name, func(t *testing.T) {
			r, work := makeRepository(), t.TempDir()
			smallBackup().commit(t, r)
			q := request(work)
			c.make(t, &q, work)
			before := paths(t, work)
			_, err := restoreInto(t, r, q)
			var refused *RefusedError
			if !errors.As(err, &refused) || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("Run: %v; want a refusal that says %q", err, c.says)
			}
			if after := paths(t, work); after != before {
				t.Errorf("there was\n%s\nand now is\n%s", before, after)
			}
		})
	}
}

// TestRunKeepsStartedCluster refuses what looks like leftovers but has a
// pg_control: it may have been started since.
func TestRunKeepsStartedCluster(t *testing.T) {
	r, work := makeRepository(), t.TempDir()
	smallBackup().commit(t, r)
	q := request(work)
	if _, err := restoreInto(t, r, q); err != nil {
		t.Fatal(err)
	}
	// As after a kill between the rename of pg_control and the last marker.
	marker := StateDirectory(q.Directory) + "/restore.json"
	text, err := os.ReadFile(marker)
	if err != nil {
		t.Fatal(err)
	}
	write(t, marker, strings.Replace(string(text), `"completed": true`, `"completed": false`, 1))
	var refused *RefusedError
	if _, err := restoreInto(t, r, q); !errors.As(err, &refused) || !strings.Contains(err.Error(), "whole cluster") {
		t.Errorf("Run: %v; want a refusal", err)
	}
}

// TestRunKeepsOthersTablespace is fault 44: since a restore was interrupted, its
// tablespace's directory has been emptied and given to another cluster.
func TestRunKeepsOthersTablespace(t *testing.T) {
	r, work := makeRepository(), t.TempDir()
	smallBackup().commit(t, r)
	q := request(work)
	write(t, q.Directory+"/leftover", "x")
	write(t, work+"/fast/PG_15_202209061/5/16401", "live")
	write(t, StateDirectory(q.Directory)+"/restore.json",
		`{"format": 1, "backup": "20261120T090000Z", "places": ["`+q.Directory+`", "`+work+`/fast"]}`)
	if err := os.Chmod(StateDirectory(q.Directory), 0o700); err != nil {
		t.Fatal(err)
	}
	before := paths(t, work)
	var refused *RefusedError
	if _, err := restoreInto(t, r, q); !errors.As(err, &refused) || !strings.Contains(err.Error(), "tablespace 16400 "+work+"/fast isn't empty") || !strings.Contains(err.Error(), "--tablespace-map") || strings.Contains(err.Error(), "move it away") {
		t.Errorf("Run: %v; want a refusal that names the tablespace", err)
	}
	if after := paths(t, work); after != before {
		t.Errorf("there was\n%s\nand now is\n%s", before, after)
	}
	write(t, work+"/fast/"+unfinishedName, "")
	if _, err := restoreInto(t, r, q); err != nil {
		t.Errorf("Run over its own leftovers: %v", err)
	}
	if got := paths(t, work+"/fast"); got != ".\nPG_15_202209061\nPG_15_202209061/5\nPG_15_202209061/5/16401" {
		t.Errorf("the tablespace has\n%s", got)
	}
}

// TestRunCreatedTablespace is fault 44: recovery would make a tablespace where
// the original has it.
func TestRunCreatedTablespace(t *testing.T) {
	r, work := makeRepository(), t.TempDir()
	smallBackup().commit(t, r)
	run := func() error {
		p, err := MakePlan(context.Background(), Of(r), request(work))
		if err != nil {
			t.Fatal(err)
		}
		p.created = []string{work + "/created"}
		_, err = Run(context.Background(), r, p, quiet)
		return err
	}
	write(t, work+"/created/PG_15_202209061/5/16500", "live")
	before := paths(t, work)
	var refused *RefusedError
	if err := run(); !errors.As(err, &refused) || !strings.Contains(err.Error(), "makes a tablespace in "+work+"/created") {
		t.Errorf("Run: %v; want a refusal that names the directory", err)
	}
	if after := paths(t, work); after != before {
		t.Errorf("there was\n%s\nand now is\n%s", before, after)
	}
	if err := os.RemoveAll(work + "/created/PG_15_202209061"); err != nil {
		t.Fatal(err)
	}
	if err := run(); err != nil {
		t.Errorf("with an empty directory: %v", err)
	}
}

// TestRunCancelled is fault 2, a restore that stops in the middle.
func TestRunCancelled(t *testing.T) {
	r, work := makeRepository(), t.TempDir()
	smallBackup().commit(t, r)
	q := request(work)
	p, err := MakePlan(context.Background(), Of(r), q)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := Run(ctx, r, p, quiet); !errors.Is(err, context.Canceled) {
		t.Errorf("Run: %v; want cancelled", err)
	}
	checkUnstartable(t, q.Directory)
	if _, err := restoreInto(t, r, q); err != nil {
		t.Errorf("restoring again: %v", err)
	}
}

func TestRunRefusesProblems(t *testing.T) {
	r, work := makeRepository(), t.TempDir()
	b := smallBackup()
	b.record.StopLSN = at(3, 0x100)
	b.commit(t, r)
	missing := wal.SegmentName(1, 3, testSegment)
	if err := r.Store.Delete(context.Background(), r.FileKey(testSystem, missing)); err != nil {
		t.Fatal(err)
	}
	q := request(work)
	var refused *RefusedError
	if _, err := restoreInto(t, r, q); !errors.As(err, &refused) || !strings.Contains(err.Error(), missing.String()) {
		t.Errorf("Run: %v; want a refusal that names the missing segment", err)
	}
	if got := paths(t, work); got != "." {
		t.Errorf("files were touched: %s", got)
	}
}

// TestCheckSpace is fault 41.
func TestCheckSpace(t *testing.T) {
	p := &Plan{Directory: t.TempDir(), DataSize: 1 << 60}
	var refused *RefusedError
	if err := checkSpace(p); !errors.As(err, &refused) {
		t.Errorf("an exbibyte: %v, want a refusal", err)
	}
	p.DataSize = 1
	if err := checkSpace(p); err != nil {
		t.Errorf("a byte: %v", err)
	}
}

var quiet = Options{Log: discard}
