//go:build integration

package crypto_test

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/walship/walship/pkg/crypto"
)

func run(t *testing.T, input []byte, name string, args ...string) []byte {
	t.Helper()
	var out, stderr bytes.Buffer
	cmd := exec.Command(name, args...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(input), &out, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s %v: %v: %s", name, args, err, stderr.Bytes())
	}
	return out.Bytes()
}

// ageTool builds the age command of the library's own version, which knows
// post-quantum recipients; Debian's 1.1 doesn't.
func ageTool(t *testing.T) string {
	t.Helper()
	folder := t.TempDir()
	t.Setenv("GOBIN", folder)
	version := run(t, nil, "go", "list", "-m", "-f", "{{.Version}}", "filippo.io/age")
	run(t, nil, "go", "install", "filippo.io/age/cmd/age@"+string(bytes.TrimSpace(version)))
	return filepath.Join(folder, "age")
}

func TestToolOpens(t *testing.T) {
	current := ageTool(t)
	for _, test := range []struct {
		name, tool  string
		postQuantum bool
	}{
		{"Debian's age", "/usr/bin/age", false},
		{"current age, classic", current, false},
		{"current age, post-quantum", current, true},
	} {
		t.Run(test.name, func(t *testing.T) {
			keys := newKeys(t, test.postQuantum, 2)
			plain := bytes.Repeat([]byte("content "), 50_000)
			stored := sealed(t, parse(t, recipientsOf(keys)...), []byte("format=walship.dev/v1\n"), plain)
			for _, key := range keys {
				if got := run(t, stored, test.tool, "-d", "-i", write(t, key.secret+"\n", 0o600)); !bytes.Equal(got, plain) {
					t.Errorf("age -d gives %d other bytes, of %d", len(got), len(plain))
				}
			}
		})
	}
}

func TestToolMakesIdentities(t *testing.T) {
	text := string(run(t, nil, "age-keygen"))
	ids, err := crypto.LoadIdentities([]string{write(t, text, 0o600)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	stored := sealed(t, parse(t, ids.Recipients()...), []byte("a record"), []byte("plain"))
	if _, plain, err := opened(ids, bytes.NewReader(stored)); err != nil || string(plain) != "plain" {
		t.Errorf("open: %q, %v", plain, err)
	}
	secret, recipient, err := crypto.NewIdentity(false)
	if err != nil {
		t.Fatal(err)
	}
	if got := run(t, []byte(secret+"\n"), "age-keygen", "-y"); string(got) != recipient+"\n" {
		t.Errorf("age-keygen -y says %q, want %s", got, recipient)
	}
}
