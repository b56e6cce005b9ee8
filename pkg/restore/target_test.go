package restore

import (
	"errors"
	"strings"
	"testing"
	"time"
)

func TestParseTime(t *testing.T) {
	berlin, err := time.LoadLocation("Europe/Berlin")
	if err != nil {
		berlin = time.FixedZone("CET", 3600)
	}
	for _, c := range []struct{ in, want string }{
		{"2026-11-20T14:25:00Z", "2026-11-20 14:25:00+00"},
		{"2026-11-20t14:25:00z", "2026-11-20 14:25:00+00"},
		{"2026-11-20 14:25:00+01", "2026-11-20 13:25:00+00"},
		{"2026-11-20 14:25:00.123456+01:00", "2026-11-20 13:25:00.123456+00"},
		{"2026-11-20 14:25:00.5 UTC", "2026-11-20 14:25:00.5+00"},
		{"2026-11-20 14:25 GMT", "2026-11-20 14:25:00+00"},
		{"2026-11-20T14:25:00-0930", "2026-11-20 23:55:00+00"},
		{"2026-11-20 23:30:00-03:30", "2026-11-21 03:00:00+00"},
		{" 2026-11-20 14:25:00+00 ", "2026-11-20 14:25:00+00"},
	} {
		// The zone of this machine must not matter to a time that has one.
		for _, local := range []*time.Location{time.UTC, berlin, time.FixedZone("west", -8*3600)} {
			got, err := ParseTime(c.in, local)
			if err != nil {
				t.Errorf("ParseTime(%q): %v", c.in, err)
				continue
			}
			if FormatTime(got) != c.want {
				t.Errorf("ParseTime(%q) = %s, want %s", c.in, FormatTime(got), c.want)
			}
			again, err := ParseTime(FormatTime(got), local)
			if err != nil || !again.Equal(got) {
				t.Errorf("ParseTime(FormatTime(%s)) = %s, %v", got, again, err)
			}
		}
	}
}

func TestParseTimeRefuses(t *testing.T) {
	for _, in := range []string{
		"", "now", "yesterday", "2026-11-20", "2026-11-20 14", "14:25:00Z", "2026-02-30 10:00:00Z",
		"2026-11-20 14:25:00 CET", "2026-11-20 14:25:00 Europe/Berlin", "2026-11-20 14:25:00+1", "2026-11-20 14:25:00+16",
		"2026-11-20 14:25:00+01:75", "2026-11-20 14:25:00,5Z", "2026-11-20 14:25:00.1234567Z", "2026-11-20 14:25:00Z tail",
		"2026-11-20 24:00:01Z", "20261120T142500Z", "1700000000",
	} {
		got, err := ParseTime(in, time.UTC)
		var usage *UsageError
		if !errors.As(err, &usage) {
			t.Errorf("ParseTime(%q) = %v, %v; want a usage error", in, got, err)
		}
	}
}

// TestZonelessTime is fault 42: both readings are shown.
func TestZonelessTime(t *testing.T) {
	for _, c := range []struct {
		zone *time.Location
		want []string
	}{
		{time.UTC, []string{"2026-11-20 14:25:00+00"}},
		{time.FixedZone("CET", 3600), []string{"2026-11-20 14:25:00+00", "2026-11-20 13:25:00+00", "+01:00"}},
		{time.FixedZone("NST", -12600), []string{"2026-11-20 14:25:00+00", "2026-11-20 17:55:00+00", "-03:30"}},
	} {
		for _, in := range []string{"2026-11-20 14:25:00", "2026-11-20T14:25", "2026-11-20T14:25:00"} {
			_, err := ParseTime(in, c.zone)
			var usage *UsageError
			if !errors.As(err, &usage) {
				t.Fatalf("ParseTime(%q) in %s: %v; want a usage error", in, c.zone, err)
			}
			for _, want := range c.want {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("ParseTime(%q) in %s: %q doesn't show %q", in, c.zone, err, want)
				}
			}
		}
	}
}

func TestTargetValidate(t *testing.T) {
	moment := time.Date(2026, 11, 20, 14, 25, 0, 0, time.UTC)
	for _, c := range []struct {
		target Target
		ok     bool
	}{
		{Target{Kind: TargetLatest}, true},
		{Target{Kind: TargetLatest, Exclusive: true}, false},
		{Target{Kind: TargetImmediate}, true},
		{Target{Kind: TargetImmediate, Exclusive: true}, false},
		{Target{Kind: TargetTime, Time: moment, Exclusive: true}, true},
		{Target{Kind: TargetTime}, false},
		{Target{Kind: TargetLSN, LSN: 0x3000028}, true},
		{Target{Kind: TargetLSN}, false},
		{Target{Kind: TargetXID, XID: 3}, true},
		{Target{Kind: TargetXID, XID: 2}, false},
		{Target{Kind: TargetXID, XID: 1<<32 + 2}, false},
		{Target{Kind: TargetName, Name: "before the release"}, true},
		{Target{Kind: TargetName, Name: "before", Exclusive: true}, false},
		{Target{Kind: TargetName, Name: strings.Repeat("n", 64)}, false},
		{Target{Kind: TargetName, Name: "a\nb"}, false},
		{Target{Kind: TargetName}, false},
		{Target{}, false},
	} {
		if err := c.target.Validate(); (err == nil) != c.ok {
			t.Errorf("%+v: %v", c.target, err)
		}
	}
}
