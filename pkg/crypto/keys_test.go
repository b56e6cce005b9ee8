package crypto_test

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"filippo.io/age"
	"filippo.io/age/armor"

	"github.com/walship/walship/pkg/crypto"
)

type key struct{ secret, recipient string }

func newKeys(t testing.TB, postQuantum bool, n int) []key {
	t.Helper()
	var keys []key
	for range n {
		secret, recipient, err := crypto.NewIdentity(postQuantum)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, key{secret, recipient})
	}
	return keys
}

func recipientsOf(keys []key) []string {
	var list []string
	for _, k := range keys {
		list = append(list, k.recipient)
	}
	return list
}

func parse(t testing.TB, recipients ...string) *crypto.Recipients {
	t.Helper()
	r, err := crypto.ParseRecipients(recipients)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func (k key) load(t testing.TB) *crypto.Identities {
	t.Helper()
	ids, err := crypto.LoadIdentities([]string{write(t, k.secret+"\n", 0o600)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return ids
}

func write(t testing.TB, content string, mode fs.FileMode) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "identity.txt")
	if err := os.WriteFile(name, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(name, mode); err != nil {
		t.Fatal(err)
	}
	return name
}

func TestParseRecipients(t *testing.T) {
	classic, hybrid := newKeys(t, false, 2), newKeys(t, true, 2)
	many := recipientsOf(newKeys(t, false, crypto.MaxRecipients+1))
	tests := []struct {
		name string
		keys []string
		err  string
	}{
		{"classic", recipientsOf(classic), ""},
		{"post-quantum", recipientsOf(hybrid), ""},
		{"spaces around", []string{" " + classic[0].recipient + "\n"}, ""},
		{"as many as may be", many[1:], ""},
		{"one more", many, "at most 20"},
		{"none", nil, "no age recipient"},
		{"mixed", []string{classic[0].recipient, hybrid[0].recipient}, "can't be mixed"},
		{"mixed the other way", []string{hybrid[0].recipient, classic[0].recipient}, "can't be mixed"},
		{"twice", []string{classic[0].recipient, classic[1].recipient, classic[0].recipient}, "recipient 3: it is given twice"},
		{"secret key", []string{classic[0].recipient, classic[1].secret}, "recipient 2: this is a secret key"},
		{"secret key in lower case", []string{strings.ToLower(hybrid[1].secret)}, "this is a secret key"},
		{"cut", []string{classic[0].recipient[:40]}, "malformed"},
		{"typing error", []string{strings.Replace(hybrid[0].recipient, hybrid[0].recipient[20:24], "qqqq", 1)}, "malformed"},
		{"ssh", []string{"ssh-ed25519 AAAA"}, "doesn't start with age1"},
		{"empty", []string{""}, "doesn't start with age1"},
	}
	for _, test := range tests {
		r, err := crypto.ParseRecipients(test.keys)
		if test.err == "" {
			if err != nil || len(r.Strings()) != len(test.keys) || r.Strings()[0] != strings.TrimSpace(test.keys[0]) {
				t.Errorf("%s: %v", test.name, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), test.err) {
			t.Errorf("%s: error %v, want %q", test.name, err, test.err)
			continue
		}
		noSecret(t, err, test.keys...)
	}
}

// noSecret: fault 53, an error repeats no part of a key.
func noSecret(t *testing.T, err error, keys ...string) {
	t.Helper()
	text := strings.ToLower(err.Error())
	for _, key := range keys {
		key = strings.ToLower(strings.TrimSpace(key))
		for i := 20; i+8 <= len(key); i++ {
			if strings.Contains(text, key[i:i+8]) {
				t.Errorf("the error repeats %q of a key: %v", key[i:i+8], err)
				return
			}
		}
	}
}

func TestFingerprints(t *testing.T) {
	k := newKeys(t, true, 1)[0]
	sum := sha256.Sum256([]byte(k.recipient))
	want := []string{hex.EncodeToString(sum[:])[:16]}
	if got := parse(t, k.recipient).Fingerprints(); !slices.Equal(got, want) {
		t.Errorf("fingerprints of recipients: %v, want %v", got, want)
	}
	if got := k.load(t).Fingerprints(); !slices.Equal(got, want) {
		t.Errorf("fingerprints of identities: %v, want %v", got, want)
	}
	var none *crypto.Identities
	if got := none.Fingerprints(); len(got) > 0 {
		t.Errorf("fingerprints of no identities: %v", got)
	}
}

func TestIdentityFiles(t *testing.T) {
	a, b := newKeys(t, false, 1)[0], newKeys(t, true, 1)[0]
	text := "# created: 2026-11-20\r\n# public key: " + a.recipient + "\r\n" + a.secret + "\r\n\r\n  " + b.secret + "  "
	both := []string{a.recipient, b.recipient}
	protected := func(armored bool, workFactor int) string {
		return encryptFile(t, text, "correct horse", armored, workFactor)
	}
	ask := func(answer string) func(string) (string, error) {
		return func(string) (string, error) { return answer, nil }
	}
	tests := []struct {
		name       string
		content    string
		passphrase func(string) (string, error)
		err        string
	}{
		{name: "comments, CRLF, spaces, no last newline", content: text},
		{name: "binary, protected", content: protected(false, 10), passphrase: ask("correct horse")},
		{name: "armored, protected", content: protected(true, 10), passphrase: ask("correct horse")},
		{name: "armored behind empty lines", content: "\n\n" + protected(true, 10), passphrase: ask("correct horse")},
		{name: "nobody to ask", content: protected(true, 10), err: "no way to ask"},
		{name: "wrong passphrase", content: protected(true, 10), passphrase: ask("wrong"), err: "wrong passphrase"},
		{name: "empty passphrase", content: protected(true, 10), passphrase: ask(""), err: "passphrase can't be empty"},
		{name: "no answer", content: protected(false, 10), passphrase: func(string) (string, error) { return "", errors.New("no terminal") }, err: "no terminal"},
		{name: "too much work", content: strings.Replace(protected(false, 10), " 10\n", " 21\n", 1), passphrase: ask("correct horse"), err: "work factor too large"},
		{name: "protected, cut", content: protected(false, 10)[:250], passphrase: ask("correct horse"), err: "decrypt"},
		{name: "encrypted to a recipient", content: string(sealed(t, parse(t, a.recipient), []byte("r"), []byte(text))), passphrase: ask("x"), err: "not encrypted with a passphrase"},
		{name: "empty", content: "# nothing\n", err: "no identity"},
		{name: "cut key", content: "\n" + a.secret[:50] + "\n", err: "line 2: malformed secret key"},
		{name: "cut key, post-quantum", content: b.secret[:50], err: "line 1: malformed secret key"},
		{name: "recipient", content: a.recipient, err: "line 1: this is a recipient"},
		{name: "plugin", content: "AGE-PLUGIN-YUBIKEY-1QQPQZ", err: "line 1: not an identity"},
		{name: "too long", content: strings.Repeat("# comment\n", 1<<17), err: "longer than"},
	}
	for _, test := range tests {
		file := write(t, test.content, 0o600)
		ids, err := crypto.LoadIdentities([]string{file}, test.passphrase)
		if test.err == "" {
			if err != nil || !slices.Equal(ids.Recipients(), both) {
				t.Errorf("%s: recipients %v, %v", test.name, ids.Recipients(), err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), test.err) || !strings.Contains(err.Error(), file) {
			t.Errorf("%s: error %v, want %s and %q", test.name, err, file, test.err)
			continue
		}
		noSecret(t, err, a.secret, b.secret)
	}
	ids, err := crypto.LoadIdentities([]string{write(t, b.secret, 0o400), write(t, a.secret, 0o600)}, nil)
	if err != nil || !slices.Equal(ids.Recipients(), []string{b.recipient, a.recipient}) {
		t.Errorf("two files: %v, %v", ids.Recipients(), err)
	}
	if _, err := crypto.LoadIdentities(nil, nil); err == nil {
		t.Error("no file at all is accepted")
	}
}

func encryptFile(t *testing.T, plain, passphrase string, armored bool, workFactor int) string {
	t.Helper()
	recipient, err := age.NewScryptRecipient(passphrase)
	if err != nil {
		t.Fatal(err)
	}
	recipient.SetWorkFactor(workFactor)
	var b strings.Builder
	w, err := age.Encrypt(&b, recipient)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte(plain)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if !armored {
		return b.String()
	}
	var a strings.Builder
	aw := armor.NewWriter(&a)
	if _, err := aw.Write([]byte(b.String())); err != nil {
		t.Fatal(err)
	}
	if err := aw.Close(); err != nil {
		t.Fatal(err)
	}
	return a.String()
}

// TestIdentityAccess: fault 53, identity files readable by others are refused.
func TestIdentityAccess(t *testing.T) {
	k := newKeys(t, false, 1)[0]
	for _, mode := range []fs.FileMode{0o640, 0o604, 0o620, 0o602, 0o610, 0o601, 0o666} {
		file := write(t, k.secret, mode)
		_, err := crypto.LoadIdentities([]string{file}, nil)
		if err == nil || !strings.Contains(err.Error(), "chmod 600 "+file) || !strings.Contains(err.Error(), fmt.Sprintf("%04o", mode)) {
			t.Errorf("mode %04o: %v", mode, err)
		}
	}
	open := write(t, k.secret, 0o644)
	link := filepath.Join(t.TempDir(), "link")
	if err := os.Symlink(open, link); err != nil {
		t.Fatal(err)
	}
	if _, err := crypto.LoadIdentities([]string{link}, nil); err == nil || !strings.Contains(err.Error(), "chmod") {
		t.Errorf("link to a file that others can read: %v", err)
	}
	if err := os.Chmod(open, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := crypto.LoadIdentities([]string{link}, nil); err != nil {
		t.Errorf("link to a private file: %v", err)
	}
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{pipe, t.TempDir()} {
		if _, err := crypto.LoadIdentities([]string{name}, nil); err == nil || !strings.Contains(err.Error(), "not a regular file") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := crypto.LoadIdentities([]string{filepath.Join(t.TempDir(), "missing")}, nil); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
}
