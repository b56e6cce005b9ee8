package pgdata

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Tablespace is one line of a tablespace_map: a link in pg_tblspc and where
// it leads.
type Tablespace struct {
	OID      uint32
	Location string // the link's target, as PostgreSQL knows it
}

const (
	maxTablespaceMap = 16 << 20 // bytes
	// MaxPath is the length in bytes that no path reaches: MAXPGPATH in
	// src/include/pg_config_manual.h, which counts a zero byte.
	MaxPath = 1024
)

// ParseTablespaceMap decodes a tablespace_map (read_tablespace_map in
// src/backend/access/transam/xlogrecovery.c): lines of an OID, a blank and a
// path, in which a backslash makes the next byte literal. Duplicate OIDs are
// refused.
func ParseTablespaceMap(data []byte) ([]Tablespace, error) {
	if len(data) > maxTablespaceMap {
		return nil, fmt.Errorf("parse tablespace_map: it has more than %d bytes", maxTablespaceMap)
	}
	lines, err := unescapeLines(data)
	if err != nil {
		return nil, fmt.Errorf("parse tablespace_map: %w", err)
	}
	var all []Tablespace
	seen := make(map[uint32]bool)
	for _, line := range lines {
		number, location, found := strings.Cut(line, " ")
		oid, err := strconv.ParseUint(number, 10, 32)
		switch {
		case !found || err != nil || oid == 0 || strconv.FormatUint(oid, 10) != number:
			return nil, fmt.Errorf("parse tablespace_map: %q is not an OID and a path", line)
		case location == "" || len(location) >= MaxPath || strings.ContainsRune(location, 0):
			return nil, fmt.Errorf("parse tablespace_map: tablespace %d has no usable path", oid)
		case seen[uint32(oid)]:
			return nil, fmt.Errorf("parse tablespace_map: tablespace %d stands there twice", oid)
		}
		seen[uint32(oid)] = true
		all = append(all, Tablespace{OID: uint32(oid), Location: location})
	}
	return all, nil
}

// unescapeLines splits at line ends that no backslash precedes, and takes the
// backslashes away.
func unescapeLines(data []byte) ([]string, error) {
	var lines []string
	var line []byte
	escaped := false
	for _, c := range data {
		switch {
		case escaped:
			line = append(line, c)
			escaped = false
		case c == '\\':
			escaped = true
		case c == '\n' || c == '\r':
			if len(line) > 0 {
				lines = append(lines, string(line))
			}
			line = line[:0]
		default:
			line = append(line, c)
		}
	}
	if escaped || len(line) > 0 {
		return nil, errors.New("its last line is cut")
	}
	return lines, nil
}

// FormatTablespaceMap encodes a tablespace_map as do_pg_backup_start does
// (src/backend/access/transam/xlog.c).
func FormatTablespaceMap(all []Tablespace) []byte {
	var out []byte
	for _, t := range all {
		out = strconv.AppendUint(out, uint64(t.OID), 10)
		out = append(out, ' ')
		for i := range len(t.Location) {
			c := t.Location[i]
			if c == '\n' || c == '\r' || c == '\\' {
				out = append(out, '\\')
			}
			out = append(out, c)
		}
		out = append(out, '\n')
	}
	return out
}
