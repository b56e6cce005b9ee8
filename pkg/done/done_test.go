package done

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var example = Record{
	At: time.Unix(1763700000, 123456789), Read: time.Unix(1763699990, 1),
	Repository: "00112233445566778899aabbccddeeff",
	Call:       1<<64 - 1, Target: 2, Segment: "000000010000000A000000FE",
	File: Identity{Device: 1<<64 - 1, Inode: 2, Size: 16 << 20, Modified: -1, State: 1763700000123456789},
}

func TestRecord(t *testing.T) {
	data := example.Encode()
	if got, ok := Decode(data); !ok || got != example {
		t.Fatalf("%+v, %t", got, ok)
	}
	if len(data) > MaxSize {
		t.Errorf("%d bytes", len(data))
	}
	for i := range data {
		for bit := range 8 {
			changed := append([]byte(nil), data...)
			changed[i] ^= 1 << bit
			if got, ok := Decode(changed); ok {
				t.Errorf("bit %d of byte %d: %+v", bit, i, got)
			}
		}
		if got, ok := Decode(data[:i]); ok {
			t.Errorf("%d bytes: %+v", i, got)
		}
	}
	for what, odd := range map[string][]byte{
		"more": append(data[:len(data):len(data)], 0), "a line more": append(data[:len(data):len(data)], '\n'),
		"zeros": make([]byte, len(data)), "blanks": []byte(strings.Repeat(" ", len(data))),
		"long": []byte(strings.Repeat("a ", MaxSize)),
	} {
		if got, ok := Decode(odd); ok {
			t.Errorf("%s: %+v", what, got)
		}
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(example.Encode())
	f.Add(Record{}.Encode())
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, ok := Decode(data); ok && string(r.Encode()) != string(data) {
			t.Errorf("%+v isn't what %q says", r, data)
		}
	})
}

// Fault 4: a record speaks of one file in one state, for a while.
func TestSame(t *testing.T) {
	other := func(change func(*Identity)) Identity {
		id := example.File
		change(&id)
		return id
	}
	for what, c := range map[string]struct {
		segment string
		file    Identity
		after   time.Duration
		want    bool
	}{
		"as it was":      {example.Segment, example.File, 0, true},
		"almost too old": {example.Segment, example.File, Life - 1, true},
		"too old":        {example.Segment, example.File, Life, false},
		"of the future":  {example.Segment, example.File, -1, false},
		"another name":   {"000000010000000A000000FF", example.File, 0, false},
		"device":         {example.Segment, other(func(i *Identity) { i.Device-- }), 0, false},
		"inode":          {example.Segment, other(func(i *Identity) { i.Inode++ }), 0, false},
		"size":           {example.Segment, other(func(i *Identity) { i.Size++ }), 0, false},
		"modified":       {example.Segment, other(func(i *Identity) { i.Modified++ }), 0, false},
		"changed":        {example.Segment, other(func(i *Identity) { i.State++ }), 0, false},
	} {
		if got := example.Same(c.segment, c.file, example.At.Add(c.after)); got != c.want {
			t.Errorf("%s: %t", what, got)
		}
	}
	nameless := example
	nameless.File = Identity{}
	if nameless.Same(nameless.Segment, Identity{}, nameless.At) {
		t.Error("a file that the system doesn't tell from others")
	}
	for after, want := range map[time.Duration]bool{-1: false, 0: true, KnownLife - 1: true, KnownLife: false} {
		if got := example.Known(example.Read.Add(after)); got != want {
			t.Errorf("known %v after the repository was read: %t", after, got)
		}
	}
}

func TestNewCall(t *testing.T) {
	calls := map[Digest]string{}
	for what, c := range map[string]Digest{
		"one":               NewCall([]string{"walship", "wal", "push"}, []string{"A=1", "B=2"}, "/data", []byte("x = 1\n")),
		"other flags":       NewCall([]string{"walship", "--x=y", "wal", "push"}, []string{"A=1", "B=2"}, "/data", []byte("x = 1\n")),
		"other variables":   NewCall([]string{"walship", "wal", "push"}, []string{"A=1", "B=3"}, "/data", []byte("x = 1\n")),
		"another directory": NewCall([]string{"walship", "wal", "push"}, []string{"A=1", "B=2"}, "/data2", []byte("x = 1\n")),
		"other settings":    NewCall([]string{"walship", "wal", "push"}, []string{"A=1", "B=2"}, "/data", []byte("x = 2\n")),
		"no settings":       NewCall([]string{"walship", "wal", "push"}, []string{"A=1", "B=2"}, "/data", nil),
		"moved":             NewCall([]string{"walship", "wal"}, []string{"push", "A=1", "B=2"}, "/data", []byte("x = 1\n")),
		"joined":            NewCall([]string{"walship", "wal", "push"}, []string{"A=1B=2"}, "/data", []byte("x = 1\n")),
		"cut elsewhere":     NewCall([]string{"walship", "wal", "push"}, []string{"A=", "1B=2"}, "/data", []byte("x = 1\n")),
		"nothing":           NewCall(nil, nil, "", nil),
	} {
		if before, is := calls[c]; is {
			t.Errorf("%s is as %s", what, before)
		}
		calls[c] = what
	}
	if NewTarget("file:///a", 1) == NewTarget("file:///a", 2) || NewTarget("file:///a", 1) == NewTarget("file:///b", 1) {
		t.Error("other targets are as one")
	}
	if Folder("/data") == Folder("/data2") || !filepath.IsLocal(Folder("/data")) {
		t.Errorf("%s, %s", Folder("/data"), Folder("/data2"))
	}
}

func TestIdentify(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	identify := func() Identity {
		t.Helper()
		info, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		return Identify(info)
	}
	if err := os.WriteFile(file, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	before := identify()
	if before == (Identity{}) || before.Size != 4 || before != identify() {
		t.Errorf("%+v", before)
	}
	if err := os.Rename(file, file+"x"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	if identify() == before {
		t.Error("another file looks the same")
	}
}
