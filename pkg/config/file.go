package config

import (
	"bytes"
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

// decode sets what the file sets. Messages carry positions, never lines of
// the file, which may hold a secret.
func (c *Config) decode(data []byte) error {
	decoder := toml.NewDecoder(bytes.NewReader(data))
	decoder.DisallowUnknownFields()
	err := decoder.Decode(c)
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
	if err != nil {
		return err
	}
	var tree map[string]any
	if err := toml.Unmarshal(data, &tree); err != nil {
		return err
	}
	for _, k := range Keys() {
		if inTree(tree, k.Name) {
			c.origins[k.Name] = Origin{OriginFile, c.file}
		}
	}
	return nil
}

func inTree(tree map[string]any, key string) bool {
	section, name, nested := strings.Cut(key, ".")
	value, found := tree[section]
	if !found || !nested {
		return found
	}
	inner, isTable := value.(map[string]any)
	return isTable && inTree(inner, name)
}
