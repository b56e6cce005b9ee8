package backup

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"

	"github.com/walship/walship/pkg/pgdata"
)

// copyBuffer is how many bytes are read from a file at once: a multiple of the
// size of a page.
const copyBuffer = 256 << 10

// source is a file of the cluster that was opened to be copied. The backup has
// it in the size that it had then.
type source struct {
	entry
	file *os.File
	info fs.FileInfo
}

// open opens a file that was listed; nil if it is gone and may be.
func (e entry) open() (*source, error) {
	file, err := e.tree.root.Open(e.path())
	if errors.Is(err, fs.ErrNotExist) && !pgdata.MustExist(e.name) {
		return nil, nil
	}
	if err != nil {
		return nil, readError(e.tree, e.path(), err)
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = errors.New("it was replaced by something that isn't a file")
	}
	if err != nil {
		file.Close()
		return nil, readError(e.tree, e.path(), err)
	}
	return &source{entry: e, file: file, info: info}, nil
}

// writeFile adds a file of the cluster. One that is gone is left out.
func (p *partWriter) writeFile(ctx context.Context, e entry) error {
	if e.changed != nil {
		return p.writeIncremental(ctx, e)
	}
	src, err := e.open()
	if src == nil || err != nil {
		return err
	}
	defer src.file.Close()
	if err := p.writeWhole(ctx, src); err != nil {
		return err
	}
	e.tree.bytes.Add(src.info.Size())
	p.run.dataSize.Add(src.info.Size())
	return nil
}

// writeWhole adds a file with all of its content. What it grows by meanwhile is
// cut, and what it loses is replaced by zeros, because the WAL since the start of
// the backup brings both right.
func (p *partWriter) writeWhole(ctx context.Context, src *source) error {
	size := src.info.Size()
	sink, err := p.add(p.run.header(src.name, src.info.Mode(), size, src.info.ModTime()))
	if err != nil {
		return err
	}
	missing, err := p.copyRange(ctx, sink, src, 0, size)
	if err != nil {
		return fmt.Errorf("copy %s: %w", src.name, err)
	}
	if missing > 0 && needsWhole(src.name) {
		return readError(src.tree, src.path(), fmt.Errorf("it shrank by %d bytes while it was read", missing))
	}
	if err := sink.pad(missing, p.buffer); err != nil {
		return fmt.Errorf("copy %s: %w", src.name, err)
	}
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

// copyRange copies what stands from one offset of a file up to another, and
// returns how many bytes of it were missing.
func (p *partWriter) copyRange(ctx context.Context, dst io.Writer, src *source, from, to int64) (missing int64, err error) {
	pages := p.run.pages.of(src)
	var cache *pageCache
	if from == 0 && to == src.info.Size() {
		cache = watchCache(src.file, to)
		defer func() { cache.read(to, true) }()
	}
	for offset := from; offset < to; {
		chunk := p.buffer[:min(to-offset, int64(len(p.buffer)))]
		if err := p.run.limit.wait(ctx, len(chunk)); err != nil {
			return 0, err
		}
		n, err := src.file.ReadAt(chunk, offset)
		if err != nil && err != io.EOF {
			return 0, err
		}
		if err := pages.verify(ctx, chunk[:n], offset); err != nil {
			return 0, err
		}
		if _, err := dst.Write(chunk[:n]); err != nil {
			return 0, err
		}
		p.run.progress.bytes.Add(int64(n))
		offset += int64(n)
		cache.read(offset, false)
		if n < len(chunk) {
			return to - offset, nil
		}
	}
	return 0, nil
}

// writeContent adds a file that walship has in memory.
func (p *partWriter) writeContent(name string, content []byte, modified time.Time, listed bool) error {
	sink, err := p.add(p.run.header(name, 0o600, int64(len(content)), modified))
	if err != nil {
		return err
	}
	if !listed {
		sink.manifest = nil
	}
	if _, err := io.Copy(sink, bytes.NewReader(content)); err != nil {
		return fmt.Errorf("copy %s: %w", name, err)
	}
	p.run.progress.bytes.Add(int64(len(content)))
	p.run.dataSize.Add(int64(len(content)))
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
