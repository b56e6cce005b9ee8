package test

import (
	"bufio"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// documents reads every Markdown file of the tree, by its path from the root.
func documents(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir("..", func(path string, entry fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case entry.IsDir() && (entry.Name() == ".git" || entry.Name() == "testdata"):
			return fs.SkipDir
		case entry.IsDir() || !strings.HasSuffix(path, ".md"):
			return nil
		}
		data, err := os.ReadFile(path)
		all[strings.TrimPrefix(filepath.ToSlash(path), "../")] = string(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if all["README.md"] == "" {
		t.Fatal("there is no README.md")
	}
	return all
}

var (
	codeBlock = regexp.MustCompile("(?ms)^```.*?^```$")
	codeSpan  = regexp.MustCompile("`[^`]*`")
	link      = regexp.MustCompile(`\[[^\]]*\]\(([^)\s]+)\)`)
	heading   = regexp.MustCompile(`(?m)^#+ (.*)$`)
	notAnchor = regexp.MustCompile(`[^a-z0-9 _-]`)
)

// anchors lists the anchors of a document's headings, as GitHub makes them.
func anchors(text string) []string {
	var all []string
	for _, h := range heading.FindAllStringSubmatch(codeBlock.ReplaceAllString(text, ""), -1) {
		all = append(all, strings.ReplaceAll(notAnchor.ReplaceAllString(strings.ToLower(h[1]), ""), " ", "-"))
	}
	return all
}

// TestLinks follows every relative link of every document.
func TestLinks(t *testing.T) {
	docs := documents(t)
	followed := 0
	for name, text := range docs {
		text = codeSpan.ReplaceAllString(codeBlock.ReplaceAllString(text, ""), "")
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			followed++
			file, anchor, hasAnchor := strings.Cut(m[1], "#")
			path := name
			if file != "" {
				path = filepath.Join(filepath.Dir(name), file)
			}
			if _, err := os.Stat(filepath.Join("..", path)); err != nil {
				t.Errorf("%s links to %s, which isn't there", name, m[1])
			} else if hasAnchor && !slices.Contains(anchors(docs[path]), anchor) {
				t.Errorf("%s links to %s, which has no such heading", name, m[1])
			}
		}
	}
	if followed < 10 {
		t.Errorf("only %d links were found", followed)
	}
}

var namedTest = regexp.MustCompile("`((?:cmd|pkg|test)/[a-z0-9/]+)\\.((?:Test|Fuzz)[A-Za-z0-9]+)`")

// TestNamedTests holds that the tests that documents name exist.
func TestNamedTests(t *testing.T) {
	sources := map[string]string{} // of the tests, by folder
	found := 0
	for name, text := range documents(t) {
		for _, m := range namedTest.FindAllStringSubmatch(text, -1) {
			dir, test := m[1], m[2]
			if _, read := sources[dir]; !read {
				files, err := filepath.Glob(filepath.Join("..", dir, "*_test.go"))
				if err != nil {
					t.Fatal(err)
				}
				for _, file := range files {
					data, err := os.ReadFile(file)
					if err != nil {
						t.Fatal(err)
					}
					sources[dir] += string(data)
				}
			}
			found++
			if !strings.Contains(sources[dir], "\nfunc "+test+"(") {
				t.Errorf("%s names %s.%s, which doesn't exist", name, dir, test)
			}
		}
	}
	if found < 50 {
		t.Errorf("only %d tests are named", found)
	}
}

// TestNumberedLists holds that the lists of faults and rules have no gaps, and
// that each item says what holds it.
func TestNumberedLists(t *testing.T) {
	docs := documents(t)
	item := regexp.MustCompile(`(?ms)^\*\*(\d+)\.\*\* (.*?)(?:\n\n|\z)`)
	for name, want := range map[string]int{"docs/faults.md": 56, "docs/postgres-rules.md": 30} {
		items := item.FindAllStringSubmatch(docs[name], -1)
		if len(items) != want {
			t.Errorf("%s has %d items, want %d", name, len(items), want)
		}
		for i, m := range items {
			if m[1] != strconv.Itoa(i+1) {
				t.Errorf("%s: item %s stands at place %d", name, m[1], i+1)
			}
			if !strings.Contains(m[2], "\nHeld by") {
				t.Errorf("%s: item %s doesn't say what holds it", name, m[1])
			}
		}
	}
}

// program is walship, built as the documents say.
func program(t *testing.T) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "walship")
	build := exec.Command("go", "build", "-o", path, "../cmd/walship")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if output, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build walship: %v\n%s", err, output)
	}
	return path
}

