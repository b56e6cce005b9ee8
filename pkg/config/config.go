// Package config gathers walship's settings from a file, the environment and
// the command line, in this order of precedence from the lowest. It validates
// each, remembers where it came from, and never shows a secret. Nothing else
// in walship goes by the environment, apart from the conventions of libpq and
// of the AWS SDK. (cmd/walship/early looks at it to see that it is the same.)
package config

import (
	"encoding"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"
)

// DefaultFile is read when no other file is named, and needn't exist.
const DefaultFile = "/etc/walship/walship.toml"

// FileVariable is the environment variable that names the file.
const FileVariable = "WALSHIP_CONFIG"

// ErrInvalid is wrapped by every error about the settings themselves: an
// unknown key, a malformed value, a file that can't be read.
var ErrInvalid = errors.New("invalid configuration")

// Config is walship's settings. The table that Keys returns says what each
// means.
type Config struct {
	Repository string `toml:"repository"`
	Encryption struct {
		Recipients    []string `toml:"recipients"`
		IdentityFiles []string `toml:"identity_files"` // absolute
	} `toml:"encryption"`
	Compression struct {
		Level string `toml:"level"`
	} `toml:"compression"`
	WAL struct {
		PushDeadline  Duration `toml:"push_deadline"`
		FetchDeadline Duration `toml:"fetch_deadline"`
		Concurrency   int      `toml:"concurrency"` // 0: by the machine
		Prefetch      int      `toml:"prefetch"`    // segments; 0: none
	} `toml:"wal"`
	Backup struct {
		Concurrency int  `toml:"concurrency"`
		MaxRate     Size `toml:"max_rate"` // bytes per second; 0: no limit
	} `toml:"backup"`
	Restore struct {
		Concurrency int `toml:"concurrency"`
	} `toml:"restore"`
	Postgres struct {
		BinDirectory  string `toml:"bin_directory"`
		DataDirectory string `toml:"data_directory"` // absolute, or "" when only the server knows
		Connection    string `toml:"connection"`     // may hold a password: don't print it
	} `toml:"postgres"`
	StateDirectory string `toml:"state_directory"` // absolute, or "" when there is no place for it
	Log            struct {
		Level  string `toml:"level"`
		Format string `toml:"format"`
	} `toml:"log"`

	file         string            // the file that was read; "" for none
	content      []byte            // of the file
	origins      map[string]Origin // by key
	certificates string            // SSL_CERT_FILE
}

// Origin is where a setting's value came from.
type Origin struct {
	Kind OriginKind
	Name string // the variable, flag or file; "" for OriginDefault
}

// OriginKind is the sort of place that a value came from.
type OriginKind string

// The places that values come from, lowest precedence first.
const (
	OriginDefault     OriginKind = "default"
	OriginFile        OriginKind = "file"
	OriginEnvironment OriginKind = "environment"
	OriginFlag        OriginKind = "flag"
)

// String says it in words: "environment variable PGDATA".
func (o Origin) String() string {
	switch o.Kind {
	case OriginEnvironment:
		return "environment variable " + o.Name
	case OriginDefault:
		return string(o.Kind)
	}
	return string(o.Kind) + " " + o.Name
}

// File is the absolute path of the file that was read, or "" when there was
// none.
func (c *Config) File() string { return c.file }

// Content is what stands in the file that was read; nil when there was none.
func (c *Config) Content() []byte { return c.content }

// Origin says where the value of a key came from.
func (c *Config) Origin(key string) Origin { return c.origins[key] }

// CertificateFile is the file of trusted authorities that SSL_CERT_FILE names,
// or "".
func (c *Config) CertificateFile() string { return c.certificates }

// Sources says where values come from.
type Sources struct {
	// File is the file that the user named; "" to look for it.
	File string
	// Lookup is os.LookupEnv.
	Lookup func(name string) (string, bool)
	// Names lists the environment's variables; nil: they aren't looked
	// through for unknown ones.
	Names func() []string
	// Home finds the user's home directory where HOME isn't set, as in a
	// server that Debian starts; nil: there is none.
	Home func() (string, error)
	// Flags are the values given on the command line, by key. Those of lists
	// are separated by commas.
	Flags map[string]string
}

// Load gathers the settings and validates them. Relative paths from the
// environment and from flags are made absolute; in a file they are refused. A
// variable that is set but empty counts as not set.
func Load(from Sources) (*Config, error) {
	c := &Config{origins: make(map[string]Origin)}
	for _, k := range Keys() {
		if err := c.set(k, k.Default, Origin{Kind: OriginDefault}); err != nil {
			return nil, err
		}
	}
	if err := c.loadFile(from); err != nil {
		return nil, err
	}
	if err := checkNames(from); err != nil {
		return nil, err
	}
	for _, k := range Keys() {
		if text, _ := from.Lookup(k.Env()); text != "" {
			if err := c.set(k, text, Origin{OriginEnvironment, k.Env()}); err != nil {
				return nil, err
			}
		}
		if text, given := from.Flags[k.Name]; given {
			if k.Name == "postgres.connection" && hasPassword(text) {
				return nil, fmt.Errorf("%w: a password on the command line can be read by every user of the machine: use ~/.pgpass", ErrInvalid)
			}
			if err := c.set(k, text, Origin{OriginFlag, "--" + k.Flag()}); err != nil {
				return nil, err
			}
		}
	}
	if err := c.setConventions(from); err != nil {
		return nil, err
	}
	for _, k := range Keys() {
		if err := c.validate(k); err != nil {
			return nil, err
		}
	}
	return c, nil
}

