package pgdata

import (
	"bytes"
	"slices"
	"strings"
)

// Setting is one line of a configuration file.
type Setting struct {
	Name  string // a parameter's name as PostgreSQL spells it
	Value string // any text without zero bytes; quoted when it is written
}

// EditAutoConf returns the content of postgresql.auto.conf for a restored
// cluster: old without its lines about recovery and without those that set
// one of the names in set, then set, in its order. All other lines stay byte
// for byte, and so do those about recovery that are named in keep. Of several
// lines with one name PostgreSQL takes the last, so what set says holds.
func EditAutoConf(old []byte, set []Setting, keep ...string) []byte {
	replaced := make(map[string]bool, len(set))
	for _, s := range set {
		replaced[strings.ToLower(s.Name)] = true
	}
	var out []byte
	for line := range bytes.Lines(old) {
		name := settingName(line)
		if IsRecoverySetting(name) && !slices.Contains(keep, name) || replaced[name] {
			continue
		}
		out = append(out, line...)
	}
	if len(out) > 0 && out[len(out)-1] != '\n' {
		out = append(out, '\n')
	}
	for _, s := range set {
		out = append(out, s.Name+" = "+QuoteSetting(s.Value)+"\n"...)
	}
	return out
}

// IsRecoverySetting tells whether a parameter says how a cluster recovers: one
// that was right for the original must not stay in a restored one. Names are
// compared without case, as PostgreSQL does.
func IsRecoverySetting(name string) bool {
	name = strings.ToLower(name)
	switch name {
	case "restore_command", "archive_cleanup_command", "recovery_end_command",
		"recovery_min_apply_delay", "primary_conninfo", "primary_slot_name",
		"promote_trigger_file", "trigger_file", "standby_mode":
		return true
	}
	return name == "recovery_target" || strings.HasPrefix(name, "recovery_target_")
}

// settingName is the parameter that a line sets, in lower case; "" for blank
// lines and comments (the grammar is in src/backend/utils/misc/guc-file.l).
func settingName(line []byte) string {
	line = bytes.TrimLeft(line, " \t\r\f\v")
	end := 0
	for end < len(line) && isNameByte(line[end]) {
		end++
	}
	return strings.ToLower(string(line[:end]))
}

func isNameByte(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	}
	return c == '_' || c == '$' || c == '.' || c >= 0x80
}

// QuoteSetting writes a value as a string of a configuration file, quotes
// included, so that PostgreSQL reads back the same text.
func QuoteSetting(value string) string {
	var b strings.Builder
	b.WriteByte('\'')
	for i := range len(value) {
		switch c := value[i]; c {
		case '\'':
			b.WriteString("''")
		case '\\':
			b.WriteString(`\\`)
		case '\n':
			b.WriteString(`\n`)
		case 0:
			b.WriteString(`\000`)
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('\'')
	return b.String()
}