// command is one of walship's commands, as its --help describes it.
type command struct {
	flags    []string
	usage    string
	children map[string]*command // nil for one that does something
}

var (
	helpCommand = regexp.MustCompile(`^   ([a-z]+)(?:, [a-z]+)*  `)
	helpFlag    = regexp.MustCompile(`--([a-z][a-z-]*)`)
)

// describe reads the help of a command and of those below it.
func describe(t *testing.T, program string, words ...string) *command {
	t.Helper()
	help, err := exec.Command(program, append(slices.Clone(words), "--help")...).Output()
	if err != nil {
		t.Fatalf("walship %s --help: %v", strings.Join(words, " "), err)
	}
	c := &command{}
	section := ""
	lines := bufio.NewScanner(strings.NewReader(string(help)))
	for lines.Scan() {
		line := lines.Text()
		switch {
		case line != "" && line[0] != ' ':
			section = line
		case section == "USAGE:" && strings.TrimSpace(line) != "":
			c.usage = strings.TrimSpace(line)
		case section == "COMMANDS:" && helpCommand.MatchString(line):
			if c.children == nil {
				c.children = map[string]*command{}
			}
			name := helpCommand.FindStringSubmatch(line)[1]
			c.children[name] = describe(t, program, append(slices.Clone(words), name)...)
		case strings.HasPrefix(strings.TrimSpace(line), "--"):
			names, _, _ := strings.Cut(strings.TrimSpace(line), "  ")
			for _, m := range helpFlag.FindAllStringSubmatch(names, -1) {
				c.flags = append(c.flags, m[1])
			}
		}
	}
	return c
}

// invocation is a line, or a part of one, that calls walship.
var invocation = regexp.MustCompile(`(?:^|[ /'"(\x60$])walship((?: (?:--?[a-z-]+(?:[ =][A-Z/][^ ]*)?|[a-z]+))+)`)

// TestCommands holds that every command and flag that documents show exists,
// and that every command has its place in docs.
func TestCommands(t *testing.T) {
	// The label of a backup that isn't given another.
	const label = "walship base backup"
	root := describe(t, program(t))
	checked := 0
	docs := documents(t)
	for name, text := range docs {
		code := append(codeBlock.FindAllString(text, -1), codeSpan.FindAllString(codeBlock.ReplaceAllString(text, ""), -1)...)
		for line := range strings.Lines(codeBlock.ReplaceAllString(text, "")) {
			if strings.HasPrefix(line, "    ") {
				code = append(code, line)
			}
		}
		for _, block := range code {
			for line := range strings.Lines(strings.ReplaceAll(block, "\\\n", "")) {
				for _, m := range invocation.FindAllStringSubmatch(strings.ReplaceAll(line, label, ""), -1) {
					checked++
					if why := root.accepts(strings.Fields(m[1])); why != "" {
						t.Errorf("%s: walship%s: %s", name, m[1], why)
					}
				}
			}
		}
	}
	if checked < 30 {
		t.Errorf("only %d calls of walship were found", checked)
	}
	var all strings.Builder
	for name, text := range docs {
		if strings.HasPrefix(name, "docs/") {
			all.WriteString(text)
		}
	}
	root.each("walship", func(name string, c *command) {
		if !strings.Contains(all.String(), "\n    "+c.usage+"\n") {
			t.Errorf("no document has the usage of %s: %q", name, c.usage)
		}
	})
}

// accepts says why a command line isn't one of walship's, or "". It knows the
// words up to the first that is neither a command nor a flag.
func (c *command) accepts(words []string) string {
	for _, word := range words {
		if flag, is := strings.CutPrefix(word, "--"); is {
			flag, _, _ = strings.Cut(flag, "=")
			if !slices.Contains(c.flags, flag) {
				return "there is no flag --" + flag
			}
			continue
		}
		if c.children == nil || word != strings.ToLower(word) || strings.HasPrefix(word, "/") {
			continue // a value or an argument
		}
		child := c.children[word]
		if child == nil {
			return "there is no command " + word
		}
		c = child
	}
	return ""
}

// each visits the commands that do something.
func (c *command) each(name string, visit func(string, *command)) {
	if c.children == nil {
		visit(name, c)
	}
	for word, child := range c.children {
		child.each(name+" "+word, visit)
	}
}
