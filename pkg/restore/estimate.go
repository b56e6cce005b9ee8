package restore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"time"

	"github.com/walship/walship/pkg/durable"
	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/wal"
)

// Estimate says how long a restore takes, by what was measured. What nothing has
// measured is nil.
type Estimate struct {
	Files    *Measure `json:"files"`    // putting the files in their places, with the download
	Download *Measure `json:"download"` // the download alone, in one stream
	Replay   *Measure `json:"replay"`   // replaying the WAL
}

// Measure is how long something takes that has so many bytes, if it goes as fast
// as Sample bytes did, at another time.
type Measure struct {
	Bytes      int64     `json:"bytes"`
	Seconds    float64   `json:"seconds"`
	Rate       float64   `json:"rate"`        // bytes per second
	MeasuredBy string    `json:"measured_by"` // one of the constants below
	Backup     string    `json:"backup,omitempty"`
	MeasuredAt time.Time `json:"measured_at"`
	Sample     int64     `json:"sample"` // bytes
}

// What has measured a rate.
const (
	ByBackup  = "backup"  // the full backup of the chain, when it was taken
	ByRestore = "restore" // the last restore on this host of this cluster
	ByProbe   = "probe"   // reading a little of the backup and of the WAL, just now
)

// Duration is the estimated time.
func (m *Measure) Duration() time.Duration { return time.Duration(m.Seconds * float64(time.Second)) }

// Rate is what a restore, or a probe, has measured.
type Rate struct {
	Bytes   int64     `json:"bytes"`
	Seconds float64   `json:"seconds"`
	At      time.Time `json:"at"`
}

func rateOf(bytes int64, took time.Duration, at time.Time) *Rate {
	if bytes <= 0 || took <= 0 {
		return nil
	}
	return &Rate{bytes, took.Seconds(), at.UTC()}
}

// measure is how long so many bytes take at the rate; nil if there is none.
func (r *Rate) measure(bytes int64, by string) *Measure {
	if r == nil || !(r.Bytes > 0 && r.Seconds > 0) {
		return nil
	}
	rate := float64(r.Bytes) / r.Seconds
	return &Measure{Bytes: bytes, Seconds: float64(bytes) / rate, Rate: rate, MeasuredBy: by, MeasuredAt: r.At, Sample: r.Bytes}
}

// Rates are what restores of a cluster on this host have measured: nil what none
// has.
type Rates struct {
	Files  *Rate `json:"files"`  // of all files
	Replay *Rate `json:"replay"` // of WAL, with the time that the server takes to start
}

// ratesName is the file that remembers Rates.
const ratesName = "rates.json"

// ReadRates reads what restores have measured from a private folder. What isn't
// there, or can't be understood, is as if nothing had been measured.
func ReadRates(root *os.Root) (Rates, error) {
	var r Rates
	data, err := readFile(root, ratesName)
	if errors.Is(err, fs.ErrNotExist) {
		return r, nil
	}
	if err != nil {
		return r, fmt.Errorf("read %s: %w", ratesName, err)
	}
	if json.Unmarshal(data, &r) != nil {
		return Rates{}, nil
	}
	return r, nil
}

// Remember adds to the rates in a private folder what a restore has measured.
// started may be nil.
func (r *Result) Remember(root *os.Root, started *Started) error {
	rates, err := ReadRates(root)
	if err != nil {
		return err
	}
	if r.files == nil && (started == nil || started.replay == nil) {
		return nil
	}
	if r.files != nil {
		rates.Files = r.files
	}
	if started != nil && started.replay != nil {
		rates.Replay = started.replay
	}
	data, err := json.Marshal(rates)
	if err == nil {
		err = durable.WriteFile(root, ratesName, append(data, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("remember how fast the restore was: %w", err)
	}
	return nil
}

// UseRates makes the estimate go by restores on this host, which is nearer to
// the truth than the speed of the backup.
func (p *Plan) UseRates(r Rates) {
	if m := r.Files.measure(p.plainSize(), ByRestore); m != nil {
		p.Estimate.Files = m
	}
	p.Estimate.Replay = r.Replay.measure(p.WAL.ReplaySize, ByRestore)
}

// plainSize is the size of all files of the chain.
func (p *Plan) plainSize() (size int64) {
	for _, b := range p.chain {
		size += b.PlainSize
	}
	return size
}

// estimate goes by the full backup of the chain: only that one read every file
// that it stored.
func (p *Plan) estimate() *Estimate {
	full := p.chain[0]
	m := rateOf(full.PlainSize, full.StopTime.Sub(full.StartTime), full.StopTime).measure(p.plainSize(), ByBackup)
	if m != nil {
		m.Backup = full.ID
	}
	return &Estimate{Files: m}
}

// The bounds of a probe, of both of its objects together.
const (
	probeSize    = 8 << 20
	probeTimeout = 2 * time.Second
)

// Probe reads a little of the backup's largest part and of the WAL, at most 8
// MiB in two requests and 2 seconds, and has the estimate of the download go by
// that. What it reads isn't verified.
func (p *Plan) Probe(ctx context.Context, r *repo.Repository) error {
	bounded, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	begun, read := time.Now(), int64(0)
	for _, key := range p.probed(r) {
		n, err := probe(bounded, r, key, (probeSize-read)/2)
		read += n
		if bounded.Err() != nil {
			break
		}
		if err != nil {
			return fmt.Errorf("probe how fast the storage is: %w", err)
		}
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	p.Estimate.Download = rateOf(read, time.Since(begun), begun).measure(p.DownloadSize, ByProbe)
	return nil
}

// probed are the keys of a part and of a segment that the restore reads.
func (p *Plan) probed(r *repo.Repository) (keys []string) {
	if parts := p.record.Parts; len(parts) > 0 {
		keys = append(keys, parts[largestFirst(parts)[0]].Key)
	}
	if name, err := wal.ParseFileName(p.WAL.First); err == nil && p.WAL.StoredSize > 0 {
		keys = append(keys, r.FileKey(p.SystemID, name))
	}
	return keys
}

func probe(ctx context.Context, r *repo.Repository, key string, most int64) (int64, error) {
	body, _, err := r.Store.Get(ctx, key, 0, most)
	if err != nil {
		return 0, err
	}
	n, err := io.Copy(io.Discard, io.LimitReader(body, most))
	return n, errors.Join(err, body.Close())
}
