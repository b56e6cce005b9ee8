package main

import (
	"context"
	"fmt"
	"strings"

	"github.com/walship/walship/pkg/config"
	"github.com/walship/walship/pkg/storage"
	"github.com/walship/walship/pkg/storage/file"
	"github.com/walship/walship/pkg/storage/s3"
)

// openStore opens the storage that the setting repository names.
func (e *environment) openStore(ctx context.Context) (storage.Store, error) {
	c, err := e.config()
	if err != nil {
		return nil, err
	}
	scheme, _, _ := strings.Cut(c.Repository, ":")
	switch {
	case c.Repository == "":
		return nil, withHint(fmt.Errorf("%w: no repository is set", config.ErrInvalid),
			"set repository in "+config.DefaultFile+", or WALSHIP_REPOSITORY, or --repository=URL")
	case scheme == "file":
		return openDirectory(c.Repository)
	case scheme == "s3":
		store, err := s3.Open(ctx, c.Repository, c.CertificateFile())
		if err != nil {
			return nil, fmt.Errorf("open repository: %w", err)
		}
		return store, nil
	}
	return nil, fmt.Errorf("%w: repository: it is a URL that begins with file:// or s3://", config.ErrInvalid)
}

func openDirectory(url string) (storage.Store, error) {
	dir, err := file.ParseURL(url)
	if err != nil {
		return nil, fmt.Errorf("open repository: %w", err)
	}
	store, err := file.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("open repository: %w", err)
	}
	return store, nil
}
