//go:build integration

package pgdata

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/walship/walship/test/pgtest"
)

func eachMajor(t *testing.T, test func(t *testing.T, major pgtest.Major)) {
	for _, major := range pgtest.Majors() {
		t.Run(major.String(), func(t *testing.T) { test(t, major) })
	}
}

// Every field of a control file is where pg_controldata finds it: each gets a
// value of its own.
func TestControlFileAgainstPgControldata(t *testing.T) {
	eachMajor(t, func(t *testing.T, major pgtest.Major) {
		if !major.HasTool("pg_controldata") {
			return // its layout is that of another major: TestControlFileOfServer
		}
		data := controlFile(t, int(major))
		le := binary.LittleEndian
		for i, offset := range []int{
			offsetCheckpoint, offsetRedo, offsetNextXID, offsetMinRecovery, offsetBackupStart, offsetBackupEnd,
		} {
			le.PutUint64(data[offset:], uint64(i+1)<<32|uint64(0x1000+i))
		}
		for i, offset := range []int{
			offsetTimeline, offsetPrevTimeline, offsetMinRecoveryTLI, offsetMaxConnections, offsetMaxWorkers,
			offsetMaxWALSenders, offsetMaxPrepared, offsetMaxLocks, offsetRelSegSize, offsetWALBlockSize,
		} {
			le.PutUint32(data[offset:], uint32(101+i))
		}
		le.PutUint32(data[offsetState:], uint32(StateInArchiveRecovery))
		le.PutUint32(data[offsetWALLevel:], uint32(WALLevelLogical))
		le.PutUint32(data[offsetWALSegmentSize:], 64<<20)
		le.PutUint64(data[offsetTime:], 1000000000)
		le.PutUint64(data[offsetCheckpointTime:], 1100000000)
		data[offsetFullPageWrites], data[offsetBackupEndReq], data[offsetTrackCommitTime] = 0, 1, 1
		c, err := ParseControlFile(seal(data))
		if err != nil {
			t.Fatal(err)
		}

		dir := pgtest.WorkDir(t)
		pgtest.MkdirNobody(t, dir, "global")
		pgtest.WriteNobody(t, filepath.Join(dir, ControlFileName), string(data))
		said := make(map[string]string)
		for line := range strings.Lines(pgtest.MustRun(t, pgtest.Command(t.Context(), t, major, "pg_controldata", dir))) {
			key, value, _ := strings.Cut(line, ":")
			said[key] = strings.TrimSpace(value)
		}
		onOff := map[bool]string{true: "on", false: "off"}
		for key, want := range map[string]string{
			"pg_control version number":            fmt.Sprint(c.PGControlVersion),
			"Catalog version number":               fmt.Sprint(c.CatalogVersion),
			"Database system identifier":           fmt.Sprint(c.SystemID),
			"Database cluster state":               c.State.String(),
			"pg_control last modified":             c.Time.Format(time.ANSIC),
			"Latest checkpoint location":           c.Checkpoint.String(),
			"Latest checkpoint's REDO location":    c.Redo.String(),
			"Latest checkpoint's TimeLineID":       fmt.Sprint(uint32(c.Timeline)),
			"Latest checkpoint's PrevTimeLineID":   fmt.Sprint(uint32(c.PrevTimeline)),
			"Latest checkpoint's full_page_writes": onOff[c.FullPageWrites],
			"Latest checkpoint's NextXID":          fmt.Sprintf("%d:%d", c.NextXID>>32, uint32(c.NextXID)),
			"Time of latest checkpoint":            c.CheckpointTime.Format(time.ANSIC),
			"Minimum recovery ending location":     c.MinRecoveryPoint.String(),
			"Min recovery ending loc's timeline":   fmt.Sprint(uint32(c.MinRecoveryTimeline)),
			"Backup start location":                c.BackupStart.String(),
			"Backup end location":                  c.BackupEnd.String(),
			"End-of-backup record required":        map[bool]string{true: "yes", false: "no"}[c.BackupEndRequired],
			"wal_level setting":                    c.WALLevel.String(),
			"max_connections setting":              fmt.Sprint(c.MaxConnections),
			"max_worker_processes setting":         fmt.Sprint(c.MaxWorkerProcesses),
			"max_wal_senders setting":              fmt.Sprint(c.MaxWALSenders),
			"max_prepared_xacts setting":           fmt.Sprint(c.MaxPreparedXacts),
			"max_locks_per_xact setting":           fmt.Sprint(c.MaxLocksPerXact),
			"track_commit_timestamp setting":       onOff[c.TrackCommitTimestamp],
			"Database block size":                  fmt.Sprint(c.BlockSize),
			"Blocks per segment of large relation": fmt.Sprint(c.RelSegSize),
			"WAL block size":                       fmt.Sprint(c.WALBlockSize),
			"Bytes per WAL segment":                fmt.Sprint(c.WALSegmentSize),
			"Data page checksum version":           fmt.Sprint(c.DataChecksumVersion),
		} {
			if said[key] != want {
				t.Errorf("%s: pg_controldata says %q, not %q", key, said[key], want)
			}
		}
	})
}

