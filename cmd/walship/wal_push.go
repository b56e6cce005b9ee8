package main

import (
	"path/filepath"

	"github.com/urfave/cli/v2"
	"github.com/walship/walship/pkg/archive"
	"github.com/walship/walship/pkg/wal"
)

// pushWAL archives one file.
func (e *environment) pushWAL(c *cli.Context, path string) error {
	settings, err := e.config()
	if err != nil {
		return err
	}
	ctx, cancel := e.deadline(c.Context, settings.WAL.PushDeadline.Duration)
	defer cancel()
	if _, err := wal.ParseFileName(filepath.Base(path)); err != nil {
		return &usageError{err.Error()}
	}
	s, err := e.findServer(c, path, settings)
	if err != nil {
		return err
	}
	repository, err := e.repository(ctx, false)
	if err != nil {
		return err
	}
	done, err := archive.Push(ctx, repository, path, archive.PushOptions{SystemID: s.systemID, Strict: c.Bool("strict"), Log: e.logger()})
	if err != nil {
		return err
	}
	e.logger().Debug("archived", "file", done.Name.String(), "key", done.Key, "already", done.Already, "stored", done.StoredSize)
	return nil
}
