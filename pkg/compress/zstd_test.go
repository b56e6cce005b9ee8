//go:build integration

package compress_test

import (
	"bytes"
	"fmt"
	"os/exec"
	"testing"

	"github.com/walship/walship/pkg/compress"
)

func zstdTool(t *testing.T, input []byte, args ...string) []byte {
	t.Helper()
	var out, stderr bytes.Buffer
	cmd := exec.Command("zstd", append([]string{"-q", "-c"}, args...)...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(input), &out, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("zstd %v: %v: %s", args, err, stderr.Bytes())
	}
	return out.Bytes()
}

func TestToolReadsWriter(t *testing.T) {
	for _, level := range levels {
		for _, size := range []int{0, 1, 70 << 10, compress.MaxWindow + 3} {
			t.Run(fmt.Sprintf("%s %d", level, size), func(t *testing.T) {
				data := sample(size)
				var b bytes.Buffer
				if err := compress.WriteSkippable(&b, []byte("format=…\n")); err != nil {
					t.Fatal(err)
				}
				b.Write(frame(t, level, data))
				if got := zstdTool(t, b.Bytes(), "-d"); !bytes.Equal(got, data) {
					t.Fatalf("zstd -d gives %d other bytes, of %d", len(got), size)
				}
			})
		}
	}
}

func TestToolReadsSegmentWriter(t *testing.T) {
	for _, level := range levels {
		for _, processors := range []int{1, 2} {
			data := pieces(5<<20, 4000)
			if got := zstdTool(t, segmentFrame(t, level, processors, data), "-d"); !bytes.Equal(got, data) {
				t.Errorf("%s, %d processors: zstd -d gives %d other bytes", level, processors, len(got))
			}
		}
	}
}

func TestReaderReadsTool(t *testing.T) {
	data := sample(9 << 20) // more than a window
	for _, test := range []struct {
		args    []string
		refused bool
	}{
		{args: []string{"-1"}},
		{args: []string{"-3"}},
		{args: []string{"-15", "--zstd=wlog=23"}},
		{args: []string{"-3", "--long=27"}, refused: true},
		{args: []string{"-3", "--no-check"}, refused: true},
	} {
		got, err := read(bytes.NewReader(zstdTool(t, data, test.args...)))
		if test.refused != (err != nil) || err == nil && !bytes.Equal(got, data) {
			t.Errorf("zstd %v: read %d bytes of %d: %v", test.args, len(got), len(data), err)
		}
	}
}
