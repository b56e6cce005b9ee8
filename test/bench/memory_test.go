//go:build bench

package bench

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// marker is set in the environment of everything that PostgreSQL starts, and
// passed on to what has detached itself from its parent. Another benchmark's
// processes have another one.
func marker() string { return "WALSHIP_TEST_BENCH=" + strconv.Itoa(os.Getpid()) }

// footprint is the memory of all processes of a contestant together, in bytes.
type footprint struct {
	shared int64 // proportional set sizes: what several share is counted once
	most   int64 // sum of each process's own high-water mark: an upper bound
}

// sampler takes footprints, several a second, and keeps the largest.
type sampler struct {
	stop chan struct{}
	peak chan footprint
}

func startSampler() *sampler {
	s := &sampler{make(chan struct{}), make(chan footprint)}
	go func() {
		var peak footprint
		tick := time.NewTicker(10 * time.Millisecond)
		defer tick.Stop()
		for {
			now := footprintNow()
			peak.shared, peak.most = max(peak.shared, now.shared), max(peak.most, now.most)
			select {
			case <-tick.C:
			case <-s.stop:
				s.peak <- peak
				return
			}
		}
	}()
	return s
}

// end stops sampling and returns the peak. The nil sampler has none.
func (s *sampler) end() footprint {
	if s == nil {
		return footprint{}
	}
	close(s.stop)
	return <-s.peak
}

func footprintNow() footprint {
	var sum footprint
	for _, dir := range marked() {
		sum.shared += kilobytes(filepath.Join(dir, "smaps_rollup"), "Pss:")
		sum.most += kilobytes(filepath.Join(dir, "status"), "VmHWM:")
	}
	return sum
}

// marked lists the processes that PostgreSQL's commands are, as directories in
// /proc: those with the marker that aren't PostgreSQL's own.
func marked() []string {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return nil
	}
	own := marker()
	var found []string
	for _, entry := range entries {
		if _, err := strconv.Atoi(entry.Name()); err != nil {
			continue
		}
		dir := filepath.Join("/proc", entry.Name())
		// A process that has just ended can't be read, and isn't counted.
		environment, err := os.ReadFile(filepath.Join(dir, "environ"))
		if err != nil || !slices.ContainsFunc(bytes.Split(environment, []byte{0}), func(v []byte) bool { return string(v) == own }) {
			continue
		}
		program, err := os.Readlink(filepath.Join(dir, "exe"))
		if err == nil && filepath.Base(program) != "postgres" {
			found = append(found, dir)
		}
	}
	return found
}

// kilobytes reads one line of a file in /proc, in bytes; 0 if the process has
// ended.
func kilobytes(path, label string) int64 {
	text, err := os.ReadFile(path)
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if fields := strings.Fields(line); len(fields) >= 2 && fields[0] == label {
			value, _ := strconv.ParseInt(fields[1], 10, 64) // the kernel writes numbers
			return value << 10
		}
	}
	return 0
}
