//go:build integration

package s3

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/walship/walship/pkg/storage"
	"github.com/walship/walship/pkg/storage/storagetest"
	"github.com/walship/walship/test/s3test"
)

// TestRealServers holds the store to the contract on servers of two makes
// (fault 24).
func TestRealServers(t *testing.T) {
	for _, server := range s3test.Makes() {
		t.Run(string(server), func(t *testing.T) {
			s := s3test.Start(t, server)
			s.SetEnv(t)
			var stores atomic.Int32
			open := func(t *testing.T) storage.Store {
				store, err := Open(t.Context(), s.URL(fmt.Sprintf("store/%d", stores.Add(1)))+"&part_size=5MB")
				if err != nil {
					t.Fatal(err)
				}
				return store
			}
			options := []storagetest.Option{storagetest.LargeBody(12 << 20), storagetest.Abandon(abandon)}
			storagetest.Run(t, open, options...)
		})
	}
}