// A running server's control file, and whether it runs, as the server says.
func TestControlFileOfServer(t *testing.T) {
	eachMajor(t, func(t *testing.T, major pgtest.Major) {
		c := pgtest.New(t, major, pgtest.SegmentSize(1), pgtest.Checksums(true), pgtest.Set("max_connections", "37"),
			pgtest.Set("max_prepared_transactions", "5"), pgtest.Set("wal_level", "logical"))
		root := openRoot(t, c.DataDir)
		checkRunning(t, root, 0)
		c.Start(t)
		checkRunning(t, root, c.PID())
		c.Exec(t, "CHECKPOINT")
		got, err := ReadControlFile(root)
		if err != nil {
			t.Fatal(err)
		}
		want := c.SQL(t, `SELECT concat_ws(' ', pg_control_version, catalog_version_no, system_identifier, checkpoint_lsn, redo_lsn,
				timeline_id, next_xid, bytes_per_wal_segment, data_page_checksum_version, database_block_size)
			FROM pg_control_system(), pg_control_checkpoint(), pg_control_init()`)
		said := fmt.Sprint(got.PGControlVersion, got.CatalogVersion, got.SystemID, " ", got.Checkpoint, " ", got.Redo, " ", uint32(got.Timeline),
			fmt.Sprintf(" %d:%d ", got.NextXID>>32, uint32(got.NextXID)), got.WALSegmentSize, got.DataChecksumVersion, got.BlockSize)
		if said != strings.TrimSpace(want) {
			t.Errorf("control file %q, server %q", said, want)
		}
		if got.Major != int(major) || got.State != StateInProduction || got.MaxConnections != 37 || got.MaxPreparedXacts != 5 || got.WALLevel != WALLevelLogical {
			t.Errorf("%+v", got)
		}
		c.Kill(t)
		checkRunning(t, root, 0)
	})
}

func checkRunning(t *testing.T, root *os.Root, want int) {
	t.Helper()
	pid, running, err := Running(root)
	if err != nil || running != (want != 0) || running && pid != want {
		t.Errorf("running %v, pid %d, error: %v; want pid %d", running, pid, err, want)
	}
}

