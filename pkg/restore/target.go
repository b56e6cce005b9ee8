package restore

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/walship/walship/pkg/wal"
)

// TargetKind says what ends a recovery, in the terms of PostgreSQL's
// recovery_target settings.
type TargetKind string

// The kinds of targets.
const (
	TargetLatest    TargetKind = "latest"    // the end of the archived WAL
	TargetImmediate TargetKind = "immediate" // the end of the backup
	TargetTime      TargetKind = "time"
	TargetLSN       TargetKind = "lsn"
	TargetXID       TargetKind = "xid"
	TargetName      TargetKind = "name" // a restore point
)

// Target is the moment that a restore aims at. Make one with Latest,
// Immediate, AtTime, AtLSN, AtXID or AtName, which check it.
type Target struct {
	Kind TargetKind
	Time time.Time
	LSN  wal.LSN
	XID  uint64 // 32 bits, or 64 with the epoch as pg_current_xact_id() shows it
	Name string
	// Exclusive stops before the target instead of behind it. It makes sense
	// for a time, an LSN and a transaction only.
	Exclusive bool
}

// UsageError is returned for a target, a timeline or a mapping that makes no
// sense as given; the request has to be put differently.
type UsageError struct{ why string }

func (e *UsageError) Error() string { return e.why }

func usagef(format string, args ...any) error { return &UsageError{fmt.Sprintf(format, args...)} }

// Validate returns a UsageError for a target that PostgreSQL wouldn't take.
func (t Target) Validate() error {
	if t.Exclusive && (t.Kind == TargetLatest || t.Kind == TargetImmediate || t.Kind == TargetName) {
		return usagef("an exclusive target makes no sense with %s: PostgreSQL knows it for a time, an LSN and a transaction only", t.Kind)
	}
	switch t.Kind {
	case TargetLatest, TargetImmediate:
	case TargetTime:
		if t.Time.IsZero() {
			return usagef("the target time is missing")
		}
	case TargetLSN:
		if t.LSN == 0 {
			return usagef("the target LSN 0/0 is not in the WAL of any cluster")
		}
	case TargetXID:
		if uint32(t.XID) < firstNormalXID {
			return usagef("the transaction id %d is never given to a transaction: the first is %d", t.XID, firstNormalXID)
		}
	case TargetName:
		return validName(t.Name)
	default:
		return usagef("unknown kind of target %q", t.Kind)
	}
	return nil
}

// firstNormalXID is FirstNormalTransactionId of src/include/access/transam.h.
const firstNormalXID = 3

// maxName is MAXFNAMELEN - 1 of src/include/access/xlog_internal.h, the
// longest restore point name that PostgreSQL takes, in bytes.
const maxName = 63

func validName(name string) error {
	if name == "" {
		return usagef("the name of the restore point is empty")
	}
	if len(name) > maxName {
		return usagef("the name of a restore point has at most %d bytes, not %d", maxName, len(name))
	}
	if strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return usagef("the name of the restore point has a control character")
	}
	return nil
}

// String names the target as a sentence about it would.
func (t Target) String() string {
	how := ""
	if t.Exclusive {
		how = ", exclusive"
	}
	switch t.Kind {
	case TargetLatest:
		return "the end of the archived WAL"
	case TargetImmediate:
		return "the end of the backup"
	case TargetTime:
		return "time " + FormatTime(t.Time) + how
	case TargetLSN:
		return "LSN " + t.LSN.String() + how
	case TargetXID:
		return "transaction " + strconv.FormatUint(t.XID, 10) + how
	}
	return "restore point " + strconv.Quote(t.Name)
}

// Value is what the target's own recovery setting says; "" for the latest.
func (t Target) Value() string {
	switch t.Kind {
	case TargetImmediate:
		return "immediate"
	case TargetTime:
		return FormatTime(t.Time)
	case TargetLSN:
		return t.LSN.String()
	case TargetXID:
		return strconv.FormatUint(t.XID, 10)
	case TargetName:
		return t.Name
	}
	return ""
}

// ParseXID reads a transaction id: decimal, of 32 bits, or of 64 with the
// epoch as pg_current_xact_id() shows it.
func ParseXID(s string) (uint64, error) {
	xid, err := strconv.ParseUint(s, 10, 64)
	if err != nil {
		return 0, usagef("%q is not a transaction id: give it in digits, as pg_current_xact_id() shows it", s)
	}
	return xid, nil
}

