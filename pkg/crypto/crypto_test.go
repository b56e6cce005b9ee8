package crypto_test

import (
	"bytes"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"filippo.io/age"

	"github.com/walship/walship/pkg/crypto"
)

var kinds = []struct {
	name        string
	postQuantum bool
}{{"classic", false}, {"post-quantum", true}}

func sealed(t testing.TB, r *crypto.Recipients, record, plain []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := r.Seal(&b, record)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(plain); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func opened(ids *crypto.Identities, src io.Reader) (record, plain []byte, err error) {
	record, r, err := ids.Open(src)
	if err != nil {
		return record, nil, err
	}
	plain, err = io.ReadAll(r)
	return record, plain, err
}

func TestSealAndOpen(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			keys := newKeys(t, kind.postQuantum, 3)
			recipients := parse(t, recipientsOf(keys)...)
			for _, size := range []int{0, 1, 64<<10 - 1, 64 << 10, 64<<10 + 1, 300 << 10} {
				record := []byte(fmt.Sprintf("size=%d\n", size))
				plain := bytes.Repeat([]byte("wal"), size/3+1)[:size]
				stored := sealed(t, recipients, record, plain)
				if !crypto.IsSealed(stored) {
					t.Fatal("IsSealed = false")
				}
				for i, key := range keys {
					gotRecord, got, err := opened(key.load(t), bytes.NewReader(stored))
					if err != nil || !bytes.Equal(got, plain) || !bytes.Equal(gotRecord, record) {
						t.Fatalf("identity %d opens %d bytes of %d with record %q: %v", i, len(got), size, gotRecord, err)
					}
					// The library opens it too, without knowing of records.
					if got := decrypt(t, stored, key.secret); !bytes.Equal(got, plain) {
						t.Fatalf("age gives %d other bytes, of %d", len(got), size)
					}
				}
				gotRecord, err := crypto.ReadRecord(iotest.OneByteReader(bytes.NewReader(stored)))
				if err != nil || !bytes.Equal(gotRecord, record) {
					t.Fatalf("ReadRecord = %q, %v", gotRecord, err)
				}
			}
		})
	}
}

func decrypt(t testing.TB, stored []byte, secret string) []byte {
	t.Helper()
	ids, err := age.ParseIdentities(strings.NewReader(secret))
	if err != nil {
		t.Fatal(err)
	}
	r, err := age.Decrypt(bytes.NewReader(stored), ids...)
	if err != nil {
		t.Fatal(err)
	}
	plain, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return plain
}

func TestLargestHeader(t *testing.T) {
	for _, kind := range kinds {
		keys := newKeys(t, kind.postQuantum, crypto.MaxRecipients)
		record := bytes.Repeat([]byte("r"), crypto.MaxRecord)
		stored := sealed(t, parse(t, recipientsOf(keys)...), record, []byte("plain"))
		got, _, err := opened(keys[len(keys)-1].load(t), bytes.NewReader(stored))
		if err != nil || !bytes.Equal(got, record) {
			t.Errorf("%s: open with the longest header: record of %d bytes, %v", kind.name, len(got), err)
		}
		got, err = crypto.ReadRecord(bytes.NewReader(stored[:min(len(stored), crypto.MaxHeader)]))
		if err != nil || !bytes.Equal(got, record) {
			t.Errorf("%s: ReadRecord of the first bytes: %d bytes, %v", kind.name, len(got), err)
		}
	}
	recipients := parse(t, newKeys(t, false, 1)[0].recipient)
	for _, n := range []int{0, crypto.MaxRecord + 1} {
		if _, err := recipients.Seal(io.Discard, make([]byte, n)); err == nil {
			t.Errorf("Seal takes a record of %d bytes", n)
		}
	}
}

// TestNoIdentity: fault 46, the record of what can't be opened is returned,
// because it says whose identity would do.
func TestNoIdentity(t *testing.T) {
	for _, kind := range kinds {
		stored := sealed(t, parse(t, newKeys(t, kind.postQuantum, 1)[0].recipient), []byte("for A"), []byte("plain"))
		for name, ids := range map[string]*crypto.Identities{
			"none":      nil,
			"another":   newKeys(t, kind.postQuantum, 1)[0].load(t),
			"otherKind": newKeys(t, !kind.postQuantum, 1)[0].load(t),
		} {
			record, plain, err := ids.Open(bytes.NewReader(stored))
			if !errors.Is(err, crypto.ErrNoIdentity) || plain != nil || string(record) != "for A" {
				t.Errorf("%s, %s: Open = %q, %v, %v", kind.name, name, record, plain, err)
			}
		}
	}
}

