package postgres

import (
	"strings"
	"testing"
)

func TestConnectKeepsSecrets(t *testing.T) { // fault 53
	for _, conninfo := range []string{
		"host=/nowhere password=hunter2 port=none",
		"host=/nowhere PASSWORD='hunter2 port=1",
		"postgres://u:hunter2@/nowhere:none/",
		"postgresql://u:hunter2@[::1/db?sslmode=nonsense",
		"host=/nowhere sslpassword=hunter2 sslmode=nonsense",
		"host=/nowhere password=hunter2",
		"postgres://u:hunter2@%2Fnowhere/db",
	} {
		_, err := Connect(t.Context(), conninfo)
		if err == nil || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("%s: the error is %v", conninfo, err)
		}
	}
	_, err := Connect(t.Context(), "host=/nowhere port=none")
	if err == nil || !strings.Contains(err.Error(), "port") {
		t.Errorf("without a secret the error doesn't say what is wrong: %v", err)
	}
}

func TestVersionString(t *testing.T) {
	for num, want := range map[int]string{150018: "15.18", 180006: "18.6", 140000: "14.0", 90624: "9.6.24"} {
		if got := VersionString(num); got != want {
			t.Errorf("VersionString(%d) = %s, want %s", num, got, want)
		}
	}
}

func TestNumber(t *testing.T) {
	for text, want := range map[string]bool{"0": true, "4294967295": true, "4294967296": false, "-1": false, "": false, "1.0": false} {
		if _, err := number[uint32]([]byte(text)); (err == nil) != want {
			t.Errorf("number(%q): %v", text, err)
		}
	}
	// A system identifier above 2^63 is shown as a negative number.
	if id, err := systemID([]byte("-1")); err != nil || id != 1<<64-1 {
		t.Errorf("systemID(-1) = %d, %v", id, err)
	}
}

func TestFullXID(t *testing.T) {
	for _, c := range []struct {
		next uint64
		xid  uint32
		want uint64
	}{
		{800, 799, 799},
		{800, 900, 900},
		{7<<32 + 800, 799, 7<<32 + 799},
		{7<<32 + 10, 1<<32 - 5, 7<<32 - 5}, // of the epoch before
		{7<<32 - 5, 10, 7<<32 + 10},
	} {
		if got := fullXID(c.next, c.xid); got != c.want {
			t.Errorf("next %d, xid %d: %d, want %d", c.next, c.xid, got, c.want)
		}
	}
}
