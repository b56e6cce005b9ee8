package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"
)

// stdio is what a run of the program has from its surroundings.
type stdio struct {
	in       io.Reader
	out, err io.Writer
	lookup   func(name string) (string, bool) // of environment variables
	environ  func() []string                  // name=value; nil: not looked through
}

// grace is how long a command may take to clean up after a signal or behind
// its deadline: PostgreSQL waits for a push when it shuts down.
const grace = 4 * time.Second

// run is the whole program: it runs the command that args name, says on
// standard error what went wrong, and returns the exit code. A command that
// doesn't end in time after a signal or its deadline is left behind.
func run(ctx context.Context, args []string, io stdio) int {
	g := groupOf(args)
	if g == groupFetch {
		// What can't be recovered mustn't end with Go's exit code 2, which
		// PostgreSQL would read as "not in the archive": it becomes SIGABRT.
		debug.SetTraceback("crash")
	}
	e := newEnvironment(io)
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGINT, syscall.SIGTERM, syscall.SIGQUIT)
	defer signal.Stop(signals)

	done := make(chan error, 1)
	go func() { done <- recovered(func() error { return runCommand(ctx, e, args) }) }()
	killer, err := wait(done, signals, e.overdue, cancel)
	if killer != nil && g == groupFetch {
		// An exit code would be an answer, and there is none.
		dieBy(killer)
		return failure(g)
	}
	e.report(err, g)
	return exitCode(g, err)
}

// recovered turns a panic into an error, with where it was.
func recovered(action func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("internal error: %v: please report it with these lines:\n%s", p, debug.Stack())
		}
	}()
	return action()
}

// wait waits for a command's end. A signal cancels its context, with the
// grace period to end in; a second one or the end of that period ends the
// waiting. It returns the first signal too.
func wait(done <-chan error, signals <-chan os.Signal, overdue <-chan struct{}, cancel context.CancelCauseFunc) (os.Signal, error) {
	var killer os.Signal
	var late <-chan time.Time
	for {
		select {
		case err := <-done:
			return killer, err
		case s := <-signals:
			stopped := fmt.Errorf("stopped by signal: %s", s)
			if killer != nil {
				return killer, stopped
			}
			killer = s
			cancel(stopped)
			late = time.After(grace)
		case <-late:
			return killer, fmt.Errorf("stopped by signal: %s: cleaning up took more than %s", killer, grace)
		case <-overdue:
			return killer, errors.New("the deadline is over, and the command hangs: is a file system or a device stuck?")
		}
	}
}

// dieBy ends the process by the signal that it was sent; by SIGTERM where
// that was SIGQUIT, with which Go's runtime would do something of its own.
func dieBy(s os.Signal) {
	number := syscall.SIGTERM
	if s == syscall.SIGINT {
		number = syscall.SIGINT
	}
	signal.Reset(number)
	if err := syscall.Kill(os.Getpid(), number); err == nil {
		<-time.After(grace) // the signal is on its way
	}
}
