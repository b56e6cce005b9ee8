package backup

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/walship/walship/pkg/object"
	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/storage"
)

// errPutEnded is what a writer sees when the storage stopped reading.
var errPutEnded = errors.New("the storage stopped reading")

// putObject seals what content writes and stores it as it comes: memory
// doesn't grow with it. The context of content ends when the storage doesn't
// want any more.
func (r *run) putObject(ctx context.Context, key string, header object.Header, content func(context.Context, io.Writer) error) (repo.Object, error) {
	return r.putSealed(ctx, r.repository.Sealer, key, header, content)
}

// putSealed is putObject with a sealer of the repository's.
func (r *run) putSealed(ctx context.Context, sealer *object.Sealer, key string, header object.Header, content func(context.Context, io.Writer) error) (repo.Object, error) {
	key += r.repository.Suffix()
	contentCtx, stop := context.WithCancelCause(ctx)
	defer stop(nil)
	reader, writer := io.Pipe()
	type sealing struct {
		result object.Result
		err    error
	}
	sealed := make(chan sealing, 1)
	go func() {
		result, err := seal(sealer, writer, header, func(w io.Writer) error { return content(contentCtx, w) })
		writer.CloseWithError(err)
		sealed <- sealing{result, err}
	}()
	_, putErr := r.repository.Store.Put(ctx, key, reader)
	reader.CloseWithError(errPutEnded)
	stop(errPutEnded)
	s := <-sealed
	// What went wrong with the content comes back through Put as well, and
	// the other way round: the first cause counts.
	if s.err != nil && !errors.Is(s.err, errPutEnded) {
		return repo.Object{}, s.err
	}
	if s.err != nil && putErr == nil {
		putErr = fmt.Errorf("store %s: %w", key, s.err)
	}
	return r.stored(ctx, key, s.result, putErr)
}

func seal(sealer *object.Sealer, dst io.Writer, header object.Header, content func(io.Writer) error) (object.Result, error) {
	w, err := sealer.Seal(dst, header)
	if err != nil {
		return object.Result{}, err
	}
	if err := content(w); err != nil {
		return object.Result{}, err
	}
	if err := w.Close(); err != nil {
		return object.Result{}, err
	}
	return w.Result(), nil
}

// stored describes an object that Put wrote. The backup's folder belongs to
// this run alone, so an object that is there already is its own, whose
// response was lost, if its bytes are the same.
func (r *run) stored(ctx context.Context, key string, result object.Result, err error) (repo.Object, error) {
	if errors.Is(err, storage.ErrExist) && result.StoredSize > 0 {
		err = r.compare(ctx, key, result, err)
	}
	if err != nil {
		return repo.Object{}, err // the storage names the object
	}
	r.progress.stored.Add(result.StoredSize)
	return repo.Object{
		Key: key, StoredSize: result.StoredSize, StoredSHA256: hex.EncodeToString(result.StoredDigest.Sum),
		PlainSize: result.PlainSize, PlainDigest: result.PlainDigest.String(),
	}, nil
}

// compare returns nil if what is stored under key is what result describes,
// else exist.
func (r *run) compare(ctx context.Context, key string, result object.Result, exist error) error {
	body, _, err := r.repository.Store.Get(ctx, key, 0, -1)
	if err != nil {
		return fmt.Errorf("%w, and reading it back: %w", exist, err)
	}
	defer body.Close()
	hash := sha256.New()
	if _, err := io.Copy(hash, body); err != nil {
		return fmt.Errorf("%w, and reading it back: %w", exist, err)
	}
	if !bytes.Equal(hash.Sum(nil), result.StoredDigest.Sum) {
		return exist
	}
	return nil
}
