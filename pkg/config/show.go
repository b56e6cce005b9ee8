package config

import (
	"fmt"
	"net/url"
	"regexp"
	"strings"
	"sync"
)

// Value is one setting as it may be shown: secrets are left out.
type Value struct {
	Key    Key
	Texts  []string // the values of a list; at most one otherwise, none if unset
	Origin Origin
}

// Values returns every setting for showing, in the order of Keys.
func (c *Config) Values() []Value {
	var all []Value
	for _, k := range Keys() {
		texts := append([]string(nil), fieldTexts(k.field(c))...)
		for i := range texts {
			if k.redact != nil {
				texts[i] = k.redact(texts[i])
			}
		}
		all = append(all, Value{Key: k, Texts: texts, Origin: c.origins[k.Name]})
	}
	return all
}

// Format writes the file that would set the given keys to the values they
// have, secrets included. Keys without a value are left out.
func (c *Config) Format(keys ...string) []byte {
	wanted := make(map[string]bool, len(keys))
	for _, name := range keys {
		wanted[name] = true
	}
	top := true // keys outside of sections stand first
	var out strings.Builder
	for range 2 {
		section := ""
		for _, k := range Keys() {
			table, name, nested := strings.Cut(k.Name, ".")
			texts := fieldTexts(k.field(c))
			if !wanted[k.Name] || len(texts) == 0 || nested == top {
				continue
			}
			if !nested {
				name = table
			} else if table != section {
				section = table
				fmt.Fprintf(&out, "\n[%s]\n", table)
			}
			fmt.Fprintf(&out, "%s = %s\n", name, k.literal(texts))
		}
		top = false
	}
	return []byte(out.String())
}

// Literal is the setting's value as a file would have it: "" quoted, [] for
// lists.
func (v Value) Literal() string { return v.Key.literal(v.Texts) }

func (k Key) literal(texts []string) string {
	switch k.field(new(Config)).(type) {
	case *int:
		return texts[0]
	case *[]string:
		quoted := make([]string, len(texts))
		for i, text := range texts {
			quoted[i] = quote(text)
		}
		return "[" + strings.Join(quoted, ", ") + "]"
	}
	return quote(strings.Join(texts, ""))
}

// quote writes a TOML basic string.
func quote(text string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range text {
		switch {
		case r == '"' || r == '\\':
			b.WriteRune('\\')
			b.WriteRune(r)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

const hidden = "xxxxx"

// redactURL hides the user part of a URL and parameters that sound secret.
func redactURL(text string) string {
	u, err := url.Parse(text)
	if err != nil {
		return hidden
	}
	return redactParsed(u)
}

func redactParsed(u *url.URL) string {
	if u.User != nil {
		if _, has := u.User.Password(); has {
			u.User = url.UserPassword(u.User.Username(), hidden)
		}
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		u.RawQuery = hidden
		return u.String()
	}
	changed := false
	for name := range query {
		if secretName(name) {
			query.Set(name, hidden)
			changed = true
		}
	}
	if changed {
		u.RawQuery = query.Encode()
	}
	return u.String()
}

func secretName(name string) bool {
	name = strings.ToLower(name)
	switch name {
	case "sslkey", "sse_kms_key_id": // names of keys
		return false
	}
	for _, word := range []string{"password", "passwd", "secret", "token", "key"} {
		if strings.Contains(name, word) {
			return true
		}
	}
	return false
}

// conninfoPassword finds secrets in libpq's key=value form: a bare value, or
// one in single quotes with backslash escapes.
var conninfoPassword = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`(?i)\b((?:ssl)?password|oauth_client_secret|scram_client_key|scram_server_key)(\s*=\s*)('(?:[^'\\]|\\.)*'?|(?:[^\s'\\]|\\.)*)`)
})

// redactConnection hides passwords in a conninfo string or URL of libpq.
func redactConnection(text string) string {
	if isConnectionURL(text) {
		return redactURL(text)
	}
	return conninfoPassword().ReplaceAllString(text, "${1}${2}"+hidden)
}

func hasPassword(connection string) bool {
	return strings.Contains(redactConnection(connection), hidden)
}

func isConnectionURL(text string) bool {
	return strings.HasPrefix(text, "postgres://") || strings.HasPrefix(text, "postgresql://")
}
