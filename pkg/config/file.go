package config

import (
	"bytes"
	"encoding"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/pelletier/go-toml/v2"
)

const maxFileSize = 1 << 20 // bytes

// loadFile reads the file that the sources name, or the default one if it is
// there.
func (c *Config) loadFile(from Sources) error {
	path, required := from.File, true
	if path == "" {
		path, _ = from.Lookup(FileVariable)
	}
	if path == "" {
		path, required = DefaultFile, false
	}
	data, mode, err := readFile(path)
	if errors.Is(err, fs.ErrNotExist) && !required {
		return nil
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	if c.file, err = filepath.Abs(path); err != nil {
		return fmt.Errorf("%w: %w", ErrInvalid, err)
	}
	c.content = data
	if err := c.decode(data); err != nil {
		return fmt.Errorf("%w: %s: %w", ErrInvalid, path, err)
	}
	if mode&0o004 != 0 && hasPassword(c.Postgres.Connection) {
		return fmt.Errorf("%w: %s holds a password and can be read by everyone: chmod o= it, or keep the password in ~/.pgpass",
			ErrInvalid, path)
	}
	return nil
}

// readFile reads a file of settings. One that everyone can write to is
// refused: it decides where backups go and who can read them.
func readFile(path string) ([]byte, fs.FileMode, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, 0, err
	}
	if !info.Mode().IsRegular() {
		return nil, 0, fmt.Errorf("%s is not a regular file", path)
	}
	if info.Mode()&0o002 != 0 {
		return nil, 0, fmt.Errorf("%s can be written by everyone: chmod o-w it", path)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxFileSize+1))
	if err != nil {
		return nil, 0, fmt.Errorf("read %s: %w", path, err)
	}
	if len(data) > maxFileSize {
		return nil, 0, fmt.Errorf("%s has more than %d bytes", path, maxFileSize)
	}
	return data, info.Mode(), nil
}

// decode sets what the file sets. Messages carry positions or keys, never
// lines of the file, which may hold a secret.
func (c *Config) decode(data []byte) error {
	var tree map[string]any
	if err := toml.Unmarshal(data, &tree); err != nil {
		return withPosition(err)
	}
	for _, k := range Keys() {
		value, found := inTree(tree, k.Name)
		if !found {
			continue
		}
		c.origins[k.Name] = Origin{OriginFile, c.file}
		if _, units := k.field(c).(encoding.TextUnmarshaler); units {
			if err := setField(k.field(c), fmt.Sprint(value)); err != nil {
				return fmt.Errorf("%s: %w", k.Name, err)
			}
		}
	}
	decoder := toml.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	return withPosition(decoder.Decode(c))
}

// withPosition says where in the file an error of the TOML library is.
func withPosition(err error) error {
	if unknown, is := errors.AsType[*toml.StrictMissingError](err); is {
		first := unknown.Errors[0]
		line, _ := first.Position()
		return fmt.Errorf("line %d: unknown setting %s", line, strings.Join(first.Key(), "."))
	}
	if malformed, is := errors.AsType[*toml.DecodeError](err); is {
		line, column := malformed.Position()
		what := strings.TrimPrefix(malformed.Error(), "toml: ")
		if key := strings.Join(malformed.Key(), "."); key != "" {
			what = key + ": " + what
		}
		return fmt.Errorf("line %d, column %d: %s", line, column, what)
	}
	return err
}

func inTree(tree map[string]any, key string) (any, bool) {
	section, name, nested := strings.Cut(key, ".")
	value, found := tree[section]
	if !found || !nested {
		return value, found
	}
	inner, isTable := value.(map[string]any)
	if !isTable {
		return nil, false
	}
	return inTree(inner, name)
}
