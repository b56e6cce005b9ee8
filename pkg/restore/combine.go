package restore

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"sync"

	"github.com/walship/walship/pkg/pgdata"
	"github.com/walship/walship/pkg/repo"
)

// combiner puts a cluster together from an incremental backup and those that it
// is based on. They are read from the newest to the oldest: each block is
// written once, from the newest backup that has it, and a backup's blocks that
// a newer one has too are passed over.
type combiner struct {
	repository *repo.Repository
	dst        *destination
	chain      []*repo.Backup // the full one first
	algorithm  pgdata.ChecksumAlgorithm
	manifest   *manifest            // of the newest backup
	files      map[string]*combined // that the newest has incrementally, by their paths

	label []byte // of the restored directory
}

// newCombiner checks the whole chain: each file that a backup has only the
// changed blocks of must be in the one before, whole or incrementally.
func newCombiner(ctx context.Context, r *repo.Repository, chain []*repo.Backup, d *destination) (*combiner, error) {
	newest := chain[len(chain)-1]
	c := &combiner{repository: r, dst: d, chain: chain, files: make(map[string]*combined)}
	var err error
	if c.algorithm, err = pgdata.ParseChecksumAlgorithm(newest.ManifestChecksums); err != nil {
		return nil, fmt.Errorf("read record of backup %s: %w", newest.ID, err)
	}
	c.manifest = &manifest{files: make(map[string]*manifestFile)}
	if err := c.readManifest(ctx, newest, c.addFile); err != nil {
		return nil, err
	}
	c.manifest.left = len(c.manifest.files)
	for i := len(chain) - 2; i >= 0; i-- {
		if err := c.findPieces(ctx, i); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// addFile takes in a file of the newest backup's manifest.
func (c *combiner) addFile(f pgdata.ManifestFile) error {
	c.manifest.files[f.Path] = &manifestFile{size: f.Size, algorithm: f.Algorithm, checksum: bytes.Clone(f.Checksum)}
	name, incremental := pgdata.CutIncremental(f.Path)
	if incremental {
		c.files[name] = &combined{name: name, base: -1, pieceOf: len(c.chain) - 1}
	}
	return nil
}

// findPieces notes which files that are still to be found backup i has whole,
// and fails if it has nothing of one.
func (c *combiner) findPieces(ctx context.Context, i int) error {
	open := 0
	for _, f := range c.files {
		if f.base < 0 {
			open++
		}
	}
	err := c.readManifest(ctx, c.chain[i], func(entry pgdata.ManifestFile) error {
		name, incremental := c.fileOf(i, entry.Path)
		f := c.files[name]
		if f == nil || f.base >= 0 && f.pieceOf != i {
			return nil
		}
		if f.pieceOf == i {
			return fmt.Errorf("it has file %q both whole and incrementally", name)
		}
		f.pieceOf = i
		open--
		if !incremental {
			f.base = i
		}
		return nil
	})
	if err != nil || open == 0 {
		return err
	}
	for name, f := range c.files {
		if f.base < 0 && f.pieceOf != i {
			return fmt.Errorf("backup %s has blocks of file %q, of which backup %s has nothing", c.chain[i+1].ID, name, c.chain[i].ID)
		}
	}
	return nil
}

// fileOf says which file a path in backup i is of, and whether it has only
// changed blocks of it. A full backup's files are what they are called: a server
// sends whatever lies in its data directory.
func (c *combiner) fileOf(i int, path string) (name string, incremental bool) {
	if c.chain[i].Parent == nil {
		return path, false
	}
	if name, incremental = pgdata.CutIncremental(path); incremental {
		return name, true
	}
	return path, false
}

// readManifest reads a backup's manifest, to its end and checked.
func (c *combiner) readManifest(ctx context.Context, b *repo.Backup, each func(pgdata.ManifestFile) error) error {
	src, err := openObject(ctx, c.repository, b.Manifest, repo.ManifestHeader(b.SystemID, b.ID))
	if err != nil {
		return err
	}
	defer src.close()
	if _, err := eachFile(src, b.SystemID, each); err != nil {
		return fmt.Errorf("read manifest of backup %s: %w", b.ID, err)
	}
	return src.finish()
}

// take takes in a file of the newest backup if it isn't to be written as it is:
// the label, and files that the backup has incrementally.
func (c *combiner) take(name string, content io.Reader, expected *manifestFile, perm fs.FileMode) (took bool, err error) {
	if name == pgdata.BackupLabelFileName {
		return true, c.takeLabel(content, expected)
	}
	of, incremental := pgdata.CutIncremental(name)
	f := c.files[of]
	if !incremental || f == nil {
		return false, nil
	}
	root, below, err := c.dst.locate(of)
	if err != nil {
		return true, err
	}
	if err := root.MkdirAll(path.Dir(below), 0o700); err != nil {
		return true, fmt.Errorf("make directory of %q: %w", of, err)
	}
	file, err := root.OpenFile(below, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return true, fmt.Errorf("create file %q: %w", of, err)
	}
	return true, errors.Join(chmod(file, perm), f.begin(file, content, name, expected), file.Close())
}

// takeLabel writes the label of the directory that is put together: no longer
// that of an incremental backup.
func (c *combiner) takeLabel(content io.Reader, expected *manifestFile) error {
	var data bytes.Buffer
	if err := copyFile(&data, content, pgdata.BackupLabelFileName, expected); err != nil {
		return err
	}
	label, err := pgdata.ParseBackupLabel(data.Bytes())
	if err != nil {
		return err
	}
	parent := c.chain[len(c.chain)-2]
	if !label.Incremental || label.ParentStart != parent.StartLSN || label.ParentTimeline != parent.Timeline {
		return fmt.Errorf("its backup_label is based on the backup from %s on timeline %d, its record says %s on timeline %d",
			label.ParentStart, uint32(label.ParentTimeline), parent.StartLSN, uint32(parent.Timeline))
	}
	c.label = pgdata.CutIncrementalLabel(data.Bytes())
	file, err := c.dst.data.OpenFile(pgdata.BackupLabelFileName, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("create %s: %w", pgdata.BackupLabelFileName, err)
	}
	_, err = file.Write(c.label)
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("write %s: %w", pgdata.BackupLabelFileName, err)
	}
	return nil
}

// combine adds what the older backups have, and writes the manifest of the
// result. The newest backup has been extracted.
func (c *combiner) combine(ctx context.Context, o Options) error {
	for i := len(c.chain) - 2; i >= 0; i-- {
		if err := c.addOlder(ctx, i, o); err != nil {
			return err
		}
	}
	return c.writeManifest(ctx)
}

// piece is what an older backup has of a file.
type piece struct {
	file        *combined
	incremental bool
	expected    manifestFile
}

// addOlder adds what is still wanted of backup i.
func (c *combiner) addOlder(ctx context.Context, i int, o Options) error {
	b := c.chain[i]
	pieces, err := c.pieces(ctx, i)
	if err != nil || len(pieces) == 0 {
		return err
	}
	var mu sync.Mutex
	err = extract(ctx, c.repository, b, o, func(entry *tar.Header, content io.Reader) error {
		p := pieces[entry.Name]
		if p == nil {
			return nil
		}
		mu.Lock()
		twice := p.expected.claimed
		p.expected.claimed = true
		mu.Unlock()
		switch {
		case twice:
			return fmt.Errorf("file %q comes twice", entry.Name)
		case entry.Typeflag != tar.TypeReg || entry.Size != p.expected.size:
			return fmt.Errorf("file %q has %d bytes, its manifest says %d", entry.Name, entry.Size, p.expected.size)
		}
		return c.addPiece(entry.Name, p, content)
	})
	if err != nil {
		return err
	}
	for name, p := range pieces {
		if !p.expected.claimed {
			return fmt.Errorf("file %q of the manifest of backup %s isn't in its parts", name, b.ID)
		}
	}
	return nil
}

// pieces lists what is wanted of backup i, by the names that it has there.
func (c *combiner) pieces(ctx context.Context, i int) (map[string]*piece, error) {
	pieces := make(map[string]*piece)
	err := c.readManifest(ctx, c.chain[i], func(entry pgdata.ManifestFile) error {
		name, incremental := c.fileOf(i, entry.Path)
		if f := c.files[name]; f != nil && i >= f.base && (i == f.base) == !incremental {
			pieces[entry.Path] = &piece{f, incremental, manifestFile{size: entry.Size, algorithm: entry.Algorithm, checksum: bytes.Clone(entry.Checksum)}}
		}
		return nil
	})
	return pieces, err
}

// addPiece adds what an older backup has of a file.
func (c *combiner) addPiece(name string, p *piece, content io.Reader) error {
	root, below, err := c.dst.locate(p.file.name)
	if err != nil {
		return err
	}
	file, err := root.OpenFile(below, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("open file %q: %w", p.file.name, err)
	}
	if p.incremental {
		err = p.file.fill(file, content, name, &p.expected)
	} else {
		err = p.file.finish(file, content, name, &p.expected, c.algorithm)
	}
	return errors.Join(err, file.Close())
}

// writeManifest writes the manifest of what was put together: the newest
// backup's, with the files as they are now.
func (c *combiner) writeManifest(ctx context.Context) error {
	newest := c.chain[len(c.chain)-1]
	file, err := c.dst.data.OpenFile(pgdata.BackupManifestFileName, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("create %s: %w", pgdata.BackupManifestFileName, err)
	}
	src, err := openObject(ctx, c.repository, newest.Manifest, repo.ManifestHeader(newest.SystemID, newest.ID))
	if err != nil {
		return errors.Join(err, file.Close())
	}
	defer src.close()
	w, err := pgdata.NewManifestWriter(file, pgdata.ManifestVersion(newest.ServerVersion/10000), newest.SystemID)
	if err != nil {
		return errors.Join(err, file.Close())
	}
	ranges, err := eachFile(src, newest.SystemID, func(f pgdata.ManifestFile) error { return w.Add(c.result(f)) })
	if err == nil {
		err = src.finish()
	}
	if err == nil {
		err = w.Close(ranges)
	}
	if err := errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("write %s: %w", pgdata.BackupManifestFileName, err)
	}
	return nil
}

// result is what the new manifest says of a file of the newest backup's.
func (c *combiner) result(entry pgdata.ManifestFile) pgdata.ManifestFile {
	if entry.Path == pgdata.BackupLabelFileName {
		entry.Size, entry.Algorithm, entry.Checksum = int64(len(c.label)), c.algorithm, nil
		if h := c.algorithm.New(); h != nil {
			h.Write(c.label)
			entry.Checksum = h.Sum(nil)
		}
		return entry
	}
	name, incremental := pgdata.CutIncremental(entry.Path)
	if f := c.files[name]; incremental && f != nil {
		entry.Path, entry.Size, entry.Algorithm, entry.Checksum = name, f.size(), c.algorithm, f.checksum
	}
	return entry
}