// FormatTime writes a time as walship prints every time: in UTC with its
// offset, to the microsecond, in a form that PostgreSQL and ParseTime read.
func FormatTime(t time.Time) string {
	return t.UTC().Format("2006-01-02 15:04:05.999999") + "+00"
}

// ParseTime reads a time that says which zone it is in: RFC 3339, or as
// PostgreSQL prints it (2026-11-20 14:25:00.123456+01), with at most six
// digits of fraction, and an offset, Z, UTC or GMT. A time without a zone is
// refused with a UsageError that shows both readings, in UTC and in local,
// which is the zone of the server's host.
func ParseTime(s string, local *time.Location) (time.Time, error) {
	text := strings.TrimSpace(s)
	moment, zone := splitZone(text)
	layout := "2006-01-02 15:04:05"
	// time.Parse takes a fraction behind the seconds though the layout has
	// none; it would cut digits that PostgreSQL rounds.
	if _, fraction, ok := strings.Cut(moment, "."); ok && len(fraction) > 6 {
		return time.Time{}, usagef("time %q has more than six digits behind the second: PostgreSQL keeps microseconds", s)
	}
	if len(moment) == len("2006-01-02 15:04") {
		layout = "2006-01-02 15:04"
	}
	if strings.Contains(moment, ",") {
		return time.Time{}, malformedTime(s)
	}
	utc, err := time.ParseInLocation(layout, moment, time.UTC)
	if err != nil {
		return time.Time{}, malformedTime(s)
	}
	if zone == "" {
		return time.Time{}, zoneless(s, layout, moment, utc, local)
	}
	offset, ok := parseOffset(zone)
	if !ok {
		return time.Time{}, usagef("time %q has the zone %q: write it as an offset (+02 or +02:00), or Z for UTC", s, zone)
	}
	return utc.Add(-offset), nil
}

func malformedTime(s string) error {
	return usagef("%q is not a time: write it as 2026-11-20T14:25:00Z or 2026-11-20 14:25:00+01", s)
}

func zoneless(s, layout, moment string, utc time.Time, local *time.Location) error {
	there, err := time.ParseInLocation(layout, moment, local)
	if err != nil || there.Equal(utc) {
		return usagef("time %q has no zone: if it is UTC, write %q", s, FormatTime(utc))
	}
	return usagef("time %q has no zone: if it is UTC, write %q; if it is in the zone of this host (%s), write %q",
		s, FormatTime(utc), there.Format("MST, -07:00"), FormatTime(there))
}

// splitZone cuts what stands behind the time of day off, and makes the form
// of what is before it PostgreSQL's.
func splitZone(s string) (moment, zone string) {
	const date = len("2006-01-02")
	if len(s) > date && (s[date] == 'T' || s[date] == 't') {
		s = s[:date] + " " + s[date+1:]
	}
	end := min(date+1, len(s))
	for end < len(s) && strings.IndexByte("0123456789:.,", s[end]) >= 0 {
		end++
	}
	return s[:end], strings.TrimSpace(s[end:])
}

// parseOffset reads Z, UTC, GMT, or an offset east of Greenwich: +HH,
// +HHMM, +HH:MM, to the minute.
func parseOffset(zone string) (time.Duration, bool) {
	switch strings.ToUpper(zone) {
	case "Z", "UTC", "GMT":
		return 0, true
	}
	sign := time.Duration(1)
	switch zone[0] {
	case '-':
		sign = -1
	case '+':
	default:
		return 0, false
	}
	digits := zone[1:]
	if len(digits) == len("02:00") && digits[2] == ':' {
		digits = digits[:2] + digits[3:]
	}
	if len(digits) == 2 {
		digits += "00"
	}
	n, err := strconv.ParseUint(digits, 10, 16)
	hours, minutes := time.Duration(n/100), time.Duration(n%100)
	// PostgreSQL takes offsets below 16 hours (MAX_TZDISP_HOUR).
	if len(digits) != 4 || err != nil || hours > 15 || minutes > 59 {
		return 0, false
	}
	return sign * (hours*time.Hour + minutes*time.Minute), true
}
