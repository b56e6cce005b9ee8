package s3

import (
	"context"

	"github.com/aws/smithy-go/middleware"
)

// givenUpError is the failure of a request whose context ended, together with
// what went wrong before: the SDK forgets the latter when its context ends
// between two attempts.
type givenUpError struct {
	error       // the context's, as the SDK reports it
	last  error // of the last attempt that had its time
}

func (e *givenUpError) Unwrap() error { return e.error }

type lastFailure struct{}

// rememberFailures adds what makes givenUpErrors around and inside the SDK's
// loop of attempts.
func rememberFailures(stack *middleware.Stack) error {
	const loop = "Retry"
	err := stack.Finalize.Insert(middleware.FinalizeMiddlewareFunc("WalshipGivenUp", func(
		ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler,
	) (middleware.FinalizeOutput, middleware.Metadata, error) {
		var last error
		out, metadata, err := next.HandleFinalize(context.WithValue(ctx, lastFailure{}, &last), in)
		if err != nil && last != nil && ctx.Err() != nil {
			err = &givenUpError{err, last}
		}
		return out, metadata, err
	}), loop, middleware.Before)
	if err != nil {
		return err
	}
	return stack.Finalize.Insert(middleware.FinalizeMiddlewareFunc("WalshipAttempt", func(
		ctx context.Context, in middleware.FinalizeInput, next middleware.FinalizeHandler,
	) (middleware.FinalizeOutput, middleware.Metadata, error) {
		out, metadata, err := next.HandleFinalize(ctx, in)
		if last, ok := ctx.Value(lastFailure{}).(*error); ok && err != nil && ctx.Err() == nil {
			*last = err
		}
		return out, metadata, err
	}), loop, middleware.After)
}
