package restore

import (
	"errors"
	"io/fs"
	"os"
	"testing"
)

// TestExportWithoutRecovery: what is exported starts as it is, also if the
// original was a standby or in a recovery of its own.
func TestExportWithoutRecovery(t *testing.T) {
	r, work := makeRepository(), t.TempDir()
	b := smallBackup()
	b.add(file("recovery.signal", ""))
	b.list()
	b.commit(t, r)
	q := Request{Backup: b.record.ID, Target: Target{Kind: TargetImmediate}, Timeline: TimelineCurrent, Export: true, Directory: work + "/data", Tablespaces: map[string]string{"16400": work + "/fast"}}
	p, err := MakePlan(t.Context(), Of(r), q)
	if err != nil {
		t.Fatal(err)
	}
	if err := Export(t.Context(), r, p, Options{Log: discard}); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"standby.signal", "recovery.signal"} {
		if _, err := os.Lstat(q.Directory + "/" + name); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is there (%v)", name, err)
		}
	}
}
