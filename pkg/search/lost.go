package search

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/wal"
)

// Table names a table as SQL does.
type Table struct {
	Schema string // "" for any
	Name   string
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

// Lost looks for the transactions of a path that dropped or truncated a table
// (change), and returns those of the newest stretch of WAL in which there are
// any, in their order. The stretches begin at the given LSNs, which are in
// ascending order; what is before the first isn't looked into.
func Lost(ctx context.Context, r *repo.Repository, q Query, o Options, table Table, change Change, stretches []wal.LSN) ([]Event, *Report, error) {
	whole := &Report{Warnings: []string{}}
	for i, from := range slices.Backward(stretches) {
		q.Facts, q.FromLSN, q.ToLSN = Dropped, from, 0
		if i+1 < len(stretches) {
			q.ToLSN = stretches[i+1] - 1
		}
		var found []Event
		report, err := Run(ctx, r, q, o, func(e Event) error {
			if slices.ContainsFunc(e.Relations, func(r Relation) bool { return r.Change == change && table.is(r) }) {
				found = append(found, e)
			}
			return nil
		})
		whole.add(report)
		if err != nil || len(found) > 0 {
			return found, whole, err
		}
	}
	return nil, whole, nil
}

// add takes in what another search cost, and couldn't see.
func (r *Report) add(other *Report) {
	r.Segments += other.Segments
	r.Headers += other.Headers
	r.Rollups += other.Rollups
	r.Written += other.Written
	r.Matching += other.Matching
	r.Downloaded += other.Downloaded
	for _, warning := range other.Warnings {
		if !slices.Contains(r.Warnings, warning) {
			r.Warnings = append(r.Warnings, warning)
		}
	}
}
