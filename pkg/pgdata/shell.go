package pgdata

import "strings"

// ShellCommand joins words to a command line as archive_command and
// restore_command take it: PostgreSQL replaces %p, %f, %r and %%, then a POSIX
// shell parses it. Each of the words arrives at the program as it is.
// placeholders, such as %f and %p, stand behind them untouched.
func ShellCommand(words []string, placeholders ...string) string {
	line := make([]string, 0, len(words)+len(placeholders))
	for _, word := range words {
		line = append(line, strings.ReplaceAll(ShellWord(word), "%", "%%"))
	}
	return strings.Join(append(line, placeholders...), " ")
}

// ShellWord makes s one word of a POSIX shell's command line.
func ShellWord(s string) string {
	plain := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+=:@,%", r)
	}
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool { return !plain(r) }) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
