package repo

import (
	"strings"
	"testing"

	"github.com/walship/walship/pkg/storage/mem"
)

// TestLost: a backup whose record is there, and an object of it isn't.
func TestLost(t *testing.T) {
	for name, c := range map[string]struct {
		stored map[int]string // parts by number
		want   string
	}{
		"all there": {map[int]string{1: "one", 2: "two"}, ""},
		"one gone":  {map[int]string{2: "two"}, "parts/20261120T100000Z/000001.tar.zst isn't in the repository any more"},
		"one cut":   {map[int]string{1: "one", 2: "tw"}, "parts/20261120T100000Z/000002.tar.zst has 2 bytes, not 3"},
		"more":      {map[int]string{}, "any more, and 1 more objects like that"},
	} {
		t.Run(name, func(t *testing.T) {
			r := &Repository{Store: mem.New()}
			const id = "20261120T100000Z"
			b := &Backup{ID: id, SystemID: 7, Manifest: Object{Key: ManifestKey(7, id) + ".zst", StoredSize: 4}}
			put := func(key, content string) {
				if _, err := r.Store.Put(t.Context(), key, strings.NewReader(content)); err != nil {
					t.Fatal(err)
				}
			}
			put(b.Manifest.Key, "mani")
			put(PartKey(7, "20261120T100000Z-2", 1)+".zst", "another's")
			for n := 1; n <= 2; n++ {
				b.Parts = append(b.Parts, Object{Key: PartKey(7, id, n) + ".zst", StoredSize: 3})
				if content, ok := c.stored[n]; ok {
					put(b.Parts[n-1].Key, content)
				}
			}
			got, err := r.Lost(t.Context(), b)
			if err != nil || (got == "") != (c.want == "") || !strings.HasSuffix(got, c.want) {
				t.Errorf("lost is %q, %v; want %q", got, err, c.want)
			}
		})
	}
}