// TestEveryBit: fault 52, no changed bit and no cut goes unnoticed.
func TestEveryBit(t *testing.T) {
	for _, kind := range kinds {
		t.Run(kind.name, func(t *testing.T) {
			key := newKeys(t, kind.postQuantum, 1)[0]
			ids := key.load(t)
			stored := sealed(t, parse(t, key.recipient), []byte("a record"), []byte("some content"))
			for i := range stored {
				changed := bytes.Clone(stored)
				changed[i] ^= 1 << (i % 8)
				if record, plain, err := opened(ids, bytes.NewReader(changed)); err == nil {
					t.Fatalf("byte %d changed: opens as %q, %q", i, record, plain)
				}
				if _, _, err := opened(ids, bytes.NewReader(stored[:i])); err == nil {
					t.Fatalf("cut to %d bytes: opens", i)
				}
			}
			if _, _, err := opened(ids, bytes.NewReader(append(bytes.Clone(stored), 0))); err == nil {
				t.Fatal("with a byte behind it: opens")
			}
			if _, _, err := opened(ids, bytes.NewReader(stored)); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// stanzas is a recipient that adds stanzas to the real one's.
type stanzas struct {
	age.Recipient
	extra []*age.Stanza
}

func (s stanzas) Wrap(fileKey []byte) ([]*age.Stanza, error) {
	own, err := s.Recipient.Wrap(fileKey)
	return append(own, s.extra...), err
}

// TestForeignHeader: files whose header is genuine to age and still not ours.
func TestForeignHeader(t *testing.T) {
	key := newKeys(t, false, 1)[0]
	ids := key.load(t)
	recipient, err := age.ParseX25519Recipient(key.recipient)
	if err != nil {
		t.Fatal(err)
	}
	record := &age.Stanza{Type: crypto.StanzaType, Body: []byte("a record")}
	other := &age.Stanza{Type: "other", Body: []byte("x")}
	many := func(n int) []*age.Stanza {
		list := []*age.Stanza{record}
		for len(list) < n {
			list = append(list, other)
		}
		return list
	}
	tests := []struct {
		name  string
		extra []*age.Stanza
		err   string
	}{
		{"one record", many(1), ""},
		{"as many stanzas as may be", many(crypto.MaxStanzas - 1), ""},
		{"one stanza more", many(crypto.MaxStanzas), "33 stanzas"},
		{"no record", nil, "no record"},
		{"two records", []*age.Stanza{record, record}, "two records"},
		{"an argument", []*age.Stanza{{Type: crypto.StanzaType, Args: []string{"x"}, Body: record.Body}}, "malformed record"},
		{"an empty record", []*age.Stanza{{Type: crypto.StanzaType}}, "malformed record"},
		{"a long record", []*age.Stanza{{Type: crypto.StanzaType, Body: make([]byte, crypto.MaxRecord+1)}}, "malformed record"},
		{"a long header", []*age.Stanza{record, {Type: "other", Body: make([]byte, crypto.MaxHeader)}}, "longer than"},
	}
	for _, test := range tests {
		var b bytes.Buffer
		w, err := age.Encrypt(&b, stanzas{recipient, test.extra})
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		_, _, openErr := opened(ids, bytes.NewReader(b.Bytes()))
		_, readErr := crypto.ReadRecord(bytes.NewReader(b.Bytes()))
		for _, err := range []error{openErr, readErr} {
			if test.err == "" && err != nil || test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) {
				t.Errorf("%s: error %v, want %q", test.name, err, test.err)
			}
			if errors.Is(err, crypto.ErrNoIdentity) {
				t.Errorf("%s: %v", test.name, err)
			}
		}
	}
}

func TestSourceError(t *testing.T) {
	key := newKeys(t, false, 1)[0]
	stored := sealed(t, parse(t, key.recipient), []byte("a record"), make([]byte, 100))
	broken := errors.New("connection reset")
	for _, n := range []int{0, 1, 100, 300} {
		src := func() io.Reader { return io.MultiReader(bytes.NewReader(stored[:n]), iotest.ErrReader(broken)) }
		if _, _, err := opened(key.load(t), src()); !errors.Is(err, broken) {
			t.Errorf("Open, broken after %d bytes: %v", n, err)
		}
		if _, err := crypto.ReadRecord(src()); n < 200 && !errors.Is(err, broken) {
			t.Errorf("ReadRecord, broken after %d bytes: %v", n, err)
		}
	}
}

// FuzzOpen: whatever the input, an error or genuine content, in bounded time.
func FuzzOpen(f *testing.F) {
	key := newKeys(f, false, 1)[0]
	ids := key.load(f)
	f.Add(sealed(f, parse(f, key.recipient), []byte("a record"), []byte("plain")))
	f.Add([]byte("age-encryption.org/v1\n-> X25519 " + base64.RawStdEncoding.EncodeToString(make([]byte, 32)) + "\n\n--- x\n"))
	f.Fuzz(func(t *testing.T, stored []byte) {
		record, err := crypto.ReadRecord(bytes.NewReader(stored))
		if err == nil && (len(record) == 0 || len(record) > crypto.MaxRecord) {
			t.Fatalf("ReadRecord returns %d bytes", len(record))
		}
		opened, plain, err := ids.Open(bytes.NewReader(stored))
		if err != nil {
			return
		}
		if !bytes.Equal(opened, record) {
			t.Fatalf("Open has record %q, ReadRecord %q", opened, record)
		}
		content, err := io.ReadAll(plain)
		if err == nil && len(content) > len(stored) {
			t.Fatalf("%d bytes of content in a file of %d", len(content), len(stored))
		}
	})
}
