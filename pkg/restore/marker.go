package restore

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"github.com/walship/walship/pkg/durable"
)

// marker is what restore.json says: which directories a restore fills, and
// whether it has come to its end.
type marker struct {
	Format    int      `json:"format"`
	SystemID  uint64   `json:"system_identifier,string"`
	Backup    string   `json:"backup"`
	Places    []string `json:"places"` // absolute; the data directory first
	Completed bool     `json:"completed"`
}

const maxMarker = 1 << 20

// readMarker reads the marker of an earlier restore into a directory; nil
// when there was none.
func readMarker(directory string) (*marker, error) {
	root, err := os.OpenRoot(StateDirectory(directory))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open state directory: %w", err)
	}
	defer root.Close()
	info, err := root.Stat(".")
	if err != nil {
		return nil, fmt.Errorf("look at state directory: %w", err)
	}
	// What the marker names may be emptied, so nobody else may have written it.
	if stat, ok := info.Sys().(*syscall.Stat_t); info.Mode()&0o022 != 0 || ok && int(stat.Uid) != os.Geteuid() {
		return nil, refusef("%s isn't this user's alone: move it away, or restore elsewhere", StateDirectory(directory))
	}
	names, err := readNames(root)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", StateDirectory(directory), err)
	}
	// A restore that was killed before it wrote its marker had written
	// nothing else.
	if !slices.ContainsFunc(names, func(name string) bool { return !durable.IsTemporary(name) }) {
		return nil, nil
	}
	file, err := root.Open(markerName)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, refusef("%s isn't walship's: it has files, but no %s; move it away, or restore elsewhere", StateDirectory(directory), markerName)
	}
	if err != nil {
		return nil, fmt.Errorf("open marker of an earlier restore: %w", err)
	}
	defer file.Close()
	data, err := io.ReadAll(io.LimitReader(file, maxMarker))
	if err != nil {
		return nil, fmt.Errorf("read marker of an earlier restore: %w", err)
	}
	var m marker
	if err := json.Unmarshal(data, &m); err != nil || m.Format != 1 {
		return nil, refusef("%s can't be understood, it may be another version's: move %s away", markerName, StateDirectory(directory))
	}
	return &m, nil
}

// openState makes the state directory, and takes it for this process alone.
// What an earlier restore left in it goes, but for what the finished parts of
// the same backup had.
func (d *destination) openState(directory, backup string) error {
	parent, err := os.OpenRoot(filepath.Dir(directory))
	if err != nil {
		return fmt.Errorf("make state directory: %w", err)
	}
	defer parent.Close()
	name := filepath.Base(StateDirectory(directory))
	if err := durable.MkdirAll(parent, name, 0o700); err != nil {
		return fmt.Errorf("make state directory %s: %w", StateDirectory(directory), err)
	}
	if d.state, err = parent.OpenRoot(name); err != nil {
		return fmt.Errorf("open state directory: %w", err)
	}
	if d.lock, err = d.state.Open("."); err != nil {
		return fmt.Errorf("lock state directory: %w", err)
	}
	if err := syscall.Flock(int(d.lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		return refusef("another walship restores into %s (%s can't be locked: %v): wait for it, or stop it", directory, StateDirectory(directory), err)
	}
	if err := d.state.Chmod(".", 0o700); err != nil {
		return fmt.Errorf("protect state directory: %w", err)
	}
	for _, name := range []string{settingsName, configurationName} {
		if err := d.state.RemoveAll(name); err != nil {
			return fmt.Errorf("clear state directory: %w", err)
		}
	}
	if err := d.writeMarker(); err != nil {
		return err
	}
	if d.journal, err = openJournal(d.state, backup); err != nil {
		return fmt.Errorf("clear state directory: %w", err)
	}
	return nil
}

func (d *destination) writeMarker() error {
	data, err := json.MarshalIndent(d.marker, "", "  ")
	if err != nil {
		return fmt.Errorf("write marker of the restore: %w", err)
	}
	if err := durable.WriteFile(d.state, markerName, append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("write marker of the restore: %w", err)
	}
	return nil
}

// writeState puts a private file into the state directory.
func (d *destination) writeState(name string, data []byte) error {
	if err := durable.WriteFile(d.state, name, data, 0o600); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	return nil
}
