package backup

import (
	"archive/tar"
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/walship/walship/pkg/postgres"
	"github.com/walship/walship/pkg/repo"
)

// maxConfigurationFile bounds the size of one configuration file in bytes.
const maxConfigurationFile = 16 << 20

// putConfiguration stores the configuration files that lie outside the data
// directory, as on Debian: those that the server names, those that settings in
// force came from, and those that any of them includes. Without any there is
// no such object.
func (r *run) putConfiguration(ctx context.Context) error {
	files := configuration{inside: r.inBackup, content: make(map[string][]byte)}
	named := map[string]string{"config_file": r.facts.ConfigFile, "hba_file": r.facts.HBAFile, "ident_file": r.facts.IdentFile}
	for _, name := range append([]string{r.facts.ConfigFile, r.facts.HBAFile, r.facts.IdentFile}, r.facts.SourceFiles...) {
		if err := files.add(name, 0); err != nil {
			return fmt.Errorf("read configuration: %w", err)
		}
	}
	if files.private != "" {
		r.log.Warn("left out the server's pg_hba.conf, with which restore run --start lets in whoever gets to its private socket: the backup has the one in the data directory, if there is one; to back up the cluster's own, start it with the command that the restore printed",
			"file", files.private)
	}
	if len(files.content) == 0 {
		return nil
	}
	id := r.record.ID
	stored, err := r.putObject(ctx, repo.ConfigurationKey(r.record.SystemID, id), repo.ConfigurationHeader(r.record.SystemID, id),
		func(_ context.Context, w io.Writer) error { return files.write(w) })
	if err != nil {
		return err
	}
	r.record.Configuration, r.record.ConfigurationOf = &stored, make(map[string]string)
	for setting, name := range named {
		if _, ok := files.content[filepath.Clean(name)]; ok {
			r.record.ConfigurationOf[setting] = filepath.Clean(name)
		}
	}
	return nil
}

// inBackup says whether a configuration file is among the files of the data
// directory. A link there isn't: what it leads to is captured.
func (r *run) inBackup(name string) bool {
	for _, dir := range []string{r.facts.DataDirectory, r.record.DataDirectory} {
		rel, err := filepath.Rel(dir, name)
		if err != nil || !filepath.IsLocal(rel) {
			continue
		}
		info, err := r.data.root.Lstat(rel)
		return err == nil && info.Mode().IsRegular()
	}
	return false
}

// configuration gathers files by their absolute path.
type configuration struct {
	inside  func(name string) bool
	content map[string][]byte
	seen    map[string]bool
	private string // the pg_hba.conf of restore run --start, which is left out
}

// maxIncludes is how deep includes may be nested, as in PostgreSQL
// (CONF_FILE_MAX_DEPTH in src/include/utils/conffiles.h).
const maxIncludes = 10

// add reads a file and those that it includes. A file that doesn't exist is
// passed over: include_if_exists allows that, and hba_file may be changed and
// not yet loaded.
func (c *configuration) add(name string, depth int) error {
	name = filepath.Clean(name)
	if c.seen == nil {
		c.seen = make(map[string]bool)
	}
	if !filepath.IsAbs(name) || c.seen[name] || depth > maxIncludes {
		return nil
	}
	c.seen[name] = true
	content, err := readConfiguration(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("%w: run walship as the user that the server runs as", err)
	}
	if err != nil {
		return err
	}
	if postgres.IsPrivateAccess(name, content) {
		c.private = name
		return nil
	}
	if !c.inside(name) {
		c.content[name] = content
	}
	included, err := includes(name, content)
	if err != nil {
		return err
	}
	for _, included := range included {
		if err := c.add(included, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func readConfiguration(name string) ([]byte, error) {
	file, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() || info.Size() > maxConfigurationFile {
		return nil, fmt.Errorf("%s isn't a file of at most %d bytes", name, maxConfigurationFile)
	}
	return io.ReadAll(io.LimitReader(file, maxConfigurationFile))
}

// includes lists the files that the lines include, include_if_exists and
// include_dir name, which postgresql.conf has, and pg_hba.conf and
// pg_ident.conf from 16 on. Relative names start at the file's own folder.
func includes(name string, content []byte) ([]string, error) {
	var list []string
	lines := bufio.NewScanner(bytes.NewReader(content))
	lines.Buffer(nil, maxConfigurationFile)
	for lines.Scan() {
		directive, rest := cutWord(lines.Text())
		value := unquote(strings.TrimSpace(strings.TrimPrefix(rest, "=")))
		if value == "" {
			continue
		}
		if !filepath.IsAbs(value) {
			value = filepath.Join(filepath.Dir(name), value)
		}
		switch strings.ToLower(directive) {
		case "include", "include_if_exists":
			list = append(list, value)
		case "include_dir":
			files, err := confFiles(value)
			if err != nil {
				return nil, err
			}
			list = append(list, files...)
		}
	}
	return list, lines.Err()
}

func cutWord(line string) (word, rest string) {
	line = strings.TrimSpace(line)
	if i := strings.IndexAny(line, " \t='\""); i >= 0 {
		return line[:i], strings.TrimSpace(line[i:])
	}
	return line, ""
}

// unquote takes a value out of single quotes (settings) or double quotes
// (pg_hba.conf), in which a quote is written twice, or ends it at a comment.
func unquote(value string) string {
	if value == "" || value[0] != '\'' && value[0] != '"' {
		value, _, _ = strings.Cut(value, "#")
		return strings.TrimSpace(value)
	}
	quote, out := value[0], []byte(nil)
	for i := 1; i < len(value); i++ {
		if value[i] == quote {
			if i+1 == len(value) || value[i+1] != quote {
				break
			}
			i++
		}
		out = append(out, value[i])
	}
	return string(out)
}

// confFiles lists what include_dir takes of a folder: names that end in .conf
// and don't start with a dot. A folder that doesn't exist has none.
func confFiles(dir string) ([]string, error) {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	var list []string
	for _, entry := range entries {
		if name := entry.Name(); strings.HasSuffix(name, ".conf") && !strings.HasPrefix(name, ".") {
			list = append(list, filepath.Join(dir, name))
		}
	}
	return list, nil
}

// write makes a tar of the files, each below its path without the leading
// slash.
func (c *configuration) write(w io.Writer) error {
	archive := tar.NewWriter(w)
	for _, name := range slices.Sorted(maps.Keys(c.content)) {
		content := c.content[name]
		header := &tar.Header{Typeflag: tar.TypeReg, Name: strings.TrimPrefix(name, "/"), Mode: 0o600, Size: int64(len(content)), Format: tar.FormatGNU}
		if err := archive.WriteHeader(header); err != nil {
			return fmt.Errorf("write %s to the configuration: %w", name, err)
		}
		if _, err := archive.Write(content); err != nil {
			return err
		}
	}
	return archive.Close()
}
