package search

import (
	"fmt"
	"strings"
)

// Table names a table as SQL does.
type Table struct {
	Schema string // "" for any
	Name   string
}

// String writes the name as SQL needs it.
func (t Table) String() string {
	if t.Schema == "" {
		return quoteName(t.Name)
	}
	return quoteName(t.Schema) + "." + quoteName(t.Name)
}

// ParseTable reads a table's name, with its schema or without: as in SQL, what
// isn't quoted is taken in lower case.
func ParseTable(text string) (Table, error) {
	var parts []string
	rest := text
	for {
		part, behind, ok := cutName(rest)
		if !ok || len(parts) == 2 {
			return Table{}, fmt.Errorf("%q is not the name of a table: write table or schema.table, with double quotes as in SQL", text)
		}
		parts = append(parts, part)
		if behind == "" {
			break
		}
		rest = behind[1:]
	}
	if len(parts) == 1 {
		return Table{Name: parts[0]}, nil
	}
	return Table{parts[0], parts[1]}, nil
}

// cutName cuts the first name off; what is behind it is empty or begins with a
// point.
func cutName(text string) (name, behind string, ok bool) {
	if !strings.HasPrefix(text, `"`) {
		end := strings.IndexByte(text, '.')
		if end < 0 {
			end = len(text)
		}
		name := text[:end]
		return strings.ToLower(name), text[end:], name != "" && !strings.ContainsAny(name, "\" \t\n")
	}
	for i := 1; i < len(text); i++ {
		if text[i] != '"' {
			continue
		}
		if i+1 < len(text) && text[i+1] == '"' {
			i++
			continue
		}
		name := strings.ReplaceAll(text[1:i], `""`, `"`)
		return name, text[i+1:], name != "" && (i+1 == len(text) || text[i+1] == '.')
	}
	return "", "", false
}

// is tells whether a relation is the table, or may be: WAL doesn't always say
// what its schema is called.
func (t Table) is(r Relation) bool {
	switch {
	case r.Name != t.Name || r.Kind == kindIndex:
		return false
	case t.Schema == "" || r.Schema == "" && r.SchemaOID != publicOID:
		return true
	case r.Schema == "":
		return t.Schema == "public"
	}
	return r.Schema == t.Schema
}

// surely tells of a relation that is the table, or may be, whether its schema is
// known to be the table's.
func (t Table) surely(r Relation) bool {
	return t.Schema == "" || r.Schema == t.Schema || r.Schema == "" && r.SchemaOID == publicOID && t.Schema == "public"
}
