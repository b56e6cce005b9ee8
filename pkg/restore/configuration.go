package restore

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"regexp"
	"strconv"
	"strings"
	"sync"

	"github.com/walship/walship/pkg/durable"
	"github.com/walship/walship/pkg/object"
	"github.com/walship/walship/pkg/pgdata"
	"github.com/walship/walship/pkg/repo"
)

// configuration extracts the configuration files from outside the data
// directory into a directory of the state directory.
func (d *destination) configuration(ctx context.Context, r *repo.Repository, o repo.Object, want object.Header) error {
	return unpack(ctx, r, o, want, d.configurationEntry)
}

func (d *destination) configurationEntry(entry *tar.Header, content io.Reader) error {
	name := strings.TrimSuffix(entry.Name, "/")
	if !plainPath(name) {
		return fmt.Errorf("the path %q isn't one of a configuration file", entry.Name)
	}
	below := path.Join(configurationName, name)
	if entry.Typeflag == tar.TypeDir {
		return d.state.MkdirAll(below, 0o700)
	}
	if entry.Typeflag != tar.TypeReg {
		return fmt.Errorf("%q is neither a file nor a directory", entry.Name)
	}
	if err := d.state.MkdirAll(path.Dir(below), 0o700); err != nil {
		return err
	}
	data, err := io.ReadAll(io.LimitReader(content, maxConfiguration))
	if err != nil {
		return err
	}
	if int64(len(data)) != entry.Size {
		return fmt.Errorf("configuration file %q has %d bytes, more than the %d that it may have", name, entry.Size, maxConfiguration)
	}
	if err := durable.WriteFile(d.state, below, data, 0o600); err != nil {
		return err
	}
	// PostgreSQL doesn't start when a folder that is included is missing, and
	// an empty one has no files in the backup.
	for _, match := range includedFolder().FindAllSubmatch(data, -1) {
		if folder := path.Join(path.Dir(name), string(match[1])); !path.IsAbs(string(match[1])) && plainPath(folder) {
			if err := d.state.MkdirAll(path.Join(configurationName, folder), 0o700); err != nil {
				return err
			}
		}
	}
	return nil
}

var includedFolder = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`(?mi)^[ \t]*include_dir[ \t]*=?[ \t]*'([^'\n]+)'`)
})

// configured returns the greatest value that a restored configuration file
// gives each of the settings that hot standby depends on, the last of several
// in one file. It reads them all, whether they are included or not: a value
// that is too great does no harm.
func (d *destination) configured(ctx context.Context) (map[string]int, error) {
	greatest := map[string]int{}
	type configurationFile struct {
		root *os.Root
		name string
	}
	files := []configurationFile{{d.data, pgdata.ConfFileName}, {d.data, pgdata.AutoConfFileName}}
	err := walk(ctx, d.state, configurationName, func(name string, entry fs.DirEntry) error {
		if entry.Type().IsRegular() && path.Ext(name) == ".conf" {
			files = append(files, configurationFile{d.state, name})
		}
		return nil
	})
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	for _, f := range files {
		data, err := readFile(f.root, f.name)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, err
		}
		for name, n := range hotStandbySettings(data) {
			greatest[name] = max(greatest[name], n)
		}
	}
	return greatest, nil
}

// hotStandbySettings returns what a configuration file sets of them.
func hotStandbySettings(data []byte) map[string]int {
	set := map[string]int{}
	for _, match := range hotStandbySetting().FindAllSubmatch(data, -1) {
		if n, err := strconv.Atoi(string(match[2])); err == nil {
			set[strings.ToLower(string(match[1]))] = n
		}
	}
	return set
}

// maxConfiguration bounds what is read of one configuration file.
const maxConfiguration = 16 << 20

var hotStandbySetting = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`(?mi)^[ \t]*(max_connections|max_worker_processes|max_wal_senders|max_prepared_transactions|max_locks_per_transaction)[ \t]*=?[ \t]*'?([0-9]{1,9})\b`)
})

// raise lifts the settings that hot standby depends on to what the backup's
// own configuration says, which may be more than pg_control knew: a server
// that was started with it later, within the WAL to be replayed, demands it.
func raise(set []Setting, greatest map[string]int) []Setting {
	raised := make([]Setting, len(set))
	for i, s := range set {
		raised[i] = s
		if have, ok := greatest[s.Name]; ok {
			if n, err := strconv.Atoi(s.Value); err == nil && have > n {
				raised[i].Value = strconv.Itoa(have)
			}
		}
	}
	return raised
}
