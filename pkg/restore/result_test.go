package restore

import (
	"os"
	"strings"
	"testing"
)

// TestNext holds what a user is told to do behind a restore; rule 29 for a
// server that pauses.
func TestNext(t *testing.T) {
	point := Target{Kind: TargetXID, XID: 800}
	host, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name    string
		host    string // of the backup
		request Request
		says    []string
		not     string
	}{
		{"pause", "other", Request{Target: point}, []string{"pg_wal_replay_resume()", "can be locked", "is a clone"}, "promotes"},
		{"promote", "other", Request{Target: point, Action: ActionPromote}, []string{"promotes itself"}, "locked"},
		{"shutdown", "other", Request{Target: point, Action: ActionShutdown}, []string{"shuts down", "recovery.signal"}, "locked"},
		{"latest", "other", Request{Target: Target{Kind: TargetLatest}}, []string{"at the end of the archived WAL"}, "locked"},
		{"beside the original", host, Request{Target: point}, []string{"give this server a port of its own"}, "archives as"},
		{"on another host", "other", Request{Target: point}, []string{"is a clone"}, "port of its own"},
		{"in the original's place", host, Request{Target: point, Replace: true}, []string{"never starts again"}, "port of its own"},
		{"replace", "other", Request{Target: point, Replace: true}, []string{"make sure that the original never starts again"}, "is a clone"},
	} {
		c.request.Directory = "/srv/restored"
		p, err := plan(t, threeDeep(), c.request)
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		p.record.Host = c.host
		next := strings.Join(p.result().Next, "\n")
		for _, want := range c.says {
			if !strings.Contains(next, want) {
				t.Errorf("%s: %q isn't said in\n%s", c.name, want, next)
			}
		}
		if strings.Contains(next, c.not) {
			t.Errorf("%s: %q is said in\n%s", c.name, c.not, next)
		}
	}
}
