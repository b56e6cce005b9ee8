package backup

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"

	"github.com/walship/walship/pkg/pgdata"
)

// copyBuffer is how many bytes are read from a file at once.
const copyBuffer = 256 << 10

// writeFile adds a file to a tar and to the manifest, in the size that it has
// when it is opened: what it grows by afterwards is cut, and what it loses is
// replaced by zeros, because the WAL since the start of the backup brings both
// right. A file that is gone is left out.
func (r *run) writeFile(ctx context.Context, archive *tar.Writer, e entry, buffer []byte) error {
	file, err := e.tree.root.Open(e.path)
	if errors.Is(err, fs.ErrNotExist) && !pgdata.MustExist(e.name) {
		return nil
	}
	if err != nil {
		return readError(e.tree, e.path, err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return readError(e.tree, e.path, err)
	}
	if !info.Mode().IsRegular() {
		return readError(e.tree, e.path, errors.New("it was replaced by something that isn't a file"))
	}
	sink, err := r.newFileSink(archive, r.header(e.name, info.Mode(), info.Size(), info.ModTime()))
	if err != nil {
		return err
	}
	missing, err := r.copyFile(ctx, sink, file, info.Size(), buffer)
	if err != nil {
		return fmt.Errorf("copy %s: %w", e.name, err)
	}
	if missing > 0 && needsWhole(e.name) {
		return readError(e.tree, e.path, fmt.Errorf("it shrank by %d bytes while it was read", missing))
	}
	if err := sink.pad(missing, buffer); err != nil {
		return fmt.Errorf("copy %s: %w", e.name, err)
	}
	e.tree.bytes.Add(info.Size())
	return sink.close()
}

// needsWhole says of which files a part is worse than none: WAL doesn't bring
// them right.
func needsWhole(name string) bool {
	switch pgdata.ClassifyPath(name).Kind {
	case pgdata.KindControl, pgdata.KindVersion, pgdata.KindRelMapper:
		return true
	}
	return false
}

// copyFile copies up to size bytes and returns how many of them were missing.
func (r *run) copyFile(ctx context.Context, dst io.Writer, src io.Reader, size int64, buffer []byte) (missing int64, err error) {
	for left := size; left > 0; {
		chunk := buffer[:min(left, int64(len(buffer)))]
		if err := r.limit.wait(ctx, len(chunk)); err != nil {
			return 0, err
		}
		n, err := src.Read(chunk)
		if _, err := dst.Write(chunk[:n]); err != nil {
			return 0, err
		}
		r.progress.bytes.Add(int64(n))
		left -= int64(n)
		if err == io.EOF {
			return left, nil
		}
		if err != nil {
			return 0, err
		}
	}
	return 0, nil
}

// writeContent adds a file that walship has in memory.
func (r *run) writeContent(archive *tar.Writer, name string, content []byte, modified time.Time, listed bool) error {
	sink, err := r.newFileSink(archive, r.header(name, 0o600, int64(len(content)), modified))
	if err != nil {
		return err
	}
	if !listed {
		sink.manifest = nil
	}
	if _, err := io.Copy(sink, bytes.NewReader(content)); err != nil {
		return fmt.Errorf("copy %s: %w", name, err)
	}
	r.progress.bytes.Add(int64(len(content)))
	return sink.close()
}

// header describes a file or, with a name that ends in a slash, a directory.
// Everything in a data directory belongs to the user that the server runs as.
// GNU's form takes names of any bytes and sizes of any length.
func (r *run) header(name string, mode fs.FileMode, size int64, modified time.Time) *tar.Header {
	h := &tar.Header{
		Typeflag: tar.TypeReg, Name: name, Mode: int64(mode.Perm()), Uid: r.uid, Gid: r.gid,
		Size: size, ModTime: modified.Truncate(time.Second), Format: tar.FormatGNU,
	}
	if strings.HasSuffix(name, "/") {
		h.Typeflag = tar.TypeDir
	}
	return h
}
