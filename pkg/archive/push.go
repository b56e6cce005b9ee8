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

	"github.com/walship/walship/pkg/done"
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
	// Standby: the server is in recovery. What it hands over under a whole
	// segment's name may be an incomplete one, at the end of a timeline.
	Standby bool
	// Host is the name of this machine, which the object will say, so that a
	// conflict can name the other writer. "" where it isn't known.
	Host string
	// Batch, if it isn't nil, takes along the segments that wait behind a
	// segment.
	Batch *Batch
	// Processors compress a segment that has nothing behind it, each a part of
	// it; 0 stands for one.
	Processors int
	// AskFirst: the repository may well have the file already. It is asked
	// before the file is compressed, which is in vain then; where it hasn't,
	// that was a request more. It is for storages where what can be read is
	// durable. In a directory only a write that is refused makes sure of that:
	// whoever wrote the object may have been killed before it was.
	AskFirst bool
	Log      *slog.Logger
}

// Pushed is what became of a push.
type Pushed struct {
	Name wal.FileName // under which it is archived
	Key  string
	// Already is set when the repository had the same file before.
	Already    bool
	PlainSize  int64
	StoredSize int64 // 0 when Already
	// Along counts the segments behind it that were stored in the same call.
	Along int
}

// Push stores the file at path, whose last element is the name that
// PostgreSQL gives it: a segment, a partial segment, a backup history file or
// a timeline history file. It returns nil when the file is durable in the
// repository or was there already, equal in every byte. It tries again while
// that may help and ctx lasts: the caller's deadline is the one of ctx. Errors
// wrap ErrConflict or ErrRefused where trying again won't help.
func Push(ctx context.Context, r *repo.Repository, path string, o PushOptions) (Pushed, error) {
	done, err := pushFile(ctx, r, path, o)
	if err != nil {
		return Pushed{}, fmt.Errorf("push %s: %w", path, refusal(err))
	}
	return done, nil
}

func pushFile(ctx context.Context, r *repo.Repository, path string, o PushOptions) (Pushed, error) {
	name, err := wal.ParseFileName(filepath.Base(path))
	if err != nil {
		return Pushed{}, fmt.Errorf("%w: %w", ErrRefused, err)
	}
	own := newPush(r, path, name, o)
	defer own.close()
	if err := own.open(); err != nil {
		return Pushed{}, err
	}
	if along := o.Batch.along(own); len(along) > 0 {
		if o.Batch.Starts != nil {
			o.Batch.Starts()
		}
		return newBatch(o.Batch, own, along).run(ctx)
	}
	if err := own.prepare(ctx, &packers{sealer: r.Sealer, processors: o.Processors}); err != nil {
		return Pushed{}, err
	}
	return own.publish(ctx, func() {})
}

