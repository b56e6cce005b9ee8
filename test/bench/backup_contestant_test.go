//go:build bench

package bench

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
)

// saver is one way to take base backups and to restore them.
type saver struct {
	name        string
	peer, floor bool
	prepare     func(t *testing.T, s setting, source *sample) saving
}

// saving is how one repository is used. In restore, TARGET stands for a
// directory that isn't there yet: the data directory comes to TARGET/data, and
// each tablespace to TARGET and its name.
type saving struct {
	archive string // archive_command; "" where WAL isn't archived
	push    string // a shell's command, in the directory of the setting
	restore string // "" where nothing can be restored
	// incremental is like push, with what changed since; "" where that isn't measured.
	incremental string
}

// savers returns those of a place, in the order of the tables.
func savers(p *place, walship string) []saver {
	if p.server == nil {
		return []saver{
			{name: "cp -a", floor: true, prepare: copyTree},
			{name: "tar, zstd -1", floor: true, prepare: tarFile},
			{name: "pg_basebackup", floor: true, prepare: baseBackup},
			{name: "walship", prepare: walshipBackup(walship, "default", "", true)},
			{name: "walship, not encrypted", prepare: walshipBackup(walship, "default", "", false)},
			{name: "walship fastest", prepare: walshipBackup(walship, "fastest", "", true)},
			{name: "pgBackRest", peer: true, prepare: pgBackRestBackup(true)},
			{name: "pgBackRest, not encrypted", peer: true, prepare: pgBackRestBackup(false)},
		}
	}
	return []saver{
		{name: "walship", prepare: walshipBackup(walship, "default", "https", true)},
		{name: "walship fastest", prepare: walshipBackup(walship, "fastest", "https", true)},
		{name: "pgBackRest", peer: true, prepare: pgBackRestBackup(true)},
	}
}

// directories lists the data directory and the tablespaces as "name path".
func (s *sample) directories() map[string]string {
	all := maps.Clone(s.tablespaces)
	all["data"] = s.cluster.DataDir
	return all
}

// forEach makes a shell's command of one for each directory.
func forEach(source *sample, command func(name, path string) string) string {
	var lines []string
	all := source.directories()
	for _, name := range slices.Sorted(maps.Keys(all)) {
		lines = append(lines, command(name, all[name]))
	}
	return strings.Join(lines, " && ")
}

func copyTree(t *testing.T, s setting, source *sample) saving {
	dir := s.repositoryDir(t)
	return saving{
		push:    forEach(source, func(name, path string) string { return "cp -a " + path + " " + dir + "/" + name }),
		restore: "mkdir TARGET && " + forEach(source, func(name, _ string) string { return "cp -a " + dir + "/" + name + " TARGET/" + name }),
	}
}

func tarFile(t *testing.T, s setting, source *sample) saving {
	dir := s.repositoryDir(t)
	return saving{
		push: forEach(source, func(name, path string) string {
			return "tar -C " + path + " --exclude=./pg_wal/0* -cf - . | zstd -1 -q -o " + dir + "/" + name + ".tar.zst"
		}),
		restore: "mkdir TARGET && " + forEach(source, func(name, _ string) string {
			return "mkdir TARGET/" + name + " && zstd -d -q -c " + dir + "/" + name + ".tar.zst | tar -C TARGET/" + name + " -xf -"
		}),
	}
}

func baseBackup(t *testing.T, s setting, source *sample) saving {
	dir := s.repositoryDir(t)
	line := "pg_basebackup --checkpoint=fast --wal-method=none --no-sync --pgdata=" + dir + "/data"
	for name, path := range source.tablespaces {
		line += " --tablespace-mapping=" + path + "=" + dir + "/" + name
	}
	return saving{archive: "true", push: line} // it waits until its WAL is archived
}

func walshipBackup(program, level, scheme string, encrypted bool) func(*testing.T, setting, *sample) saving {
	return func(t *testing.T, s setting, source *sample) saving {
		do := walshipIn(program, level, scheme, encrypted)(t, s)
		push := strings.TrimSuffix(do.push, "wal push %p") + "backup push"
		restore := strings.TrimSuffix(do.fetch, "wal fetch %f %p") + "restore run --immediate --target-directory TARGET/data"
		for name, path := range source.tablespaces {
			restore += " --tablespace-map " + path + "=TARGET/" + name
		}
		all := saving{archive: do.push, push: push, restore: "mkdir TARGET && " + restore}
		if encrypted && level == "default" {
			all.incremental = push + " --incremental"
		}
		return all
	}
}

func pgBackRestBackup(encrypted bool) func(*testing.T, setting, *sample) saving {
	return func(t *testing.T, s setting, source *sample) saving {
		s.socket = source.cluster.SocketDir
		do := pgBackRestIn(3, false, encrypted)(t, s)
		line := strings.TrimSuffix(do.push, "archive-push %p")
		restore := line + "--pg1-path=TARGET/data --type=immediate restore"
		for name := range source.tablespaces {
			restore += fmt.Sprintf(" --tablespace-map=%s=TARGET/%s", name, name)
		}
		push := line + "--start-fast --repo1-bundle "
		all := saving{archive: do.push, push: push + "--type=full backup", restore: "mkdir -m 700 -p TARGET/data " + mkdirs(source) + " && " + restore}
		if encrypted {
			all.incremental = push + "--type=incr backup"
		}
		return all
	}
}

func mkdirs(source *sample) string {
	var names []string
	for name := range source.tablespaces {
		names = append(names, "TARGET/"+name)
	}
	return strings.Join(names, " ")
}

// storedBackup adds up what a repository holds of backups, without WAL.
func (p *place) storedBackup(t *testing.T, prefix string) (bytes int64) {
	t.Helper()
	p.walk(t, prefix, func(key string, size int64) {
		if !strings.Contains(key, "/wal/") && !strings.Contains(key, "/archive/") {
			bytes += size
		}
	})
	return bytes
}
