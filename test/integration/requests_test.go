//go:build integration

package integration

import (
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/walship/walship/test/pgtest"
	"github.com/walship/walship/test/s3test"
)

// TestRequests counts at the server what single calls ask for.
func TestRequests(t *testing.T) {
	t.Parallel()
	counter, server := newCounter(t, s3test.Start(t, s3test.VersityGW))
	site := newSite(t, 15, siteOptions{server: server, encrypted: true, cluster: []pgtest.Option{pgtest.Set("wal_keep_size", "1GB")}})
	name := site.cluster.SwitchWAL(t)
	site.cluster.WaitArchived(t, name)
	site.cluster.Stop(t, pgtest.Fast)

	const missing = "0000000F0000000000000001"
	path := filepath.Join("pg_wal", name)
	forget := func() {
		if err := os.RemoveAll(filepath.Join(site.dir, "state")); err != nil {
			t.Fatal(err)
		}
	}
	forget()
	for _, call := range []struct {
		what   string
		args   []string
		forget bool
		code   int
		want   map[string]int
	}{
		{"push of what is there", []string{"wal", "push", path}, false, 0, map[string]int{"repository.json": 1, "PUT": 1, name: 1}},
		{"push of it once more", []string{"wal", "push", path}, false, 0, map[string]int{name: 1}},
		{"first fetch", []string{"wal", "fetch", name, "pg_wal/fetched"}, true, 0, map[string]int{"repository.json": 1, name: 1}},
		{"next fetch", []string{"wal", "fetch", name, "pg_wal/fetched"}, false, 0, map[string]int{name: 1}},
		{"miss", []string{"wal", "fetch", missing, "pg_wal/fetched"}, false, 1, map[string]int{"repository.json": 1, missing: 1}},
		{"first miss", []string{"wal", "fetch", missing, "pg_wal/fetched"}, true, 1, map[string]int{"repository.json": 1, missing: 1}},
	} {
		if call.forget {
			forget()
		}
		counter.reset()
		result := site.try(t, call.args...)
		if got := counter.all(); result.Code != call.code || !maps.Equal(got, call.want) {
			t.Errorf("%s: exit code %d, requests %v; want %d, %v\n%s", call.what, result.Code, got, call.code, call.want, result.Stderr)
		}
	}
	sameContent(t, filepath.Join(site.cluster.DataDir, path), filepath.Join(site.cluster.DataDir, "pg_wal", "fetched"))
}
