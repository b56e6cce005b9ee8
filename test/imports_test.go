// Package test holds what concerns the whole source tree.
package test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/walship/walship/"

// Modules of others that a package may import; a prefix of the import path.
const (
	age     = "filippo.io/age"
	aws     = "github.com/aws/"
	blake3  = "github.com/zeebo/blake3"
	cli     = "github.com/urfave/cli/v2"
	pgx     = "github.com/jackc/pgx/v5"
	sys     = "golang.org/x/sys"
	term    = "golang.org/x/term"
	toml    = "github.com/pelletier/go-toml/v2"
	xxhash  = "github.com/cespare/xxhash/v2"
	xsync   = "golang.org/x/sync"
	zstd    = "github.com/klauspost/compress"
	scripts = "github.com/rogpeppe/go-internal"
)

// rule says what the files of one package may import besides Go's standard
// library. Layers follow from it: leaves, then object and repo, then archive,
// then the capabilities (which don't know each other), then cmd.
type rule struct {
	own    string // packages of pkg, separated by spaces; "*" for all
	others string // modules of others, separated by spaces
}

var rules = map[string]rule{
	"pkg/wal":                 {"", ""},
	"pkg/wal/waltest":         {"wal", ""},
	"pkg/storage":             {"", ""},
	"pkg/storage/file":        {"storage durable", ""},
	"pkg/storage/s3":          {"storage", aws + " " + xsync},
	"pkg/storage/mem":         {"storage", ""},
	"pkg/storage/storagetest": {"storage", ""},
	"pkg/crypto":              {"", age},
	"pkg/compress":            {"walzstd", zstd},
	"pkg/walzstd":             {"", zstd + " " + xxhash},
	"pkg/durable":             {"", sys},
	"pkg/pgdata":              {"wal", sys},
	"pkg/config":              {"", toml},
	"pkg/done":                {"", ""},

	"pkg/object": {"wal storage compress crypto", blake3 + " " + sys},
	"pkg/repo":   {"wal storage compress crypto object", ""},

	"pkg/archive":  {"wal storage crypto object repo done durable pgdata", xsync},
	"pkg/postgres": {"wal storage pgdata", pgx},

	"pkg/search":  {"wal storage compress object repo archive", xsync},
	"pkg/backup":  {"wal storage repo object archive durable postgres pgdata", xsync + " " + sys},
	"pkg/restore": {"wal storage crypto repo object archive durable postgres pgdata", xsync + " " + sys},

	"pkg/status": {"wal storage object repo archive restore", xsync},

	"pkg/rescue": {"wal repo restore search postgres", ""},

	"cmd/walship":       {"*", cli + " " + term},
	"cmd/walship/early": {"config done", ""}, // its test reads settings
}

// TestImports holds the layers. Test files may import what they like, apart
// from what only cmd may.
func TestImports(t *testing.T) {
	seen := map[string]bool{}
	for _, top := range []string{"cmd", "pkg"} {
		walk := func(name string, entry fs.DirEntry, err error) error {
			switch {
			case err != nil:
				return err
			case entry.IsDir() && entry.Name() == "testdata":
				return fs.SkipDir
			case !entry.IsDir() && strings.HasSuffix(name, ".go"):
				checkFile(t, name, seen)
			}
			return nil
		}
		if err := fs.WalkDir(os.DirFS(".."), top, walk); err != nil {
			t.Fatal(err)
		}
	}
	for dir := range rules {
		if !seen[dir] {
			t.Errorf("%s has a rule, and no Go files", dir)
		}
	}
}

func checkFile(t *testing.T, name string, seen map[string]bool) {
	t.Helper()
	dir := path.Dir(name)
	seen[dir] = true
	allowed, ok := rules[dir]
	if !ok {
		t.Errorf("%s: the package %s isn't in the table of this test: what may it import?", name, dir)
		return
	}
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join("..", name), nil, parser.ImportsOnly)
	if err != nil {
		t.Errorf("%v", err)
		return
	}
	for _, spec := range file.Imports {
		imported, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if reason := refuse(allowed, imported, strings.HasSuffix(name, "_test.go")); reason != "" {
			t.Errorf("%s imports %s: %s", name, imported, reason)
		}
	}
}

// refuse returns why a package under the rule may not import that path, or "".
func refuse(allowed rule, imported string, inTest bool) string {
	own, isOwn := strings.CutPrefix(imported, module)
	first, _, _ := strings.Cut(imported, "/")
	switch {
	case imported == "C":
		return "walship is built without C"
	case !isOwn && !strings.Contains(first, "."): // the standard library
		return ""
	case isOwn && allowed.own == "*":
		return ""
	case isOwn && own == "pkg/config" && !slices.Contains(strings.Fields(allowed.own), "config"):
		return "only cmd reads settings"
	case isOwn && inTest:
		return ""
	case isOwn && (own == "pkg/wal/waltest" || own == "pkg/storage/mem" || own == "pkg/storage/storagetest" || !strings.HasPrefix(own, "pkg/")):
		return "that is for tests"
	case isOwn && !slices.Contains(strings.Fields(allowed.own), strings.TrimPrefix(own, "pkg/")):
		return "the table of this test doesn't let it"
	case isOwn:
		return ""
	case inTest && !strings.HasPrefix(imported, cli):
		return ""
	}
	for _, prefix := range strings.Fields(allowed.others) {
		if strings.HasPrefix(imported, prefix) {
			return ""
		}
	}
	return "the table of this test doesn't let it"
}

func TestRefuse(t *testing.T) {
	for _, test := range []struct {
		dir, imported string
		inTest, want  bool // want: refused
	}{
		{"pkg/wal", "io", false, false},
		{"pkg/wal", "go/parser", false, false},
		{"pkg/wal", "C", false, true},
		{"pkg/wal", module + "pkg/storage", false, true},
		{"pkg/backup", module + "pkg/restore", false, true},
		{"pkg/backup", module + "pkg/restore", true, false},
		{"pkg/backup", module + "pkg/storage/mem", false, true},
		{"pkg/backup", module + "pkg/storage/mem", true, false},
		{"pkg/backup", module + "test/pgtest", false, true},
		{"pkg/archive", module + "pkg/config", true, true},
		{"pkg/archive", cli, true, true},
		{"pkg/object", age, false, true},
		{"pkg/object", age, true, false},
		{"pkg/crypto", age + "/armor", false, false},
		{"cmd/walship", aws + "aws-sdk-go-v2/aws", false, true},
		{"cmd/walship", module + "pkg/config", false, false},
		{"cmd/walship", cli, false, false},
		{"cmd/walship", scripts + "/testscript", false, true},
		{"cmd/walship", scripts + "/testscript", true, false},
	} {
		if reason := refuse(rules[test.dir], test.imported, test.inTest); (reason != "") != test.want {
			t.Errorf("%s imports %s (test: %v): refused %q, want %v", test.dir, test.imported, test.inTest, reason, test.want)
		}
	}
}
