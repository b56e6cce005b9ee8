package object_test

import (
	"os"
	"strings"
	"testing"

	"github.com/walship/walship/pkg/object"
)

// TestDocumentedExample: the context header in the documentation is a real one.
func TestDocumentedExample(t *testing.T) {
	text, err := os.ReadFile("../../docs/repository-format.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "```\nformat=")
	record, _, closed := strings.Cut("format="+rest, "```\n")
	if !found || !closed {
		t.Fatal("docs/repository-format.md shows no context header")
	}
	h, err := object.ParseHeader([]byte(record))
	if err != nil || h.Kind != object.KindSegment || len(h.Recipients) != 1 || len(h.Fields) == 0 {
		t.Errorf("the example: %v\n%+v", err, h)
	}
}
