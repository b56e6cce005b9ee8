package archive

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/walship/walship/pkg/object"
	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/storage"
	"github.com/walship/walship/pkg/wal"
)

// memoryLimit is the size up to which a file is read once and held in
// memory, plain and sealed. A larger segment is read twice, and the second
// reading is held against the digest of the first.
const memoryLimit = 64 << 20

// PushOptions says whose file it is that is pushed.
type PushOptions struct {
	// SystemID is the cluster's system identifier as pg_control says it. A
	// segment whose header says another is refused.
	SystemID uint64
	// Strict refuses a segment whose WAL is damaged.
	Strict bool
	Log    *slog.Logger
}

// Pushed is what became of a push.
type Pushed struct {
	Name wal.FileName
	Key  string
	// Already is set when the repository had the same file before.
	Already    bool
	PlainSize  int64
	StoredSize int64 // 0 when Already
}

// Push stores the file at path, whose last element is the name that
// PostgreSQL gives it: a segment, a partial segment, a backup history file or
// a timeline history file. It returns nil when the file is durable in the
// repository or was there already, equal in every byte. It tries again while
// that may help and ctx lasts: the caller's deadline is the one of ctx. Errors
// wrap ErrConflict or ErrRefused where trying again won't help.
func Push(ctx context.Context, r *repo.Repository, path string, o PushOptions) (Pushed, error) {
	name, err := wal.ParseFileName(filepath.Base(path))
	if err != nil {
		return Pushed{}, fmt.Errorf("push %s: %w: %w", path, ErrRefused, err)
	}
	p := &push{repository: r, name: name, key: r.FileKey(o.SystemID, name), systemID: o.SystemID, strict: o.Strict, log: o.Log}
	done, err := p.run(ctx, path)
	if err != nil {
		return Pushed{}, fmt.Errorf("push %s: %w", path, refusal(err))
	}
	return done, nil
}

// refusal adds ErrRefused to the errors that a change of configuration must
// mend first.
func refusal(err error) error {
	for _, target := range []error{storage.ErrDenied, storage.ErrNoStore, storage.ErrInvalid, fs.ErrPermission, fs.ErrNotExist} {
		if errors.Is(err, target) && !errors.Is(err, ErrRefused) {
			return fmt.Errorf("%w: %w", ErrRefused, err)
		}
	}
	return err
}

// push is one file on its way.
type push struct {
	repository *repo.Repository
	systemID   uint64
	name       wal.FileName
	key        string
	strict     bool
	log        *slog.Logger
}

// source is a file to push, which can be read again from its start.
type source struct {
	header  object.Header // with size and digest, once checked
	summary wal.Summary   // of a segment, once checked
	file    io.ReaderAt
	data    []byte // the content, when it is held in memory
	held    bool
}

// open reads the content from its start.
func (s source) open() io.Reader {
	if s.held {
		return bytes.NewReader(s.data)
	}
	return io.NewSectionReader(s.file, 0, s.header.PlainSize)
}

func (p *push) run(ctx context.Context, path string) (Pushed, error) {
	file, err := os.Open(path)
	if err != nil {
		return Pushed{}, err
	}
	defer file.Close()
	src, err := p.read(file)
	if err != nil {
		return Pushed{}, err
	}
	next, err := p.seal(src)
	if err != nil {
		return Pushed{}, err
	}
	done := Pushed{Name: p.name, Key: p.key, PlainSize: src.header.PlainSize}
	err = retry(ctx, p.log, "push of "+p.name.String(), func() error {
		sealed := next()
		defer sealed.close()
		info, err := p.repository.Store.Put(ctx, p.key, sealed.Reader)
		if errors.Is(err, storage.ErrExist) {
			done.Already = true
			return p.compare(ctx, src)
		}
		done.StoredSize = info.Size
		return err
	})
	return done, err
}

