package restore

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/walship/walship/pkg/pgdata"
)

// A cluster has tens of thousands of relations of one block: what each takes of
// memory follows its size, or clearing that takes longer than all else.
func TestCombineSmallFiles(t *testing.T) {
	const files, most = 200, 4 * pgdata.BlockSize // bytes for each
	file, err := os.Create(filepath.Join(t.TempDir(), "file"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	block := bytes.Repeat([]byte{7}, pgdata.BlockSize)
	expected := &manifestFile{size: pgdata.BlockSize, algorithm: pgdata.ChecksumNone}
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	for range files {
		f := &combined{name: "file", blocks: 1, wanted: 1}
		if err := f.finish(file, bytes.NewReader(block), "file", expected, pgdata.ChecksumCRC32C); err != nil {
			t.Fatal(err)
		}
	}
	runtime.ReadMemStats(&after)
	if each := (after.TotalAlloc - before.TotalAlloc) / files; each > most {
		t.Errorf("a file of one block takes %d bytes of memory, more than %d", each, most)
	}
	if got, err := os.ReadFile(file.Name()); err != nil || !bytes.Equal(got, block) {
		t.Errorf("the file has %d bytes (%v)", len(got), err)
	}
}
