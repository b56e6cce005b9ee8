package wal

import (
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Field is one key and value of a stored object's context header.
type Field struct{ Key, Value string }

// The keys of a summary in a context header.
const (
	keyPrefix        = "wal."
	keyEnd           = keyPrefix + "end"
	keyEnding        = keyPrefix + "ending"
	keyRecords       = keyPrefix + "records"
	keyFirst         = keyPrefix + "first"
	keyPrev          = keyPrefix + "prev"
	keyLast          = keyPrefix + "last"
	keyChain         = keyPrefix + "chain"
	keyOverwritten   = keyPrefix + "overwritten"
	keyHead          = keyPrefix + "head"
	keyTail          = keyPrefix + "tail"
	keyCommits       = keyPrefix + "commits"
	keyStops         = keyPrefix + "stops"
	keyMinTime       = keyPrefix + "min_time"
	keyMaxTime       = keyPrefix + "max_time"
	keyDemands       = keyPrefix + "demands"
	keyRestorePoints = keyPrefix + "restore_points"
	keyRestorePoint  = keyPrefix + "restore_point." // and a number from 1
	keyXIDs          = keyPrefix + "xids"
	keyPrepared      = keyPrefix + "prepared"
	keyFinished      = keyPrefix + "finished"
	keyUnlisted      = keyPrefix + "unlisted"
	keyTablespaces   = keyPrefix + "tablespaces"
	keyTablespace    = keyPrefix + "tablespace." // and a number from 1

	chainPrefix = "sha256:"
	// maxRestorePointBytes bounds the restore points of a summary, so that
	// they fit into a context header whatever their names are.
	maxRestorePointBytes = 8 << 10
)

// Fields returns the summary as optional fields of a context header, in a
// fixed order. Their keys start with "wal.", their values are printable
// ASCII. A summary that was never computed has none.
func (s Summary) Fields() []Field {
	if s.Ending == 0 {
		return nil
	}
	fields := []Field{
		{keyEnd, s.End.String()},
		{keyEnding, s.Ending.String()},
		{keyRecords, strconv.FormatUint(s.Records, 10)},
		{keyFirst, s.First.String()},
		{keyPrev, s.Prev.String()},
		{keyLast, s.Last.String()},
		{keyChain, chainPrefix + hex.EncodeToString(s.Chain[:])},
	}
	if s.Overwritten != 0 {
		fields = append(fields, Field{keyOverwritten, s.Overwritten.String()})
	}
	if s.Head.Length > 0 {
		fields = append(fields, Field{keyHead, s.Head.encode()})
	}
	if s.Tail.Length > 0 {
		fields = append(fields, Field{keyTail, s.Tail.encode()})
	}
	fields = append(fields,
		Field{keyCommits, strconv.FormatUint(s.Commits, 10)},
		Field{keyStops, strconv.FormatUint(s.Stops, 10)})
	if s.Stops > 0 {
		fields = append(fields, Field{keyMinTime, s.MinTime.encode()}, Field{keyMaxTime, s.MaxTime.encode()})
	}
	fields = append(fields, s.Transactions.fields()...)
	if s.Demands != (Demands{}) {
		fields = append(fields, Field{keyDemands, s.Demands.encode()})
	}
	fields = append(fields, Field{keyRestorePoints, strconv.FormatUint(s.RestorePointCount, 10)})
	for i, point := range s.RestorePoints {
		fields = append(fields, Field{keyRestorePoint + strconv.Itoa(i+1), point.encode()})
	}
	if s.TablespaceCount > 0 {
		fields = append(fields, Field{keyTablespaces, strconv.FormatUint(s.TablespaceCount, 10)})
	}
	for i, t := range s.Tablespaces {
		fields = append(fields, Field{keyTablespace + strconv.Itoa(i+1), t.encode()})
	}
	return fields
}

// ParseSummary reads the summary from the fields of a context header; fields
// of other keys are ignored. Without any of a summary's fields it returns the
// zero Summary, whose Ending is 0.
func ParseSummary(fields []Field) (Summary, error) {
	p := summaryParser{values: make(map[string]string, len(fields))}
	for _, field := range fields {
		if !strings.HasPrefix(field.Key, keyPrefix) {
			continue
		}
		if _, twice := p.values[field.Key]; twice {
			return Summary{}, fmt.Errorf("parse WAL summary: %s is there twice", quote(field.Key))
		}
		p.values[field.Key] = field.Value
	}
	if len(p.values) == 0 {
		return Summary{}, nil
	}
	s := p.summary()
	if p.err != nil {
		return Summary{}, fmt.Errorf("parse WAL summary: %w", p.err)
	}
	return s, nil
}

// summaryParser reads a summary's values, and keeps the first error.
type summaryParser struct {
	values map[string]string
	err    error
}

func (p *summaryParser) summary() Summary {
	s := Summary{
		End:     take(p, keyEnd, true, ParseLSN),
		Ending:  take(p, keyEnding, true, parseEnding),
		Records: take(p, keyRecords, true, parseCount),
		First:   take(p, keyFirst, true, ParseLSN),
		Prev:    take(p, keyPrev, true, ParseLSN),
		Last:    take(p, keyLast, true, ParseLSN),
		Chain:   take(p, keyChain, true, parseChain),

		Overwritten: take(p, keyOverwritten, false, ParseLSN),
		Head:        take(p, keyHead, false, parseFragment),
		Tail:        take(p, keyTail, false, parseFragment),

		Commits: take(p, keyCommits, true, parseCount),
		Stops:   take(p, keyStops, true, parseCount),

		Transactions: p.transactions(),
		Demands:      take(p, keyDemands, false, parseDemands),

		RestorePointCount: take(p, keyRestorePoints, true, parseCount),
		TablespaceCount:   take(p, keyTablespaces, false, parseCount),
	}
	if s.Stops > 0 {
		s.MinTime = take(p, keyMinTime, true, parseTimestamp)
		s.MaxTime = take(p, keyMaxTime, true, parseTimestamp)
	}
	for i := range min(s.RestorePointCount, MaxRestorePoints) {
		key := keyRestorePoint + strconv.FormatUint(i+1, 10)
		if _, ok := p.values[key]; !ok {
			break
		}
		s.RestorePoints = append(s.RestorePoints, take(p, key, true, parseRestorePoint))
	}
	for i := range min(s.TablespaceCount, maxTablespaces) {
		key := keyTablespace + strconv.FormatUint(i+1, 10)
		if _, ok := p.values[key]; !ok {
			break
		}
		s.Tablespaces = append(s.Tablespaces, take(p, key, true, parseTablespace))
	}
	return s
}

// take reads the value of a key.
func take[T any](p *summaryParser, key string, required bool, parse func(string) (T, error)) T {
	var zero T
	text, ok := p.values[key]
	if !ok {
		if required && p.err == nil {
			p.err = fmt.Errorf("%s is missing", key)
		}
		return zero
	}
	value, err := parse(text)
	if err != nil {
		if p.err == nil {
			p.err = fmt.Errorf("%s: %w", key, err)
		}
		return zero
	}
	return value
}

func malformed(text string) error { return fmt.Errorf("%s is malformed", quote(text)) }

func parseCount(text string) (uint64, error) {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil || strconv.FormatUint(n, 10) != text {
		return 0, malformed(text)
	}
	return n, nil
}

func parseEnding(text string) (Ending, error) {
	for i, name := range endingNames {
		if i > 0 && name == text {
			return Ending(i), nil
		}
	}
	return 0, malformed(text)
}

func parseChain(text string) (chain ChainDigest, err error) {
	digits, ok := strings.CutPrefix(text, chainPrefix)
	if sum, err := hex.DecodeString(digits); ok && err == nil && len(sum) == len(chain) {
		return ChainDigest(sum), nil
	}
	return chain, malformed(text)
}

// encode writes a fragment as length/remaining/crc/start, the last two in
// hexadecimal.
func (f Fragment) encode() string {
	start := f.start()
	return fmt.Sprintf("%d/%d/%08x/%x", f.Length, f.Remaining, f.CRC, start)
}

func parseFragment(text string) (f Fragment, err error) {
	parts := strings.Split(text, "/")
	if len(parts) != 4 {
		return Fragment{}, malformed(text)
	}
	length, err1 := strconv.ParseUint(parts[0], 10, 32)
	remaining, err2 := strconv.ParseUint(parts[1], 10, 32)
	crc, err3 := parseHex32(parts[2])
	start, err4 := hex.DecodeString(parts[3])
	f = Fragment{Length: uint32(length), Remaining: uint32(remaining), CRC: crc}
	if err1 != nil || err2 != nil || err3 != nil || err4 != nil ||
		length == 0 || length > remaining || len(start) != int(min(length, FragmentStart)) {
		return Fragment{}, malformed(text)
	}
	copy(f.Start[:], start)
	return f, nil
}

// timeLayout is RFC 3339 in UTC, to the microsecond.
const timeLayout = "2006-01-02T15:04:05.000000Z"

// encode writes a moment in RFC 3339, or, of a year that this has no room
// for, as microseconds since 2000 behind an @.
func (t Timestamp) encode() string {
	if at := t.Time(); at.Year() >= 0 && at.Year() <= 9999 {
		return at.Format(timeLayout)
	}
	return "@" + strconv.FormatInt(int64(t), 10)
}

func parseTimestamp(text string) (Timestamp, error) {
	if digits, ok := strings.CutPrefix(text, "@"); ok {
		n, err := strconv.ParseInt(digits, 10, 64)
		if err != nil {
			return 0, malformed(text)
		}
		return Timestamp(n), nil
	}
	at, err := time.Parse(timeLayout, text)
	if err != nil {
		return 0, malformed(text)
	}
	return TimestampOf(at), nil
}

// encode writes a restore point as its position, time and quoted name.
func (p RestorePoint) encode() string {
	return p.LSN.String() + " " + p.Time.encode() + " " + strconv.QuoteToASCII(p.Name)
}

func parseRestorePoint(text string) (RestorePoint, error) {
	parts := strings.SplitN(text, " ", 3)
	if len(parts) != 3 {
		return RestorePoint{}, malformed(text)
	}
	lsn, err1 := ParseLSN(parts[0])
	at, err2 := parseTimestamp(parts[1])
	name, err3 := strconv.Unquote(parts[2])
	if err1 != nil || err2 != nil || err3 != nil || len(name) > restorePointNameSize {
		return RestorePoint{}, malformed(text)
	}
	return RestorePoint{LSN: lsn, Time: at, Name: name}, nil
}
