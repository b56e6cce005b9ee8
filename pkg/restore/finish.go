package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/walship/walship/pkg/durable"
	"github.com/walship/walship/pkg/pgdata"
)

// arrange makes what a backup has no files for: pg_wal, empty, and the links
// to other places.
func (d *destination) arrange(p *Plan) error {
	pgwal := d.data
	if d.wal != nil {
		if err := d.data.Symlink(p.WALDirectory, pgdata.WALDir); err != nil {
			return fmt.Errorf("link %s: %w", pgdata.WALDir, err)
		}
		pgwal = d.wal
	}
	for _, name := range pgdata.WALDirs(d.major) {
		if d.wal != nil {
			name = strings.TrimPrefix(strings.TrimPrefix(name, pgdata.WALDir), "/")
		}
		if name == "" {
			continue
		}
		if err := pgwal.MkdirAll(name, 0o700); err != nil {
			return fmt.Errorf("make directory %s: %w", name, err)
		}
	}
	if err := d.data.MkdirAll(pgdata.TablespaceDir, 0o700); err != nil {
		return fmt.Errorf("make directory %s: %w", pgdata.TablespaceDir, err)
	}
	for _, t := range p.Tablespaces {
		if t.InPlace {
			continue
		}
		link := pgdata.TablespaceDir + "/" + strconv.FormatUint(uint64(t.OID), 10)
		if err := d.data.Symlink(t.RestoreTo, link); err != nil {
			return fmt.Errorf("link tablespace %d: %w", t.OID, err)
		}
	}
	return nil
}

// configure writes the settings and the signal file of the recovery, and the
// restored cluster's own settings of walship.
func (d *destination) configure(p *Plan, settings []byte) error {
	if settings != nil {
		if err := d.writeState(settingsName, settings); err != nil {
			return err
		}
	}
	greatest, err := d.configured()
	if err != nil {
		return fmt.Errorf("read the backup's configuration: %w", err)
	}
	old, err := readFile(d.data, pgdata.AutoConfFileName)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("read %s: %w", pgdata.AutoConfFileName, err)
	}
	if len(old) == maxConfiguration {
		return fmt.Errorf("read %s: it has %d bytes or more", pgdata.AutoConfFileName, maxConfiguration)
	}
	conf := autoConf(old, raise(p.Settings, greatest))
	if err := durable.WriteFile(d.data, pgdata.AutoConfFileName, conf, 0o600); err != nil {
		return fmt.Errorf("write %s: %w", pgdata.AutoConfFileName, err)
	}
	// A standby.signal would win over the recovery.signal.
	if err := d.data.Remove(pgdata.StandbySignalFileName); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove %s: %w", pgdata.StandbySignalFileName, err)
	}
	if err := durable.WriteFile(d.data, p.SignalFile, nil, 0o600); err != nil {
		return fmt.Errorf("write %s: %w", p.SignalFile, err)
	}
	return nil
}

// sync makes every file and then every directory durable, a directory after
// those in it.
func (d *destination) sync(ctx context.Context, concurrency int) error {
	for _, root := range append(d.roots(), d.state) {
		var dirs []string
		group, ctx := errgroup.WithContext(ctx)
		group.SetLimit(concurrency)
		err := fs.WalkDir(root.FS(), ".", func(name string, entry fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case ctx.Err() != nil:
				return ctx.Err()
			case entry.IsDir():
				dirs = append(dirs, name)
			case entry.Type().IsRegular():
				group.Go(func() error { return syncFile(root, name) })
			}
			return nil
		})
		if err := errors.Join(group.Wait(), err); err != nil {
			return fmt.Errorf("make %s durable: %w", root.Name(), err)
		}
		// WalkDir goes from the top to the bottom.
		for _, name := range slices.Backward(dirs) {
			if err := durable.SyncDir(root, name); err != nil {
				return fmt.Errorf("make %s durable: %w", root.Name(), err)
			}
		}
	}
	return nil
}

func syncFile(root *os.Root, name string) error {
	file, err := root.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(file.Sync(), file.Close())
}

// commit puts pg_control in place, by a rename: only now is the directory a
// cluster.
func (d *destination) commit(control []byte) error {
	if err := durable.WriteFile(d.data, pgdata.ControlFileName, control, 0o600); err != nil {
		return fmt.Errorf("put %s in place: %w", pgdata.ControlFileName, err)
	}
	d.marker.Completed = true
	return d.writeMarker()
}
