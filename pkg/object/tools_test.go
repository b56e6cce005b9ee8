//go:build integration

package object_test

import (
	"bytes"
	"encoding/hex"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/walship/walship/pkg/compress"
	"github.com/walship/walship/pkg/object"
)

// shell runs a script with its arguments as $1, $2, ….
func shell(t *testing.T, script string, args ...string) []byte {
	t.Helper()
	var out, stderr bytes.Buffer
	cmd := exec.Command("bash", append([]string{"-euo", "pipefail", "-c", script, "bash"}, args...)...)
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%s: %v: %s", script, err, stderr.Bytes())
	}
	return out.Bytes()
}

// TestStockTools: Debian's own tools open what was sealed, at each level and
// with each recipient.
func TestStockTools(t *testing.T) {
	recipients, files := newKeys(t, false, 2)
	for _, size := range []int{0, 1, 16 << 20} {
		content := likeWAL(size)
		for _, level := range []compress.Level{compress.Fastest, compress.Default, compress.Better, compress.Best} {
			plain := &object.Sealer{Repository: repository, Level: level}
			encrypted := &object.Sealer{Repository: repository, Level: level, Recipients: recipients}
			stored := write(t, seal(t, plain, segment(content), content))
			if got := shell(t, `zstd -dc <"$1"`, stored); !bytes.Equal(got, content) {
				t.Errorf("%s, %d bytes: zstd gives other bytes", level, size)
			}
			stored = write(t, seal(t, encrypted, segment(content), content))
			for _, identity := range files {
				if got := shell(t, `/usr/bin/age -d -i "$1" <"$2" | zstd -dc`, identity, stored); !bytes.Equal(got, content) {
					t.Errorf("%s, %d bytes: age and zstd give other bytes", level, size)
				}
			}
		}
	}
}

// TestStoredDigest: sha256sum checks an object without an identity.
func TestStoredDigest(t *testing.T) {
	recipients, _ := newKeys(t, true, 1)
	s := &object.Sealer{Repository: repository, Recipients: recipients}
	var stored bytes.Buffer
	w, err := s.Seal(&stored, part())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(likeWAL(1 << 20)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	sum, _, _ := strings.Cut(string(shell(t, `sha256sum "$1"`, write(t, stored.Bytes()))), " ")
	if want := hex.EncodeToString(w.Result().StoredDigest.Sum); sum != want {
		t.Errorf("sha256sum says %s, the result %s", sum, want)
	}
}

// TestHeaderInTheClear: the documented way to read a context header with a
// shell, from both forms.
func TestHeaderInTheClear(t *testing.T) {
	recipients, _ := newKeys(t, false, 1)
	content := likeWAL(8 << 10)
	for _, s := range []*object.Sealer{{Repository: repository}, {Repository: repository, Recipients: recipients}} {
		stored := write(t, seal(t, s, segment(content), content))
		script := `tail -c +9 "$1" | LC_ALL=C sed -n '1,/^end=/p'`
		if s.Recipients != nil {
			// base64 complains of padding that is too long, after the last byte.
			script = `LC_ALL=C sed -n '3,/^->/{/^->/!p}' "$1" | { tr -d '\n'; echo ==; } | base64 -d 2>/dev/null || true`
		}
		got := string(shell(t, script, stored))
		if h, err := object.ParseHeader([]byte(got)); err != nil || h.Name != segment(nil).Name {
			t.Errorf("header read with a shell: %v\n%s", err, got)
		}
	}
}

func write(t *testing.T, data []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "object")
	if err := os.WriteFile(name, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}
