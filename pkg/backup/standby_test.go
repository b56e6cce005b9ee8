package backup

import (
	"strings"
	"testing"

	"github.com/walship/walship/pkg/pgdata"
)

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
