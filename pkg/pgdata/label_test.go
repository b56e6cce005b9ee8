package pgdata

import (
	"os"
	"reflect"
	"strings"
	"testing"
)

func TestParseBackupLabel(t *testing.T) {
	primary, err := os.ReadFile("testdata/label/primary")
	if err != nil {
		t.Fatal(err)
	}
	l, err := ParseBackupLabel(primary)
	if err != nil {
		t.Fatal(err)
	}
	if l.Start != 0x2000028 || l.StartFile.String() != "000000010000000000000002" || l.Checkpoint != 0x2000060 || l.Method != "streamed" ||
		l.From != "primary" || l.StartTime != "2026-11-20 14:25:00 UTC" || l.Label != "nightly: (file x)" || l.Timeline != 1 || l.Incremental {
		t.Errorf("%+v", l)
	}
	incremental, err := os.ReadFile("testdata/label/incremental")
	if err != nil {
		t.Fatal(err)
	}
	l, err = ParseBackupLabel(incremental)
	if err != nil || !l.Incremental || l.ParentStart != 0x1000028 || l.ParentTimeline != 1 || l.Label != "" || l.Timeline != 2 {
		t.Errorf("%+v, %v", l, err)
	}

	text := string(primary)
	refused := map[string]string{
		"empty":             "",
		"cut":               strings.TrimSuffix(text, "\n"),
		"line missing":      strings.Replace(text, "BACKUP METHOD: streamed\n", "", 1),
		"other order":       strings.Replace(text, "BACKUP METHOD: streamed\nBACKUP FROM: primary\n", "BACKUP FROM: primary\nBACKUP METHOD: streamed\n", 1),
		"more lines":        text + "X: 1\n",
		"two-line label":    strings.Replace(text, "(file x)", "(file x)\nSTART TIMELINE: 9", 1),
		"bad LSN":           strings.Replace(text, "0/2000060", "x", 1),
		"bad start":         strings.Replace(text, "0/2000028", "2000028", 1),
		"bad file":          strings.Replace(text, "000000010000000000000002", "nothing", 1),
		"timeline 0":        strings.Replace(text, "TIMELINE: 1", "TIMELINE: 0", 1),
		"other timeline":    strings.Replace(text, "TIMELINE: 1", "TIMELINE: 2", 1),
		"half incremental":  text + "INCREMENTAL FROM LSN: 0/1\n",
		"enormous":          text + strings.Repeat("x", maxLabelSize),
		"no file parenthes": strings.Replace(text, "(file 000000010000000000000002)", "000000010000000000000002", 1),
	}
	for name, text := range refused {
		t.Run(name, func(t *testing.T) {
			if l, err := ParseBackupLabel([]byte(text)); err == nil {
				t.Errorf("accepted: %+v", l)
			}
		})
	}
}

func FuzzParseBackupLabel(f *testing.F) {
	for _, seed := range seeds(f, "label") {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		l, err := ParseBackupLabel(data)
		if err != nil {
			return
		}
		if l.Timeline != l.StartFile.Timeline || strings.Contains(l.Label, "\n") {
			t.Errorf("%+v", l)
		}
	})
}

func TestTablespaceMap(t *testing.T) {
	all := []Tablespace{
		{16384, "/srv/space"},
		{16385, `/srv/with blank \ and` + "\nline\rend"},
		{4294967295, "/x"},
	}
	text := "16384 /srv/space\n16385 /srv/with blank \\\\ and\\\nline\\\rend\n4294967295 /x\n"
	if got := string(FormatTablespaceMap(all)); got != text {
		t.Errorf("formatted %q", got)
	}
	got, err := ParseTablespaceMap([]byte(text))
	if err != nil || !reflect.DeepEqual(got, all) {
		t.Errorf("parsed %v, %v", got, err)
	}
	refused := map[string]string{
		"no path":     "16384\n",
		"empty path":  "16384 \n",
		"no OID":      "x /srv\n",
		"OID 0":       "0 /srv\n",
		"other OID":   "016384 /srv\n",
		"large OID":   "4294967296 /srv\n",
		"twice":       "1 /a\n1 /b\n",
		"cut":         "1 /a",
		"cut escape":  "1 /a\\",
		"zero byte":   "1 /a\x00\n",
		"long path":   "1 /" + strings.Repeat("a", 1024) + "\n",
		"negative":    "-1 /a\n",
		"blank first": " 1 /a\n",
	}
	for name, text := range refused {
		t.Run(name, func(t *testing.T) {
			if got, err := ParseTablespaceMap([]byte(text)); err == nil {
				t.Errorf("accepted: %v", got)
			}
		})
	}
}

func FuzzParseTablespaceMap(f *testing.F) {
	f.Add([]byte("16384 /srv/space\n16385 /srv/\\\\ \\\n x\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		all, err := ParseTablespaceMap(data)
		if err != nil {
			return
		}
		again, err := ParseTablespaceMap(FormatTablespaceMap(all))
		if err != nil || !reflect.DeepEqual(again, all) {
			t.Errorf("%v parsed again: %v, %v", all, again, err)
		}
	})
}