// The files of a base backup are those that pg_basebackup takes, and its
// manifest is read, and written again, byte for byte.
func TestAgainstPgBasebackup(t *testing.T) {
	eachMajor(t, func(t *testing.T, major pgtest.Major) {
		if !major.HasTool("pg_basebackup") {
			return // the manifest's form is that of 15
		}
		c := pgtest.New(t, major, pgtest.Set("autovacuum", "off"))
		c.Start(t)
		space := pgtest.MkdirNobody(t, c.Dir, "space")
		c.Exec(t, "CREATE TABLESPACE space LOCATION '"+space+"'", "CREATE TABLE a TABLESPACE space AS SELECT 1 AS x",
			"CREATE UNLOGGED TABLE b (x text PRIMARY KEY)", "INSERT INTO b VALUES ('gone')", "CREATE UNLOGGED TABLE c (x text) TABLESPACE space",
			"INSERT INTO c VALUES ('gone')", "CHECKPOINT")
		conn := c.Conn(t, "postgres")
		if _, err := conn.Exec(t.Context(), "CREATE TEMPORARY TABLE d AS SELECT 1 AS x"); err != nil {
			t.Fatal(err)
		}
		pgtest.WriteNobody(t, filepath.Join(c.DataDir, "not text \xff\""), "odd")
		pgtest.WriteNobody(t, filepath.Join(c.DataDir, "base", "pgsql_tmp7.1"), "temporary")
		for _, algorithm := range []ChecksumAlgorithm{ChecksumNone, ChecksumCRC32C, ChecksumSHA224, ChecksumSHA256, ChecksumSHA384, ChecksumSHA512} {
			backup := filepath.Join(c.Dir, "backup."+string(algorithm))
			pgtest.MustRun(t, c.Tool(t.Context(), t, "pg_basebackup", "-D", backup, "-T", space+"="+backup+".space",
				"-c", "fast", "-X", "none", "--no-sync", "--manifest-checksums="+string(algorithm)))
			text, err := os.ReadFile(filepath.Join(backup, BackupManifestFileName))
			if err != nil {
				t.Fatal(err)
			}
			m, files, ranges, err := readManifest(bytes.NewReader(text), ManifestLimits{})
			if err != nil {
				t.Fatal(err)
			}
			if m.Version() != ManifestVersion(int(major)) {
				t.Errorf("manifest version %d", m.Version())
			}
			if again := writeManifest(t, m.Version(), m.SystemID(), files, ranges); again != string(text) {
				t.Errorf("the manifest isn't the same when it is written again")
			}
			checkFiles(t, backup, files)
			if algorithm == ChecksumNone {
				checkTaken(t, c.DataDir, files)
				checkLabel(t, backup, ranges)
			}
		}
	})
}

// checkFiles holds a manifest's files against those on disk.
func checkFiles(t *testing.T, dir string, files []ManifestFile) {
	t.Helper()
	for _, f := range files {
		content, err := os.ReadFile(filepath.Join(dir, f.Path))
		if err != nil {
			t.Fatal(err)
		}
		if int64(len(content)) != f.Size || f.Algorithm != ChecksumNone && !bytes.Equal(checksum(f.Algorithm, string(content)), f.Checksum) {
			t.Errorf("%q has other content than the manifest says", f.Path)
		}
	}
}

// checkTaken compares the files that Exclude and InitFork leave with those of
// pg_basebackup.
func checkTaken(t *testing.T, dataDir string, files []ManifestFile) {
	t.Helper()
	var taken []string
	var walk func(name string)
	walk = func(name string) {
		entries, err := os.ReadDir(filepath.Join(dataDir, name))
		if err != nil {
			t.Fatal(err)
		}
		for _, entry := range entries {
			child := filepath.Join(name, entry.Name())
			isDir := entry.IsDir() || entry.Type() == fs.ModeSymlink
			init := ClassifyPath(child).InitFork()
			if init != "" {
				if _, err := os.Stat(filepath.Join(dataDir, name, init)); err == nil {
					continue
				}
			}
			switch {
			case Exclude(child, isDir) != Included:
			case isDir:
				walk(child)
			default:
				taken = append(taken, child)
			}
		}
	}
	walk("")
	var theirs []string
	for _, f := range files {
		if f.Path != BackupLabelFileName && f.Path != TablespaceMapFileName {
			theirs = append(theirs, f.Path)
		}
	}
	slices.Sort(taken)
	slices.Sort(theirs)
	if !slices.Equal(taken, theirs) {
		t.Errorf("taken:\n%q\npg_basebackup:\n%q", taken, theirs)
	}
}

func checkLabel(t *testing.T, dir string, ranges []ManifestWALRange) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, BackupLabelFileName))
	if err != nil {
		t.Fatal(err)
	}
	label, err := ParseBackupLabel(text)
	if err != nil || len(ranges) != 1 || label.Start != ranges[0].Start || label.Timeline != ranges[0].Timeline || label.From != "primary" {
		t.Errorf("label %+v, ranges %v, error: %v", label, ranges, err)
	}
}

