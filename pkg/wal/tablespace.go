package wal

import (
	"strconv"
	"strings"
)

// CreatedTablespace is a tablespace that a record creates. Replaying it makes a
// link to the same directory again, wherever that happens.
type CreatedTablespace struct {
	LSN  LSN    // of the record's first byte
	Path string // absolute, of its directory
}

const (
	// maxTablespaces bounds the created tablespaces that a summary lists, and
	// maxTablespaceBytes their size in a context header.
	maxTablespaces     = 64
	maxTablespaceBytes = 3 << 10
)

// addTablespace takes in a record that does something to whole files. A
// tablespace made in place, in the data directory itself, needs no directory.
func (s *Summary) addTablespace(r *Record, c *Contents) error {
	if kind, _ := r.StorageKind(); kind != StorageCreateTablespace {
		return nil
	}
	storage, err := r.Storage(c)
	if err == nil && storage.Path != "" {
		s.listTablespace(CreatedTablespace{LSN: r.LSN, Path: storage.Path})
	}
	return err
}

// listTablespace counts a created tablespace, and lists it if there is room.
func (s *Summary) listTablespace(t CreatedTablespace) {
	enlist(&s.Tablespaces, &s.TablespaceCount, t, maxTablespaces, maxTablespaceBytes)
}

// addTablespaces takes in what the summary behind s counts and lists.
func (s *Summary) addTablespaces(next Summary) {
	for _, t := range next.Tablespaces {
		s.listTablespace(t)
	}
	s.TablespaceCount += next.TablespaceCount - uint64(len(next.Tablespaces))
}

// encode writes a created tablespace as its position and quoted path.
func (t CreatedTablespace) encode() string {
	return t.LSN.String() + " " + strconv.QuoteToASCII(t.Path)
}

func parseTablespace(text string) (CreatedTablespace, error) {
	position, quoted, _ := strings.Cut(text, " ")
	lsn, err1 := ParseLSN(position)
	path, err2 := strconv.Unquote(quoted)
	t := CreatedTablespace{LSN: lsn, Path: path}
	if err1 != nil || err2 != nil || t.encode() != text {
		return CreatedTablespace{}, malformed(text)
	}
	return t, nil
}
