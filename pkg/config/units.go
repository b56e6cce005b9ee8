package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Duration is a time with one of PostgreSQL's units: us, ms, s, min, h, d.
type Duration struct{ time.Duration }

// unit is a suffix and what it multiplies by.
type unit struct {
	suffix string
	factor int64
}

// The units as in src/backend/utils/misc/guc.c, largest first.
func durationUnits() []unit {
	return []unit{
		{"d", int64(24 * time.Hour)}, {"h", int64(time.Hour)}, {"min", int64(time.Minute)},
		{"s", int64(time.Second)}, {"ms", int64(time.Millisecond)}, {"us", int64(time.Microsecond)},
	}
}

func sizeUnits() []unit {
	return []unit{{"TB", 1 << 40}, {"GB", 1 << 30}, {"MB", 1 << 20}, {"kB", 1 << 10}, {"B", 1}}
}

// UnmarshalText reads a whole number and a unit: "60s", "5 min".
func (d *Duration) UnmarshalText(text []byte) error {
	n, err := parseUnits(string(text), durationUnits(), false)
	if err != nil {
		return fmt.Errorf("%q is not a time: write a whole number and one of us, ms, s, min, h, d", text)
	}
	d.Duration = time.Duration(n)
	return nil
}

// String writes the number with the largest unit that keeps it whole.
func (d Duration) String() string { return formatUnits(int64(d.Duration), durationUnits(), "0s") }

// Size is a number of bytes with one of PostgreSQL's units, which are powers
// of 1,024: B, kB, MB, GB, TB.
type Size int64

// UnmarshalText reads a whole number of bytes, or one with a unit: "50MB".
func (s *Size) UnmarshalText(text []byte) error {
	n, err := parseUnits(string(text), sizeUnits(), true)
	if err != nil {
		return fmt.Errorf("%q is not a size: write a whole number and one of B, kB, MB, GB, TB", text)
	}
	*s = Size(n)
	return nil
}

// String writes the number with the largest unit that keeps it whole.
func (s Size) String() string { return formatUnits(int64(s), sizeUnits(), "0") }

// parseUnits reads a whole number that isn't negative, blanks and a unit.
// Plain numbers are in the smallest unit, where they are allowed.
func parseUnits(text string, units []unit, plain bool) (int64, error) {
	text = strings.TrimSpace(text)
	end := 0
	for end < len(text) && '0' <= text[end] && text[end] <= '9' {
		end++
	}
	n, err := strconv.ParseInt(text[:end], 10, 64)
	if err != nil {
		return 0, err
	}
	suffix := strings.TrimSpace(text[end:])
	if suffix == "" && (plain || n == 0) {
		return n, nil
	}
	for _, u := range units {
		if u.suffix == suffix {
			if n > math.MaxInt64/u.factor {
				return 0, strconv.ErrRange
			}
			return n * u.factor, nil
		}
	}
	return 0, strconv.ErrSyntax
}

func formatUnits(n int64, units []unit, zero string) string {
	if n == 0 {
		return zero
	}
	for _, u := range units {
		if n%u.factor == 0 {
			return strconv.FormatInt(n/u.factor, 10) + u.suffix
		}
	}
	return strconv.FormatInt(n, 10) + units[len(units)-1].suffix
}
