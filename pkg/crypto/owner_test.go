//go:build integration

package crypto_test

import (
	"os"
	"strings"
	"testing"

	"github.com/walship/walship/pkg/crypto"
)

// TestIdentityOwner needs root, to give a file away.
func TestIdentityOwner(t *testing.T) {
	file := write(t, newKeys(t, false, 1)[0].secret, 0o600)
	if err := os.Chown(file, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	if _, err := crypto.LoadIdentities([]string{file}, nil); err == nil || !strings.Contains(err.Error(), "belongs to user 65534") {
		t.Errorf("a file of somebody else: %v", err)
	}
}
