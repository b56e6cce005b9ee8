package restore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
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
		if err := d.mkdir(pgwal, name); err != nil {
			return fmt.Errorf("make directory %s: %w", name, err)
		}
	}
	if err := d.mkdir(d.data, pgdata.TablespaceDir); err != nil {
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

// mkdir makes a directory of PostgreSQL's own, unless it is there.
func (d *destination) mkdir(root *os.Root, name string) error {
	if err := root.MkdirAll(name, pgdata.DirPerm); err != nil {
		return err
	}
	return root.Chmod(name, d.dirPerm())
}

// configure writes the settings and the signal file of the recovery, and the
// restored cluster's own settings of walship.
func (d *destination) configure(ctx context.Context, p *Plan, settings []byte) error {
	if settings != nil {
		if err := d.writeState(settingsName, settings); err != nil {
			return err
		}
	}
	greatest, err := d.configured(ctx)
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
	conf := p.autoConf(old, raise(p.Settings, greatest))
	if err := durable.WriteFile(d.data, pgdata.AutoConfFileName, conf, d.filePerm()); err != nil {
		return fmt.Errorf("write %s: %w", pgdata.AutoConfFileName, err)
	}
	if err := d.removeSignals(); err != nil {
		return err
	}
	if err := durable.WriteFile(d.data, p.SignalFile, nil, d.filePerm()); err != nil {
		return fmt.Errorf("write %s: %w", p.SignalFile, err)
	}
	return nil
}

// removeSignals removes the signal files of the original, which may have been a
// standby, or in a recovery of its own. A standby.signal would win over the
// restore's recovery.signal.
func (d *destination) removeSignals() error {
	for _, name := range []string{pgdata.StandbySignalFileName, pgdata.RecoverySignalFileName} {
		if err := d.data.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove %s: %w", name, err)
		}
	}
	return nil
}

// sync makes every directory durable behind what is in it. The files that were
// restored are durable; with files the others are made so first. Those of the
// state directory always are.
func (d *destination) sync(ctx context.Context, concurrency int, files bool) error {
	for _, root := range append(d.roots(), d.state) {
		group, ctx := errgroup.WithContext(ctx)
		group.SetLimit(concurrency)
		var dirs []string // from the top to the bottom
		err := walk(ctx, root, ".", func(name string, entry fs.DirEntry) error {
			switch {
			case entry.IsDir():
				dirs = append(dirs, name)
			case files && root != d.state && entry.Type().IsRegular():
				group.Go(func() error { return syncFile(root, name) })
			}
			return nil
		})
		if err := errors.Join(group.Wait(), err); err != nil {
			return fmt.Errorf("make %s durable: %w", root.Name(), err)
		}
		for _, name := range slices.Backward(append([]string{"."}, dirs...)) {
			if err := durable.SyncDir(root, name); err != nil {
				return fmt.Errorf("make %s durable: %w", root.Name(), err)
			}
		}
	}
	return nil
}

// walk visits all that is below a directory, a directory before what is in
// it; where visit returns fs.SkipDir, not what is in it. Unlike fs.WalkDir it
// takes names that aren't UTF-8.
func walk(ctx context.Context, root *os.Root, dir string, visit func(name string, entry fs.DirEntry) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	file, err := root.Open(dir)
	if err != nil {
		return err
	}
	entries, err := file.ReadDir(-1)
	file.Close()
	if err != nil {
		return err
	}
	for _, entry := range entries {
		name := path.Join(dir, entry.Name())
		err := visit(name, entry)
		if errors.Is(err, fs.SkipDir) {
			continue
		}
		if err == nil && entry.IsDir() {
			err = walk(ctx, root, name, visit)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func syncFile(root *os.Root, name string) error {
	file, err := root.Open(name)
	if err != nil {
		return err
	}
	return unsynced{root, name, file}.sync()
}

// commit puts pg_control in place, by a rename: only now is the directory a
// cluster.
func (d *destination) commit(control []byte) error {
	if err := durable.WriteFile(d.data, pgdata.ControlFileName, control, d.filePerm()); err != nil {
		return fmt.Errorf("put %s in place: %w", pgdata.ControlFileName, err)
	}
	if err := d.release(); err != nil {
		return err
	}
	d.marker.Completed = true
	return d.writeMarker()
}