// A manifest that ManifestWriter wrote is one that pg_verifybackup takes, with
// every checksum right, and refuses when a file changes.
func TestManifestAgainstPgVerifybackup(t *testing.T) {
	eachMajor(t, func(t *testing.T, major pgtest.Major) {
		if !major.HasTool("pg_verifybackup") {
			return
		}
		dir := pgtest.WorkDir(t)
		pgtest.MkdirNobody(t, dir, "global")
		control := controlFile(t, int(major))
		c, err := ParseControlFile(control)
		if err != nil {
			t.Fatal(err)
		}
		contents := map[string]string{
			ControlFileName: string(control), VersionFileName: major.String() + "\n", "empty": "", "größe \" \\": "x", "not text \xff": "y",
			"tab\tline\n\x01": "z", "long": strings.Repeat("0123456789", 100_000),
		}
		algorithms := []ChecksumAlgorithm{ChecksumNone, ChecksumCRC32C, ChecksumSHA224, ChecksumSHA256, ChecksumSHA384, ChecksumSHA512}
		var files []ManifestFile
		for i, algorithm := range algorithms {
			for path, content := range contents {
				if (path == ControlFileName || path == VersionFileName) && i > 0 {
					continue
				}
				f := ManifestFile{Path: path + strings.Repeat("+", i), Size: int64(len(content)), Modified: manifestTime, Algorithm: algorithm}
				if algorithm != ChecksumNone {
					f.Checksum = checksum(algorithm, content)
				}
				pgtest.WriteNobody(t, filepath.Join(dir, f.Path), content)
				files = append(files, f)
			}
		}
		manifest := writeManifest(t, ManifestVersion(int(major)), c.SystemID, files, []ManifestWALRange{{1, 0x2000028, 0x2000100}})
		pgtest.WriteNobody(t, filepath.Join(dir, BackupManifestFileName), manifest)
		verify := func() pgtest.Result {
			return pgtest.Run(t, pgtest.Command(t.Context(), t, major, "pg_verifybackup", "-n", dir))
		}
		if r := verify(); r.Code != 0 {
			t.Fatalf("pg_verifybackup: %s%s", r.Stdout, r.Stderr)
		}
		pgtest.WriteNobody(t, filepath.Join(dir, "long+++"), strings.Repeat("0123456780", 100_000))
		if r := verify(); r.Code == 0 || !strings.Contains(r.Stderr, `"long+++"`) {
			t.Errorf("pg_verifybackup took a changed file: %s%s", r.Stdout, r.Stderr)
		}
	})
}

// What QuoteSetting writes, the server reads.
func TestQuoteSettingAgainstServer(t *testing.T) {
	eachMajor(t, func(t *testing.T, major pgtest.Major) {
		values := []string{
			"", "plain", "it's", `back\slash\`, `''\''`, "two\nlines", "tab\tand\rreturn", `"%f" %p # no comment`, "größe", `\n \000`,
		}
		c := pgtest.New(t, major)
		var set []Setting
		for i, value := range values {
			set = append(set, Setting{"walship.v" + strconv.Itoa(i), value})
		}
		old := "restore_command = 'false'\nRecovery_Target_Xid = '7'\nwork_mem = '3MB'\nwalship.v1 = 'old'\n"
		pgtest.WriteNobody(t, filepath.Join(c.DataDir, AutoConfFileName), string(EditAutoConf([]byte(old), set)))
		c.Start(t)
		for i, value := range values {
			if got := c.SQL(t, "SELECT '<' || current_setting($1) || '>'", set[i].Name); strings.TrimSuffix(got, "\n") != "<"+value+">" {
				t.Errorf("%q is read as %q", value, got)
			}
		}
		got := c.SQL(t, "SELECT current_setting('restore_command') || current_setting('recovery_target_xid') || current_setting('work_mem')")
		if strings.TrimSpace(got) != "3MB" {
			t.Errorf("settings %q", got)
		}
	})
}
