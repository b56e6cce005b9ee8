//go:build integration

package integration

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/walship/walship/pkg/wal"
)

// oracleChoice is one of the timelines that a plan asks for.
type oracleChoice struct {
	Timeline wal.TimelineID
	LastIn   *oracleEnding `json:"last_in"`
	EndsAt   wal.LSN       `json:"ends_at_lsn"`
}

// branchOutcome is what recovery to a target on one timeline ends with: the last
// commit, and what is left prepared.
type branchOutcome struct {
	last     wal.LSN
	timeline wal.TimelineID
	prepared string
}

// outcomesOf follows the way to each timeline to the target, and returns what
// that ends with where it is reached: an outcome that several have is one. A
// stop that the latest timeline's way has, too, is no other outcome than its own.
func (c *chooser) outcomesOf(t *testing.T, target oracleTarget) map[branchOutcome][]wal.TimelineID {
	t.Helper()
	found := map[branchOutcome][]wal.TimelineID{}
	latest := c.paths[c.facts.Timelines]
	onLatest := c.stopOn(t, c.facts.Timelines, target)
	for timeline := wal.TimelineID(1); timeline <= c.facts.Timelines; timeline++ {
		path, stop := c.paths[timeline], c.stopOn(t, timeline, target)
		if stop < 0 || onLatest >= 0 && path[stop] != latest[onLatest] && slices.Contains(latest, path[stop]) {
			continue
		}
		if target.inclusive {
			stop++
		}
		o := outcomeOf(path[:stop])
		found[o] = append(found[o], timeline)
	}
	return found
}

// stopOn returns at which record of the way to a timeline recovery stops, if it
// begins with the newest backup from which it does; -1: none.
func (c *chooser) stopOn(t *testing.T, timeline wal.TimelineID, target oracleTarget) int {
	t.Helper()
	path, history := c.paths[timeline], c.history(t, timeline)
	newest := wal.LSN(0) // stop
	for _, r := range path {
		if target.stops(r) && (newest == 0 || target.setting == "recovery_target_name") {
			newest = r.End
		}
	}
	for _, b := range slices.Backward(c.all) {
		if b.StopLSN > newest || history.TimelineAt(b.StartLSN) != b.Timeline || history.TimelineAt(b.StopLSN-1) != b.Timeline {
			continue
		}
		stop := slices.IndexFunc(path, func(r oracleRecord) bool { return r.LSN >= b.StartLSN && target.stops(r) })
		if stop >= 0 && path[stop].End >= b.StopLSN && (target.inclusive || path[stop].LSN >= b.StopLSN) {
			return stop
		}
	}
	return -1
}

// stops tells whether recovery stops at a record, before or behind it.
func (o oracleTarget) stops(r oracleRecord) bool {
	switch o.setting {
	case "recovery_target_lsn":
		return r.LSN >= o.lsn
	case "recovery_target_xid":
		return r.Action != 0 && r.Action != wal.ActionPrepare && fmt.Sprint(r.XID) == o.value
	}
	return r.Name == o.value
}

func outcomeOf(path []oracleRecord) (o branchOutcome) {
	prepared := map[string]bool{}
	for _, r := range path {
		switch r.Action {
		case wal.ActionPrepare:
			prepared[fmt.Sprintf("%d at %s", r.XID, r.LSN)] = true
		case wal.ActionCommitPrepared, wal.ActionAbortPrepared:
			before := len(prepared)
			maps.DeleteFunc(prepared, func(p string, _ bool) bool { return strings.HasPrefix(p, fmt.Sprintf("%d at ", r.XID)) })
			if len(prepared) == before { // it was prepared before the oldest backup
				prepared[fmt.Sprintf("not %d", r.XID)] = true
			}
		}
		if r.commits() {
			o.last, o.timeline = r.LSN, r.Timeline
		}
	}
	o.prepared = strings.Join(slices.Sorted(maps.Keys(prepared)), ", ")
	return o
}

// tryBranches compares a plan for a target that names no timeline with what the
// timelines have: it asks if there are several outcomes, or one that isn't the latest's. Where one of the choices
// leads is compared with PostgreSQL, too.
func (c *chooser) tryBranches(t *testing.T, target oracleTarget) bool {
	t.Helper()
	target.flags, target.timeline, target.backup = target.flags[:slices.Index(target.flags, "--timeline")], "latest", ""
	plan, result := c.plan(t, target)
	outcomes := c.outcomesOf(t, target)
	var listed []wal.TimelineID
	for _, choice := range plan.Choices {
		listed = append(listed, choice.Timeline)
	}
	// It asks, too, where the latest timeline, which it is for, doesn't have the target.
	several := len(outcomes) > 1
	for _, timelines := range outcomes {
		several = several || !slices.Contains(timelines, plan.Timeline)
	}
	if asks := len(plan.Choices) > 0; asks != several || asks && result.Code != 4 {
		t.Errorf("the plan, for timeline %d, asks for one of %v (exit code %d), and the outcomes are %v", plan.Timeline, listed, result.Code, outcomes)
	}
	for outcome, timelines := range outcomes {
		chosen := slices.DeleteFunc(slices.Clone(listed), func(tli wal.TimelineID) bool { return !slices.Contains(timelines, tli) })
		if len(listed) > 0 && len(chosen) != 1 {
			t.Errorf("the plan asks for one of the timelines %v: %v of them lead to %v, want one", listed, chosen, outcome)
		}
	}
	if len(listed) == 0 {
		return c.try(t, target, false, false)
	}
	choice := plan.Choices[c.random.IntN(len(listed))]
	target.timeline = fmt.Sprint(uint32(choice.Timeline))
	target.flags = append(target.flags, "--timeline", target.timeline)
	chosen, _ := c.plan(t, target)
	if chosen.EndsAt != choice.EndsAt || (chosen.LastIn == nil) != (choice.LastIn == nil) || chosen.LastIn != nil && *chosen.LastIn != *choice.LastIn {
		t.Errorf("the choice %+v leads to %+v, %s", choice, chosen.LastIn, chosen.EndsAt)
	}
	return c.try(t, target, false, false)
}
