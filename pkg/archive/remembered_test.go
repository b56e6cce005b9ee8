package archive

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/walship/walship/pkg/crypto"
	"github.com/walship/walship/pkg/repo"
)

// A fetch that goes by what was remembered of the repository delivers the same
// as one that asks, and doesn't take another repository's word for absence.
func TestFetchRemembered(t *testing.T) {
	s := newSite(t, true)
	if _, err := s.push(t, s.write(t, first, segment(t, first, segmentSize, cluster, 'a'))); err != nil {
		t.Fatal(err)
	}
	another := *s.Repository // that was at the same place before, without encryption
	another.Info.ID, another.Info.Encryption = "0123456789abcdef0123456789abcdef", "none"
	opener := *s.Opener
	opener.Encrypted, opener.Repository, opener.Identities = false, another.Info.ID, new(crypto.Identities)
	another.Opener = &opener
	outage := errors.New("503 SlowDown")
	down := func(string) error { return outage }
	for _, c := range []struct {
		name       string
		remembered *repo.Repository
		file       string
		get        func(string) error
		opened     error
		want       error
		opens      int
	}{
		{"right", s.Repository, first, nil, nil, nil, 0},
		{"right and absent", s.Repository, second, nil, nil, ErrAbsent, 1},
		{"gone", s.Repository, second, nil, repo.ErrNotInitialised, repo.ErrNotInitialised, 1},
		{"another", &another, first, nil, nil, nil, 1},
		{"another and absent", &another, second, nil, nil, ErrAbsent, 1},
		{"none", nil, first, nil, nil, nil, 1},
		{"outage", s.Repository, first, down, nil, outage, 0},
	} {
		s.store.get = c.get
		opens := 0
		open := func(context.Context) (*repo.Repository, error) {
			opens++
			if c.opened != nil {
				return nil, errors.Join(ErrRefused, c.opened)
			}
			return s.Repository, nil
		}
		ctx, cancel := context.WithCancel(t.Context())
		if c.get != nil {
			cancel() // after the first try
		}
		path := filepath.Join(s.dir, "RECOVERYXLOG")
		err := Fetch(ctx, open, parse(t, c.file), path, FetchOptions{
			SystemID: cluster, Log: quiet, Remembered: func(context.Context) *repo.Repository { return c.remembered },
		})
		cancel()
		if !errors.Is(err, c.want) || c.want == nil && err != nil || errors.Is(err, ErrAbsent) != errors.Is(c.want, ErrAbsent) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if opens != c.opens {
			t.Errorf("%s: the repository was opened %d times", c.name, opens)
		}
		if _, statErr := os.Lstat(path); (statErr == nil) != (err == nil) {
			t.Errorf("%s: %v, and at the destination: %v", c.name, err, statErr)
		}
		_ = os.Remove(path)
	}
}
