package restore

import (
	"context"
	"strings"
	"testing"
)

// commitLog are the xids that are committed; 0: the server has forgotten.
type commitLog map[uint32]bool

func (l commitLog) Committed(_ context.Context, xid uint32) (committed, known bool, err error) {
	committed, known = l[xid]
	return committed, known, nil
}

// TestHoldCommits holds a server's commits against a plan's.
func TestHoldCommits(t *testing.T) {
	in, out := &Ending{Kind: "commit", XID: 800}, &Ending{Kind: "commit", XID: 801}
	for name, c := range map[string]struct {
		in, out *Ending
		state   string
		log     commitLog
		lastIn  bool
		differs string
	}{
		"as planned":             {in, out, StatePaused, commitLog{800: true, 801: false}, true, ""},
		"not in":                 {in, out, StatePaused, commitLog{800: false, 801: false}, false, "transaction 800 isn't committed"},
		"too far":                {in, out, StatePaused, commitLog{800: true, 801: true}, false, "transaction 801 is committed"},
		"nothing before":         {nil, out, StatePaused, commitLog{801: true}, false, "transaction 801 is committed"},
		"forgotten":              {in, nil, StatePaused, commitLog{}, false, ""},
		"promoted":               {in, out, StatePromoted, commitLog{800: true, 801: false}, true, ""},
		"promoted, xid in use":   {in, out, StatePromoted, commitLog{800: true, 801: true}, true, ""},
		"promoted too early":     {in, out, StatePromoted, commitLog{800: false, 801: false}, false, "transaction 800 isn't committed"},
		"the plan doesn't know":  {nil, nil, StatePaused, commitLog{}, false, ""},
		"the end of all the WAL": {in, nil, StatePromoted, commitLog{800: true}, true, ""},
	} {
		s := &Started{State: c.state, AsPromised: true}
		p := &Plan{Promise: Promise{LastIn: c.in, FirstOut: c.out}}
		if err := s.holdCommits(t.Context(), p, c.log); err != nil {
			t.Fatal(err)
		}
		said := strings.Join(s.Differences, "; ")
		if s.AsPromised != (c.differs == "") || !strings.HasPrefix(said, c.differs) || c.differs == "" && said != "" || (s.LastIn != nil) != c.lastIn {
			t.Errorf("%s: last in %v, differences %q, as promised %v", name, s.LastIn, said, s.AsPromised)
		}
	}
}

// TestStopWords: what the server says of its stop is held against the plan.
func TestStopWords(t *testing.T) {
	for _, c := range []struct {
		kind   TargetKind
		stop   *Stop
		said   string
		differ bool
	}{
		{TargetXID, &Stop{Kind: "commit", XID: 800}, "recovery stopping after commit of transaction 800, time 2026-11-21 00:51:07.9+00", false},
		{TargetXID, &Stop{Kind: "commit", XID: 800}, "recovery stopping after commit of transaction 8001, time 2026-11-21 00:51:07.9+00", true},
		{TargetXID, &Stop{Kind: "abort prepared", XID: 800, Before: true}, "recovery stopping before abort of transaction 800, time 2026-11-21 00:51:07.9+00", false},
		{TargetTime, &Stop{Kind: "commit", XID: 800, Before: true}, "recovery stopping after commit of transaction 800, time 2026-11-21 00:51:07.9+00", true},
		{TargetLSN, &Stop{Kind: "commit", XID: 800, Before: true}, `recovery stopping before WAL location (LSN) "0/5000100"`, false},
		{TargetTime, nil, "", false},
	} {
		p := &Plan{Target: PlannedTarget{Kind: c.kind}, Promise: Promise{Stop: c.stop}}
		w := &waiting{plan: p, started: &Started{Stopped: c.said, AsPromised: true}}
		w.holdWords()
		if w.started.AsPromised == c.differ {
			t.Errorf("%s, %+v, %q: %v", c.kind, c.stop, c.said, w.started.Differences)
		}
	}
}
