package restore

import (
	"archive/tar"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"github.com/walship/walship/pkg/object"
	"github.com/walship/walship/pkg/pgdata"
	"github.com/walship/walship/pkg/repo"
)

// reading is one object of a backup on its way in: its content, checked
// against the backup's record.
type reading struct {
	*object.Reader
	body   io.ReadCloser
	stored *counter
	want   repo.Object
}

// counter hashes and counts the bytes as they are stored.
type counter struct {
	src  io.Reader
	hash hash.Hash
	n    int64
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.src.Read(p)
	c.hash.Write(p[:n])
	c.n += int64(n)
	return n, err
}

// openObject starts to read an object that the backup's record names.
func openObject(ctx context.Context, r *repo.Repository, o repo.Object, want object.Header) (*reading, error) {
	digest, err := object.ParseDigest(o.PlainDigest)
	if err != nil {
		return nil, fmt.Errorf("read record of object %s: %w", o.Key, err)
	}
	want.PlainSize, want.Digest = o.PlainSize, digest
	body, _, err := r.Store.Get(ctx, o.Key, 0, -1)
	if err != nil {
		return nil, fmt.Errorf("get %s: %w", o.Key, err)
	}
	stored := &counter{src: body, hash: sha256.New()}
	reader, err := r.Opener.Open(stored, want)
	if err != nil {
		body.Close()
		return nil, fmt.Errorf("open %s: %w", o.Key, err)
	}
	return &reading{reader, body, stored, o}, nil
}

// finish reads what is left of the object and holds its stored bytes against
// the record.
func (r *reading) finish() error {
	if _, err := io.Copy(io.Discard, r.Reader); err != nil {
		return fmt.Errorf("read %s: %w", r.want.Key, err)
	}
	if _, err := io.Copy(io.Discard, r.stored); err != nil {
		return fmt.Errorf("read %s: %w", r.want.Key, err)
	}
	if sum := hex.EncodeToString(r.stored.hash.Sum(nil)); r.stored.n != r.want.StoredSize || sum != r.want.StoredSHA256 {
		return fmt.Errorf("read %s: %w: its stored bytes aren't those of the backup's record", r.want.Key, object.ErrCorrupt)
	}
	return nil
}

// close gives the object up. What counts was seen by finish.
func (r *reading) close() {
	r.Reader.Close()
	r.body.Close()
}

// extractor writes the files of a backup's parts to their places. Several
// goroutines may use it, each for another part.
type extractor struct {
	dst      *destination
	manifest *manifest
	combiner *combiner // nil for a full backup
	files    *fileWriter
	control  []byte // pg_control, which isn't put in place before all is done
}

// part extracts one part, and notes what it had.
func (x *extractor) part(ctx context.Context, r *repo.Repository, o repo.Object, want object.Header) error {
	var names []string
	buffer := make([]byte, copyBuffer)
	err := unpack(ctx, r, o, want, func(entry *tar.Header, content io.Reader) error {
		if entry.Name != pgdata.TablespaceMapFileName {
			names = append(names, entry.Name)
		}
		return x.entry(ctx, entry, content, buffer)
	})
	if err != nil {
		return err
	}
	if err := x.dst.journal.add(o, names); err != nil {
		return fmt.Errorf("note that %s is done: %w", o.Key, err)
	}
	return nil
}

// unpack hands the entries of a tar object to write, one after the other.
// Nothing of what that wrote counts unless unpack succeeds.
func unpack(ctx context.Context, r *repo.Repository, o repo.Object, want object.Header, write func(*tar.Header, io.Reader) error) error {
	src, err := openObject(ctx, r, o, want)
	if err != nil {
		return err
	}
	defer src.close()
	archive := tar.NewReader(src)
	for {
		if err := ctx.Err(); err != nil {
			return err
		}
		entry, err := archive.Next()
		if err == io.EOF {
			return src.finish()
		}
		if err == nil {
			err = write(entry, archive)
		}
		if err != nil {
			return fmt.Errorf("extract %s: %w", o.Key, err)
		}
	}
}

// entry writes one entry of a part: a directory or a regular file. Links, and
// whatever else a tar can hold, aren't part of a backup.
func (x *extractor) entry(ctx context.Context, entry *tar.Header, content io.Reader, buffer []byte) error {
	name := strings.TrimSuffix(entry.Name, "/")
	if !plainPath(name) {
		return fmt.Errorf("the path %q isn't one of a file in a data directory", entry.Name)
	}
	switch entry.Typeflag {
	case tar.TypeDir:
		return x.directory(name, fs.FileMode(entry.Mode).Perm())
	case tar.TypeReg:
		return x.file(ctx, name, entry, content, buffer)
	}
	return fmt.Errorf("%q is neither a file nor a directory", entry.Name)
}

