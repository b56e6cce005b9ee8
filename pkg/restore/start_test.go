package restore

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/walship/walship/pkg/postgres"
)

// TestPatience: a server that can't be asked is waited for as long as its log
// grows, and given up when that has stopped for long enough.
func TestPatience(t *testing.T) {
	dir := t.TempDir()
	log := filepath.Join(dir, "server.log")
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		const between, lines = DefaultPatience - time.Second, 3
		go func() {
			for range lines {
				time.Sleep(between)
				file, err := os.OpenFile(log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
				if err != nil {
					t.Error(err)
					return
				}
				if _, err = file.WriteString("LOG:  restored log file\n"); err != nil {
					t.Error(err)
				}
				if err := file.Close(); err != nil {
					t.Error(err)
				}
			}
		}()
		w := &waiting{
			plan:    &Plan{Directory: dir},
			started: &Started{Log: log, server: &postgres.PrivateServer{Socket: filepath.Join(dir, "none")}},
			options: StartOptions{Users: []string{"postgres"}, Patience: DefaultPatience},
			moved:   began,
		}
		err := w.wait(t.Context())
		if err == nil || !strings.Contains(err.Error(), "nothing has moved for 5m0s") || !strings.Contains(err.Error(), "restored log file") {
			t.Errorf("given up with %v", err)
		}
		took, want := time.Since(began), lines*between+DefaultPatience
		if took < want || took > want+3*pollInterval {
			t.Errorf("given up after %s, want %s", took, want)
		}
	})
}
