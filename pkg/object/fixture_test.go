package object_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/walship/walship/pkg/crypto"
	"github.com/walship/walship/pkg/object"
)

// newKey makes an identity and its recipient.
func newKey(t testing.TB, postQuantum bool) (*crypto.Recipients, *crypto.Identities) {
	t.Helper()
	recipients, files := newKeys(t, postQuantum, 1)
	return recipients, load(t, files[0])
}

// newKeys makes several identities, each in a file, and the recipients of all.
func newKeys(t testing.TB, postQuantum bool, n int) (*crypto.Recipients, []string) {
	t.Helper()
	var keys, files []string
	for range n {
		secret, recipient, err := crypto.NewIdentity(postQuantum)
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "identity")
		if err := os.WriteFile(file, []byte("# created for a test\n"+secret+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		keys, files = append(keys, recipient), append(files, file)
	}
	recipients, err := crypto.ParseRecipients(keys)
	if err != nil {
		t.Fatal(err)
	}
	return recipients, files
}

func load(t testing.TB, file string) *crypto.Identities {
	t.Helper()
	identities, err := crypto.LoadIdentities([]string{file}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return identities
}

// seal returns the object of content, written in uneven pieces.
func seal(t testing.TB, s *object.Sealer, h object.Header, content []byte) []byte {
	t.Helper()
	var stored bytes.Buffer
	w, err := s.Seal(&stored, h)
	if err != nil {
		t.Fatal(err)
	}
	for rest, n := content, 1; len(rest) > 0; n = n*3 + 1 {
		piece := rest[:min(n, len(rest))]
		if _, err := w.Write(piece); err != nil {
			t.Fatal(err)
		}
		rest = rest[len(piece):]
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return stored.Bytes()
}
