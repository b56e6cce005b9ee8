package rescue

import (
	"fmt"
	"strings"
)

// Name is a table's, as the catalogue has it.
type Name struct{ Schema, Table string }

// ParseName reads a name as SQL writes it: orders, public.orders, "Odd"."name".
// Without a schema it is in public.
func ParseName(text string) (Name, error) {
	var parts []string
	rest := text
	for {
		var part string
		var ok bool
		if strings.HasPrefix(rest, `"`) {
			part, rest, ok = cutQuoted(rest[1:])
		} else {
			end := strings.IndexByte(rest, '.')
			if end < 0 {
				end = len(rest)
			}
			part, rest = strings.ToLower(rest[:end]), rest[end:]
			ok = !strings.ContainsAny(part, `" `)
		}
		if !ok || part == "" || rest != "" && rest[0] != '.' {
			return Name{}, fmt.Errorf("%q is not the name of a table: write schema.table, each in double quotes where SQL needs them", text)
		}
		parts = append(parts, part)
		if rest == "" {
			break
		}
		rest = rest[1:]
	}
	switch len(parts) {
	case 1:
		return Name{"public", parts[0]}, nil
	case 2:
		return Name{parts[0], parts[1]}, nil
	}
	return Name{}, fmt.Errorf("%q is not the name of a table: it has %d parts; --database says which database", text, len(parts))
}

// cutQuoted reads up to a closing quote; two stand for one.
func cutQuoted(text string) (name, rest string, ok bool) {
	var b strings.Builder
	for i := 0; i < len(text); i++ {
		if text[i] != '"' {
			b.WriteByte(text[i])
			continue
		}
		if i+1 < len(text) && text[i+1] == '"' {
			b.WriteByte('"')
			i++
			continue
		}
		return b.String(), text[i+1:], true
	}
	return "", "", false
}

// String writes the name quoted, which pg_dump takes literally, too.
func (n Name) String() string { return quoteIdentifier(n.Schema) + "." + quoteIdentifier(n.Table) }

func quoteIdentifier(name string) string { return `"` + strings.ReplaceAll(name, `"`, `""`) + `"` }