// plainPath tells whether a path leads down from a root, in its one spelling.
// Unlike fs.ValidPath it takes names that aren't UTF-8, as file systems do.
func plainPath(name string) bool {
	return name != "." && filepath.IsLocal(name) && path.Clean(name) == name && !strings.ContainsRune(name, 0)
}

func (x *extractor) directory(name string, mode fs.FileMode) error {
	if name == pgdata.WALDir || strings.HasPrefix(name, pgdata.WALDir+"/") {
		return nil // the restore makes its own
	}
	root, below, err := x.dst.locate(name)
	if err != nil || below == "." {
		return err
	}
	if err := x.files.mkdir(root, below); err != nil {
		return fmt.Errorf("make directory %q: %w", name, err)
	}
	if x.dst.group {
		if err := root.Chmod(below, x.dst.dirLike(mode)); err != nil {
			return fmt.Errorf("make directory %q: %w", name, err)
		}
	}
	return nil
}

func (x *extractor) file(ctx context.Context, name string, entry *tar.Header, content io.Reader, buffer []byte) error {
	if name == pgdata.TablespaceMapFileName {
		// It would replace the links of this restore's own mapping.
		return nil
	}
	expected, err := x.manifest.claim(name, entry.Size)
	if err != nil {
		return err
	}
	perm := x.dst.fileLike(fs.FileMode(entry.Mode).Perm())
	if expected.kept {
		return x.keep(name, perm)
	}
	if x.combiner != nil {
		if took, err := x.combiner.take(name, content, expected, perm); took || err != nil {
			return err
		}
	}
	if name == pgdata.ControlFileName {
		return x.controlFile(entry.Size, content, expected)
	}
	root, below, err := x.dst.locate(name)
	if err != nil {
		return err
	}
	file, err := x.files.create(root, below, entry.Size, perm)
	if err != nil {
		return fmt.Errorf("create file %q: %w", name, err)
	}
	if err := x.files.copy(file, content, name, expected, buffer); err != nil {
		return errors.Join(err, file.Close())
	}
	return x.files.finish(ctx, root, below, file)
}

// keep gives a file that was there already the permissions of the backup's.
func (x *extractor) keep(name string, perm fs.FileMode) error {
	if !x.dst.group {
		return nil // survey has made it private
	}
	root, below, err := x.dst.locate(name)
	if err == nil {
		err = root.Chmod(below, perm)
	}
	if err != nil {
		return fmt.Errorf("set the permissions of file %q: %w", name, err)
	}
	return nil
}

func (x *extractor) controlFile(size int64, content io.Reader, expected *manifestFile) error {
	if size != pgdata.ControlFileSize {
		return fmt.Errorf("%s has %d bytes, not %d", pgdata.ControlFileName, size, pgdata.ControlFileSize)
	}
	data, err := io.ReadAll(content)
	if err != nil {
		return fmt.Errorf("read %s: %w", pgdata.ControlFileName, err)
	}
	check := expected.checker()
	if check.hash != nil {
		check.hash.Write(data)
	}
	x.control = data
	return check.check(pgdata.ControlFileName)
}

func copyFile(dst io.Writer, content io.Reader, name string, expected *manifestFile) error {
	check := expected.checker()
	if _, err := io.Copy(check.tee(dst), content); err != nil {
		return fmt.Errorf("write file %q: %w", name, err)
	}
	return check.check(name)
}

// locate says in which root a path of the backup belongs, and how it is called
// there: a tablespace's files are below pg_tblspc/OID, which is going to be a
// link.
func (d *destination) locate(name string) (root *os.Root, below string, err error) {
	rest, ok := strings.CutPrefix(name, pgdata.TablespaceDir+"/")
	if !ok {
		return d.data, name, nil
	}
	oid, below, nested := strings.Cut(rest, "/")
	if !nested {
		below = "."
	}
	if space, ok := d.spaces[oid]; ok {
		return space, below, nil
	}
	if d.inPlace[oid] {
		return d.data, name, nil
	}
	return nil, "", fmt.Errorf("the path %q is in a tablespace that the backup's record doesn't name", name)
}