// ownPrefix begins the names of walship's variables, testPrefix those of its
// tests.
const (
	ownPrefix  = "WALSHIP_"
	testPrefix = "WALSHIP_TEST_"
)

// checkNames refuses a variable that looks like a setting and isn't one.
func checkNames(from Sources) error {
	if from.Names == nil {
		return nil
	}
	known := map[string]bool{FileVariable: true}
	for _, k := range Keys() {
		known[k.Env()] = true
	}
	for _, name := range from.Names() {
		if strings.HasPrefix(name, ownPrefix) && !strings.HasPrefix(name, testPrefix) && !known[name] {
			return fmt.Errorf("%w: environment variable %s is no setting of walship", ErrInvalid, name)
		}
	}
	return nil
}

// setConventions fills what other conventions say, where nothing else did.
func (c *Config) setConventions(from Sources) error {
	lookup := from.Lookup
	c.certificates, _ = lookup("SSL_CERT_FILE")
	if data, _ := lookup("PGDATA"); data != "" && c.Postgres.DataDirectory == "" {
		c.Postgres.DataDirectory = data
		c.origins["postgres.data_directory"] = Origin{OriginEnvironment, "PGDATA"}
	}
	if c.StateDirectory == "" {
		state, _ := lookup("XDG_STATE_HOME")
		home, _ := lookup("HOME")
		if home == "" && from.Home != nil {
			// A user without a home has no state directory: see the table.
			home, _ = from.Home()
		}
		switch {
		case filepath.IsAbs(state):
			c.StateDirectory = filepath.Join(state, "walship")
		case filepath.IsAbs(home):
			c.StateDirectory = filepath.Join(home, ".local", "state", "walship")
		}
	}
	for _, k := range Keys() {
		if k.path && c.origins[k.Name].Kind != OriginFile {
			if err := makeAbsolute(k.field(c)); err != nil {
				return fmt.Errorf("%w: %s: %w", ErrInvalid, k.Name, err)
			}
		}
	}
	return nil
}

func makeAbsolute(field any) (err error) {
	switch p := field.(type) {
	case *string:
		if *p != "" {
			*p, err = filepath.Abs(*p)
		}
	case *[]string:
		for i := range *p {
			if (*p)[i], err = filepath.Abs((*p)[i]); err != nil {
				return err
			}
		}
	}
	return err
}

func (c *Config) set(k Key, text string, origin Origin) error {
	c.origins[k.Name] = origin
	if text == "" && origin.Kind == OriginDefault {
		return nil
	}
	if err := setField(k.field(c), text); err != nil {
		return fmt.Errorf("%w: %s (%s): %w", ErrInvalid, k.Name, origin, err)
	}
	return nil
}

func (c *Config) validate(k Key) error {
	for _, text := range fieldTexts(k.field(c)) {
		var err error
		switch {
		case strings.ContainsAny(text, "\x00\n\r"):
			err = errors.New("the value has a line end or a zero byte")
		case k.path && !filepath.IsAbs(text):
			err = fmt.Errorf("%q is not an absolute path", text)
		case k.check != nil:
			err = k.check(text)
		}
		if err != nil {
			return fmt.Errorf("%w: %s (%s): %w", ErrInvalid, k.Name, c.origins[k.Name], err)
		}
	}
	return nil
}

func setField(field any, text string) error {
	switch p := field.(type) {
	case *string:
		*p = text
	case *[]string:
		*p = nil
		for item := range strings.SplitSeq(text, ",") {
			if item = strings.TrimSpace(item); item != "" {
				*p = append(*p, item)
			}
		}
	case *int:
		n, err := strconv.Atoi(text)
		if err != nil {
			return fmt.Errorf("%q is not a number", text)
		}
		*p = n
	case encoding.TextUnmarshaler:
		return p.UnmarshalText([]byte(text))
	default:
		return fmt.Errorf("no setting has type %T", field)
	}
	return nil
}

// fieldTexts are the values of a field as they would be written; none for an
// empty string or list.
func fieldTexts(field any) []string {
	switch p := field.(type) {
	case *[]string:
		return *p
	case *string:
		if *p == "" {
			return nil
		}
		return []string{*p}
	case *int:
		return []string{strconv.Itoa(*p)}
	case fmt.Stringer:
		return []string{p.String()}
	}
	return nil
}
