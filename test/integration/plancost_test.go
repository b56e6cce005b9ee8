//go:build integration

package integration

import (
	"strings"
	"testing"

	"github.com/walship/walship/test/pgtest"
	"github.com/walship/walship/test/s3test"
)

// TestPlanRequests counts at the server what a plan asks for, along WAL that a
// later backup has rolled up, and before that one was taken.
func TestPlanRequests(t *testing.T) {
	t.Parallel()
	counter, server := newCounter(t, s3test.Start(t, s3test.VersityGW))
	site := newSite(t, 15, siteOptions{server: server, encrypted: true, cluster: []pgtest.Option{pgtest.SegmentSize(1)}})
	first := site.backup(t, site.cluster)
	site.cluster.Exec(t, `DO $$ BEGIN FOR i IN 1 .. 80 LOOP
		PERFORM pg_logical_emit_message(false, 'walship', 'a segment'), pg_switch_wal();
	END LOOP; END $$`)
	site.cluster.Archive(t)
	plan := func() int {
		counter.reset()
		site.walship(t, "restore", "plan", "--backup", first, "--to-latest")
		requests := 0
		for _, n := range counter.all() {
			requests += n
		}
		return requests
	}
	before := plan()
	result := site.try(t, "backup", "push")
	if result.Code != 0 || !strings.Contains(result.Stderr, "roll-ups of the archived WAL are written") {
		t.Errorf("backup push: exit code %d\n%s", result.Code, result.Stderr)
	}
	if after := plan(); before < 80 || after > before/2 {
		t.Errorf("a plan over 80 segments takes %d requests, %d before they were rolled up", after, before)
	} else {
		t.Logf("a plan over 80 segments takes %d requests, %d before they were rolled up", after, before)
	}
}