// read reads a file once, checks that it is what its name says, and takes its
// digest.
func (p *push) read(file *os.File) (source, error) {
	stat, err := file.Stat()
	if err != nil {
		return source{}, err
	}
	if !stat.Mode().IsRegular() {
		return source{}, fmt.Errorf("%w: it is not a regular file", ErrRefused)
	}
	size, most := stat.Size(), p.largest()
	if size > most {
		return source{}, fmt.Errorf("%w: it has %d bytes, and a file of this kind at most %d", ErrRefused, size, most)
	}
	src := source{header: repo.Header(p.systemID, p.name), file: file, held: size <= memoryLimit}
	src.header.PlainSize = size
	if src.held {
		src.data = make([]byte, size)
		if _, err := io.ReadFull(file, src.data); err != nil {
			return source{}, fmt.Errorf("read: %w", err)
		}
	}
	return src, p.check(&src)
}

// maxSegment is the largest segment size that PostgreSQL knows.
const maxSegment = 1 << 30

func (p *push) largest() int64 {
	switch p.name.Kind {
	case wal.KindSegment, wal.KindPartial:
		return maxSegment
	}
	return repo.MaxHistory
}

// check holds the content against the name and fills in the header's digest
// and fields.
func (p *push) check(src *source) error {
	digest, err := object.NewHash(object.Fastest())
	if err != nil {
		return err
	}
	content := io.TeeReader(src.open(), digest)
	switch p.name.Kind {
	case wal.KindSegment, wal.KindPartial:
		summary, err := wal.Check(content, p.name, src.header.PlainSize, p.systemID)
		if errors.Is(err, wal.ErrMismatch) {
			return fmt.Errorf("%w: %w", ErrRefused, err)
		}
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
		if err := p.judge(summary); err != nil {
			return err
		}
		src.summary, src.header.Fields = summary, summary.Fields()
	case wal.KindTimelineHistory:
		data, err := io.ReadAll(content)
		if err != nil {
			return fmt.Errorf("read: %w", err)
		}
		if _, err := wal.ParseHistory(p.name.Timeline, data); err != nil {
			return fmt.Errorf("%w: %w", ErrRefused, err)
		}
	}
	if _, err := io.Copy(io.Discard, content); err != nil {
		return fmt.Errorf("read: %w", err)
	}
	src.header.Digest = object.Digest{Algorithm: object.Fastest(), Sum: digest.Sum(nil)}
	return nil
}

// judge says what is done with a segment whose WAL is damaged. PostgreSQL will
// not hand it over any better, and what stands before the damage is worth
// keeping: so it is archived, and reported loudly, unless the caller is
// strict.
func (p *push) judge(summary wal.Summary) error {
	if summary.Ending != wal.EndingDamaged {
		return nil
	}
	if p.strict {
		return fmt.Errorf("%w: its WAL is damaged at %s: %s", ErrRefused, summary.End, summary.Problem)
	}
	p.log.Error("the segment's WAL is damaged: it is archived as it is, and recovery will end there; take a new base backup",
		"segment", p.name.String(), "at", summary.End.String(), "problem", summary.Problem)
	return nil
}

// seal returns what makes the body of a request. A file that is held in
// memory is sealed once; a larger one anew for each try, while it is sent.
// The caller closes the body.
func (p *push) seal(src source) (func() body, error) {
	if p.name.Kind == wal.KindTimelineHistory {
		return held(src.data), nil
	}
	if p.repository.Sealer == nil {
		return nil, fmt.Errorf("%w: %w", ErrRefused, repo.ErrNoRecipients)
	}
	if src.held {
		var sealed bytes.Buffer
		err := p.sealTo(&sealed, src)
		return held(sealed.Bytes()), err
	}
	return func() body {
		r, w := io.Pipe()
		finished := make(chan struct{})
		go func() {
			defer close(finished)
			w.CloseWithError(p.sealTo(w, src))
		}()
		return body{Reader: r, close: func() { r.Close(); <-finished }}
	}, nil
}

// body is what is sent; Reader is an io.Seeker when it is held in memory.
type body struct {
	io.Reader
	close func()
}

func held(data []byte) func() body {
	return func() body { return body{Reader: bytes.NewReader(data), close: func() {}} }
}

func (p *push) sealTo(w io.Writer, src source) error {
	seal, err := p.repository.Sealer.Seal(w, src.header)
	if err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	if _, err := io.Copy(seal, src.open()); err != nil {
		_ = seal.Close() // the first error is the one that matters
		return fmt.Errorf("seal: %w", err)
	}
	if err := seal.Close(); err != nil {
		return fmt.Errorf("seal: %w", err)
	}
	return nil
}