// refusal adds ErrRefused to the errors that a change of configuration must
// mend first.
func refusal(err error) error {
	mend := storage.Lasting(err) || errors.Is(err, fs.ErrPermission) || errors.Is(err, fs.ErrNotExist)
	if mend && !errors.Is(err, ErrRefused) {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	return err
}

// push is one file on its way: opened, prepared (read, checked and sealed),
// published.
type push struct {
	repository *repo.Repository
	path       string
	name       wal.FileName
	key        string
	o          PushOptions

	file     *os.File
	identity done.Identity  // of the file when it was opened
	header   object.Header  // with the size, and once prepared with digest and fields
	summary  wal.Summary    // of a segment, once prepared
	data     []byte         // the content of a history file
	sealed   *bytes.Buffer  // the whole object; nil for a large segment and a history file
	already  bool           // the repository has it: nothing was sealed
	staged   storage.Staged // of a batch: the object, which needs to be published only
}

func newPush(r *repo.Repository, path string, name wal.FileName, o PushOptions) *push {
	return &push{repository: r, path: path, name: name, key: r.FileKey(o.SystemID, name), o: o}
}

// open opens the file and checks its kind and size.
func (p *push) open() error {
	file, err := os.Open(p.path)
	if err != nil {
		return err
	}
	p.file = file
	stat, err := file.Stat()
	if err != nil {
		return err
	}
	if !stat.Mode().IsRegular() {
		return fmt.Errorf("%w: it is not a regular file", ErrRefused)
	}
	if size, most := stat.Size(), p.largest(); size > most {
		return fmt.Errorf("%w: it has %d bytes, and a file of this kind at most %d", ErrRefused, size, most)
	}
	p.identity = done.Identify(stat)
	p.begin(stat.Size())
	return nil
}

// begin starts the context header with what is known before the file is read.
func (p *push) begin(size int64) {
	p.header = repo.Header(p.o.SystemID, p.name)
	p.header.PlainSize, p.header.Host = size, p.o.Host
}

func (p *push) close() {
	if p.staged != nil {
		p.staged.Discard()
	}
	if p.file != nil {
		p.file.Close()
	}
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

// content reads the file from its start.
func (p *push) content() *io.SectionReader {
	return io.NewSectionReader(p.file, 0, p.header.PlainSize)
}

// prepare reads the file, checks that it is what its name says, and makes the
// object of it, in memory unless it is large. With AskFirst it may find that
// there is no need of one.
func (p *push) prepare(ctx context.Context, pool *packers) error {
	var err error
	switch {
	case p.name.Kind == wal.KindTimelineHistory:
		err = p.readHistory()
	case p.repository.Sealer == nil:
		err = fmt.Errorf("%w: %w", ErrRefused, repo.ErrNoRecipients)
	case p.o.AskFirst && p.isStored(ctx):
		p.already = true
	case p.header.PlainSize <= memoryLimit:
		err = p.pack(pool)
	default:
		err = p.digest()
	}
	if err != nil {
		return err
	}
	return p.unchanged()
}

// unchanged returns an error if the file was written to since it was opened.
func (p *push) unchanged() error {
	stat, err := p.file.Stat()
	if err != nil {
		return err
	}
	if done.Identify(stat) != p.identity {
		return errors.New("the file changed while it was read")
	}
	return nil
}

func (p *push) readHistory() error {
	data, err := io.ReadAll(p.content())
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	if _, err := wal.ParseHistory(p.name.Timeline, data); err != nil {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	p.data = data
	return nil
}

// pack reads the file once: what is checked is hashed and compressed at the
// same time, and sealed at the end, when all is known that the header says.
func (p *push) pack(pool *packers) error {
	packer, err := pool.get()
	if err != nil {
		return err
	}
	defer pool.put(packer)
	if err := p.check(io.TeeReader(p.content(), packer)); err != nil {
		return err
	}
	size, digest, err := packer.Close()
	if err != nil {
		return err
	}
	if size != p.header.PlainSize {
		return fmt.Errorf("read: the file ended after %d of %d bytes", size, p.header.PlainSize)
	}
	p.header.Digest = digest
	p.sealed = pool.getBuffer(packer.Packed() + packer.Packed()>>8 + object.HeadSize)
	return packer.Seal(p.sealed, p.header)
}

// digest reads a large segment for the first time.
func (p *push) digest() error {
	hash, err := object.NewHash(object.Fastest())
	if err != nil {
		return err
	}
	if err := p.check(io.TeeReader(p.content(), hash)); err != nil {
		return err
	}
	p.header.Digest = object.Digest{Algorithm: object.Fastest(), Sum: hash.Sum(nil)}
	return nil
}

// check reads the content to its end, holds it against the name and fills in
// the header's fields.
func (p *push) check(content io.Reader) error {
	if p.name.Kind != wal.KindSegment && p.name.Kind != wal.KindPartial {
		if _, err := io.Copy(io.Discard, content); err != nil {
			return fmt.Errorf("read: %w", err)
		}
		return nil
	}
	summary, err := wal.Check(content, p.name, p.header.PlainSize, p.o.SystemID)
	if errors.Is(err, wal.ErrMismatch) {
		return fmt.Errorf("%w: %w", ErrRefused, err)
	}
	if err != nil {
		return fmt.Errorf("read: %w", err)
	}
	p.summary = summary
	if p.incomplete() {
		p.becomePartial()
	}
	p.header.Fields = summary.Fields()
	if p.damaged() && p.o.Strict {
		return fmt.Errorf("%w: its WAL is damaged at %s: %s", ErrRefused, p.summary.End, p.summary.Problem)
	}
	return nil
}

// damaged tells whether a segment's WAL ends before it does, since PostgreSQL
// archives what it has filled or switched away from (rule 19). It will not hand
// it over any better, and what stands before the damage is worth keeping: so it
// is archived, unless the caller is strict. A partial segment ends anywhere.
func (p *push) damaged() bool {
	return p.name.Kind == wal.KindSegment && !p.summary.Ending.Complete()
}

// publish stores what was prepared, and tries again while that may help; before
// each further try it calls again.
func (p *push) publish(ctx context.Context, again func()) (done Pushed, err error) {
	tried := false
	err = retry(ctx, p.o.Log, "push of "+p.name.String(), func() error {
		if tried {
			again()
		}
		tried = true
		done, err = p.put(ctx)
		return err
	})
	if err == nil {
		p.report()
	}
	return done, err
}

// report says loudly what is wrong with a segment that is archived now. Of one
// that a batch doesn't take along, its own push will say it.
func (p *push) report() {
	switch {
	case p.damaged():
		p.o.Log.Error("the segment's WAL is damaged: it is archived as it is, and recovery will end there; take a new base backup",
			"segment", p.name.String(), "at", p.summary.End.String(), "problem", p.summary.Problem)
	case p.name.Segment().String() == filepath.Base(p.path) && p.name.Kind == wal.KindPartial:
		p.o.Log.Warn("the segment is incomplete, as the last one of a timeline is that a standby receives: it is archived as partial",
			"segment", p.name.Segment().String(), "end", p.summary.End.String(), "problem", p.summary.Problem)
	}
}

// put stores what was prepared, or finds that it is stored.
func (p *push) put(ctx context.Context) (Pushed, error) {
	done := Pushed{Name: p.name, Key: p.key, PlainSize: p.header.PlainSize, Already: p.already}
	if p.already {
		return done, nil
	}
	info, err := p.store(ctx)
	if errors.Is(err, storage.ErrExist) {
		done.Already = true
		err = p.compare(ctx)
		if errors.Is(err, errBeside) {
			return p.putBeside(ctx)
		}
		return done, err
	}
	done.StoredSize = info.Size
	return done, err
}

func (p *push) store(ctx context.Context) (storage.Info, error) {
	if p.staged != nil {
		return p.staged.Publish(ctx)
	}
	body := p.body()
	defer body.close()
	return p.repository.Store.Put(ctx, p.key, body.Reader)
}

// body is what is sent; Reader is an io.Seeker when it is held in memory.
type body struct {
	io.Reader
	close func()
}

// body makes the body of a request. A large segment is sealed anew for each,
// while it is sent; the second reading is held against the digest of the
// first. The caller closes the body.
func (p *push) body() body {
	switch {
	case p.sealed != nil:
		return body{Reader: bytes.NewReader(p.sealed.Bytes()), close: func() {}}
	case p.name.Kind == wal.KindTimelineHistory:
		return body{Reader: bytes.NewReader(p.data), close: func() {}}
	}
	r, w := io.Pipe()
	finished := make(chan struct{})
	go func() {
		defer close(finished)
		w.CloseWithError(p.sealTo(w))
	}()
	return body{Reader: r, close: func() { r.Close(); <-finished }}
}

func (p *push) sealTo(w io.Writer) error {
	of := p.repository.Sealer
	sealer := &object.Sealer{Repository: of.Repository, Recipients: of.Recipients, Level: of.Level, Segments: true}
	seal, err := sealer.Seal(w, p.header)
	if err != nil {
		return err
	}
	if _, err := io.Copy(seal, p.content()); err != nil {
		return fmt.Errorf("read: %w", err)
	}
	return seal.Close()
}
