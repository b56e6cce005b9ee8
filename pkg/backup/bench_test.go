package backup

import (
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/walship/walship/pkg/compress"
	"github.com/walship/walship/pkg/crypto"
	"github.com/walship/walship/pkg/pgdata"
	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/storage"
)

// forgetful is a store that takes parts without keeping them.
type forgetful struct{ storage.Store }

func (s forgetful) Put(ctx context.Context, key string, body io.Reader) (storage.Info, error) {
	if !strings.Contains(key, "/parts/") {
		return s.Store.Put(ctx, key, body)
	}
	n, err := io.Copy(io.Discard, body)
	return storage.Info{Key: key, Size: n}, err
}

// BenchmarkPush takes a backup of the relations of a real cluster, which
// $WALSHIP_BENCH_DATA names, or of some made-up ones, with two workers, and
// stores it nowhere.
func BenchmarkPush(b *testing.B) {
	for _, level := range []compress.Level{compress.Fastest, compress.Default} {
		b.Run(level.String(), func(b *testing.B) {
			s := newSite(b)
			useChecksums(b, s)
			size := fill(b, s)
			s.options.Checksums = pgdata.ChecksumCRC32C
			s.archiveWAL(b, 6, 7)
			_, recipient, err := crypto.NewIdentity(false)
			if err != nil {
				b.Fatal(err)
			}
			recipients, err := crypto.ParseRecipients([]string{recipient})
			if err != nil {
				b.Fatal(err)
			}
			info := repo.Info{Format: repo.Format, ID: s.repository.Info.ID, Created: s.repository.Info.Created, Encryption: "age"}
			b.SetBytes(size)
			b.ReportAllocs()
			before, rounds := processorTime(b), 0
			for b.Loop() {
				rounds++
				repository, err := repo.New(forgetful{s.store}, info, repo.Keys{Recipients: recipients, Level: level})
				if err != nil {
					b.Fatal(err)
				}
				r, err := prepare(Deps{Repository: repository, Server: s.server, Log: discard(), Version: "test", Host: "db1"}, s.options, s.server.facts)
				if err != nil {
					b.Fatal(err)
				}
				if err := r.start(b.Context()); err != nil {
					b.Fatal(err)
				}
				listing := r.list(b.Context())
				if err := r.putParts(b.Context(), listing); err != nil {
					b.Fatal(err)
				}
				listing.close()
				b.ReportMetric(float64(r.progress.stored.Load())/float64(size), "stored/byte")
				r.close()
			}
			b.ReportMetric((processorTime(b)-before).Seconds()/float64(rounds), "cpu-s/op")
		})
	}
}

// processorTime is what the process has used, in user and system mode: it says
// more than the clock does where other things run on the machine.
func processorTime(b *testing.B) time.Duration {
	b.Helper()
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// fill puts relations into the data directory and returns their size.
func fill(b *testing.B, s *site) (size int64) {
	b.Helper()
	source := os.Getenv("WALSHIP_BENCH_DATA")
	if source == "" {
		for i := range 16 {
			content := pagesFrom(0, 1024)
			writePages(b, s, fmt.Sprintf("base/1/%d", 4000+i), content)
			size += int64(len(content))
		}
		return size
	}
	dirs := map[string]string{}
	err := filepath.WalkDir(source, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || !entry.Type().IsRegular() || strings.Contains(path, "/pg_wal/") || entry.Name()[0] < '1' || entry.Name()[0] > '9' {
			return err
		}
		info, err := entry.Info()
		if err != nil {
			return err
		}
		dir, known := dirs[filepath.Dir(path)]
		if !known {
			dir = filepath.Join(s.dir, "base", fmt.Sprint(10+len(dirs)))
			dirs[filepath.Dir(path)] = dir
			if err := os.Mkdir(dir, 0o700); err != nil {
				return err
			}
		}
		size += info.Size()
		return os.Link(path, filepath.Join(dir, entry.Name()))
	})
	if err != nil {
		b.Fatal(err)
	}
	return size
}
