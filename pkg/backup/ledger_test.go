package backup

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"github.com/walship/walship/pkg/pgdata"
)

// TestLedger holds what came against manifests that differ in one thing.
func TestLedger(t *testing.T) {
	type file struct{ name, content string }
	all := []file{{"backup_label", "label"}, {"base/1/1259", "classes"}, {"odd \xff name", ""}}
	for name, c := range map[string]struct {
		sent []file
		want string // part of the error
	}{
		"equal":      {all, ""},
		"one less":   {all[:2], "which it didn't send"},
		"one more":   {append(all[:3:3], file{"more", "x"}), `file "more", which its manifest doesn't have`},
		"another":    {[]file{all[0], {"base/1/1260", "classes"}, all[2]}, `has file "base/1/1259" where it sent "base/1/1260"`},
		"shorter":    {[]file{all[0], {"base/1/1259", "class"}, all[2]}, "came with 5 bytes"},
		"other byte": {[]file{all[0], {"base/1/1259", "Classes"}, all[2]}, "checksum"},
	} {
		for _, algorithm := range []pgdata.ChecksumAlgorithm{pgdata.ChecksumCRC32C, pgdata.ChecksumSHA512, pgdata.ChecksumNone} {
			if algorithm == pgdata.ChecksumNone && name == "other byte" {
				continue // nothing would show it
			}
			t.Run(name+"/"+string(algorithm), func(t *testing.T) {
				var text bytes.Buffer
				w, err := pgdata.NewManifestWriter(&text, 1, 1)
				ok(t, err)
				l, err := newLedger()
				ok(t, err)
				for _, f := range all {
					entry := pgdata.ManifestFile{Path: f.name, Size: int64(len(f.content)), Modified: time.Unix(1e9, 0), Algorithm: algorithm}
					if sum := algorithm.New(); sum != nil {
						sum.Write([]byte(f.content))
						entry.Checksum = sum.Sum(nil)
					}
					ok(t, w.Add(entry))
				}
				ok(t, w.Close([]pgdata.ManifestWALRange{{Timeline: 1, Start: 1, End: 2}}))
				for _, f := range c.sent {
					sum := algorithm.New()
					if sum != nil {
						sum.Write([]byte(f.content))
					}
					ok(t, l.add(f.name, int64(len(f.content)), sum))
				}
				m, err := pgdata.ReadManifest(&text, pgdata.ManifestLimits{})
				ok(t, err)
				err = l.agree(m)
				if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
					t.Errorf("the error is %v, want %q", err, c.want)
				}
			})
		}
	}
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
