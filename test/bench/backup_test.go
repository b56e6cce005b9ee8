//go:build bench

package bench

import "testing"

func TestSample(t *testing.T) {
	s := newSample(t.Context(), t, 2)
	t.Log(s.cluster.SQL(t, "SELECT sum(pg_database_size(oid))/1e9 FROM pg_database"), s.tablespaces)
}
