package backup

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/walship/walship/pkg/pgdata"
	"github.com/walship/walship/pkg/wal"
)

// wrongPrimary is a server that can't end a segment for a standby.
type wrongPrimary struct{}

var errWrongPrimary = errors.New("a standby itself")

func (wrongPrimary) CheckPrimary(context.Context, uint64) error         { return errWrongPrimary }
func (wrongPrimary) SwitchWAL(context.Context, uint64) (wal.LSN, error) { return 0, errWrongPrimary }

// TestWrongPrimary: it is found before the backup begins, and only a standby
// needs one.
func TestWrongPrimary(t *testing.T) {
	for _, standby := range []bool{true, false} {
		s := newSite(t)
		s.archiveWAL(t, 6, 7)
		s.server.facts.InRecovery = standby
		var log strings.Builder
		deps := Deps{Repository: s.repository, Server: s.server, Primary: wrongPrimary{}, Log: slog.New(slog.NewTextHandler(&log, nil)), Version: "test", Host: "db1"}
		if _, err := Push(t.Context(), deps, s.options); errors.Is(err, errWrongPrimary) != standby || (err != nil) != standby {
			t.Errorf("of a standby (%v): %v", standby, err)
		}
		if said := strings.Contains(log.String(), "--primary isn't used"); said == standby {
			t.Errorf("of a standby (%v) the log says\n%s", standby, &log)
		}
		for info, err := range s.repository.Store.List(t.Context(), "", "") {
			if standby && (err != nil || strings.Contains(info.Key, "/parts/")) {
				t.Errorf("there is %s (%v)", info.Key, err)
			}
		}
	}
}

// TestStandbysEnd is rule 23: what the control file, copied last, must say.
func TestStandbysEnd(t *testing.T) {
	good := pgdata.ControlFile{State: pgdata.StateInArchiveRecovery, MinRecoveryPoint: 0x2000, MinRecoveryTimeline: 3}
	for want, change := range map[string]func(*pgdata.ControlFile){
		"":                           func(*pgdata.ControlFile) {},
		"was promoted":               func(c *pgdata.ControlFile) { c.State = pgdata.StateInProduction }, // fault 39
		"timeline 4 during":          func(c *pgdata.ControlFile) { c.MinRecoveryTimeline = 4 },
		"consistent from 0/1000 on":  func(c *pgdata.ControlFile) { c.MinRecoveryPoint = 0x1000 },
		"consistent from 0/30001 on": func(c *pgdata.ControlFile) { c.MinRecoveryPoint = 0x30001 },
	} {
		r := &run{}
		r.record.Standby, r.record.Timeline, r.record.StartLSN, r.record.StopLSN = true, 3, 0x1000, 0x30000
		control := good
		change(&control)
		err := r.settleEnd(control)
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("the error is %v, want %q", err, want)
		}
	}
}
