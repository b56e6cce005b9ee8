package storagetest

import (
	"context"
	"io"
	"iter"
	"strings"

	"github.com/walship/walship/pkg/storage"
)

// Effect is what goes wrong with a call.
type Effect struct {
	name string

	before   func(context.Context) error // before the request, or, with an error, instead of it
	after    func(context.Context) error // instead of the response
	sent     func(body io.Reader, fired func()) io.Reader
	received func(ctx context.Context, body io.ReadCloser, fired func()) io.ReadCloser
	listed   func(listing iter.Seq2[storage.Info, error], prefix, after string, fired func()) iter.Seq2[storage.Info, error]

	prepare func(context.Context, storage.Store, *Effect) error
}

// suits tells whether the method op has what the effect strikes.
func (e Effect) suits(op Op) bool {
	switch {
	case e.before != nil:
		return true
	case e.after != nil:
		return op != List
	case e.sent != nil:
		return op == Put
	case e.received != nil:
		return op == Get
	}
	return op == List && (e.listed != nil || e.prepare != nil)
}

// Fail answers with err; the request is never made. A permanent 403 is
// Fail(storage.ErrDenied) with Always.
func Fail(err error) Effect {
	return Effect{name: "Fail", before: func(context.Context) error { return err }}
}

// FailAfter makes the storage fail with err once it has read size bytes of
// what is put, as when a disk fills up. Nothing becomes visible.
func FailAfter(size int64, err error) Effect {
	return Effect{name: "FailAfter", sent: func(body io.Reader, fired func()) io.Reader {
		return struct{ io.Reader }{&failingReader{body, size, fired, func() error { return err }}}
	}}
}

// LoseResponse makes the request, to its end, and answers with err.
func LoseResponse(err error) Effect {
	return Effect{name: "LoseResponse", after: func(context.Context) error { return err }}
}

// Hang never makes the request and answers when the context ends.
func Hang() Effect {
	return Effect{name: "Hang", before: untilDone}
}

// HangAfter makes the request and answers when the context ends.
func HangAfter() Effect {
	return Effect{name: "HangAfter", after: untilDone}
}

// HangBody makes a body of Get hang behind size bytes, until the context ends.
func HangBody(size int64) Effect {
	return Effect{name: "HangBody", received: func(ctx context.Context, body io.ReadCloser, fired func()) io.ReadCloser {
		return faultyBody{&failingReader{body, size, fired, func() error { return untilDone(ctx) }}, body}
	}}
}

// Wait holds the request back until the channel is closed, or the context
// ends.
func Wait(release <-chan struct{}) Effect {
	return Effect{name: "Wait", before: func(ctx context.Context) error {
		select {
		case <-release:
			return nil
		case <-ctx.Done():
			return ctx.Err()
		}
	}}
}

// Call calls hook before the request: another writer, say, who is quicker.
func Call(hook func()) Effect {
	return Effect{name: "Call", before: func(context.Context) error { hook(); return nil }}
}

// CutBody ends a body of Get behind size bytes, with err. When that is nil it
// ends as if it were whole, which no store may do, and a reader notices.
func CutBody(size int64, err error) Effect {
	if err == nil {
		err = io.EOF
	}
	return Effect{name: "CutBody", received: func(_ context.Context, body io.ReadCloser, fired func()) io.ReadCloser {
		return faultyBody{&failingReader{body, size, fired, func() error { return err }}, body}
	}}
}

// FlipByte flips a bit of the byte of that number, from 0, of a body of Get.
func FlipByte(number int64) Effect {
	return Effect{name: "FlipByte", received: func(_ context.Context, body io.ReadCloser, fired func()) io.ReadCloser {
		return faultyBody{&flippingReader{body, number, fired}, body}
	}}
}

// CutList ends a listing behind so many objects, with err. When that is nil it
// ends as if it were complete, which no store may do.
func CutList(objects int, err error) Effect {
	return Effect{name: "CutList", listed: func(listing iter.Seq2[storage.Info, error], _, _ string, fired func()) iter.Seq2[storage.Info, error] {
		return func(yield func(storage.Info, error) bool) {
			n := 0
			for info, lerr := range listing {
				if n == objects && lerr == nil {
					fired()
					if err != nil {
						yield(storage.Info{}, err)
					}
					return
				}
				if n++; !yield(info, lerr) {
					return
				}
			}
		}
	}}
}

// StaleList answers a listing as it was when the fault was armed: without what
// has been put since, and with what has been deleted since.
func StaleList() Effect {
	return Effect{name: "StaleList", prepare: func(ctx context.Context, store storage.Store, e *Effect) error {
		var then []storage.Info
		for info, err := range store.List(ctx, "", "") {
			if err != nil {
				return err
			}
			then = append(then, info)
		}
		e.listed = func(_ iter.Seq2[storage.Info, error], prefix, after string, fired func()) iter.Seq2[storage.Info, error] {
			return func(yield func(storage.Info, error) bool) {
				fired()
				for _, info := range then {
					if strings.HasPrefix(info.Key, prefix) && info.Key > after && !yield(info, nil) {
						return
					}
				}
			}
		}
		return nil
	}}
}

func untilDone(ctx context.Context) error {
	<-ctx.Done()
	return ctx.Err()
}

type faultyBody struct {
	io.Reader
	io.Closer
}

// failingReader fails behind left bytes. A body that ends before never gets
// there.
type failingReader struct {
	r     io.Reader
	left  int64
	fired func() // nil once called
	fail  func() error
}

func (r *failingReader) Read(p []byte) (int, error) {
	if r.left == 0 {
		if r.fired != nil {
			r.fired()
			r.fired = nil
		}
		return 0, r.fail()
	}
	n, err := r.r.Read(p[:min(int64(len(p)), r.left)])
	r.left -= int64(n)
	if err == io.EOF && r.left == 0 {
		err = nil // the next call fails
	}
	return n, err
}

// flippingReader changes the byte behind the next left ones.
type flippingReader struct {
	r     io.Reader
	left  int64
	fired func()
}

func (r *flippingReader) Read(p []byte) (int, error) {
	n, err := r.r.Read(p)
	if 0 <= r.left && r.left < int64(n) {
		p[r.left] ^= 1
		r.fired()
	}
	r.left -= int64(n)
	return n, err
}
