package main

import (
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/walship/walship/pkg/object"
	"github.com/walship/walship/pkg/storage"
)

func TestTablespaceMap(t *testing.T) {
	for _, c := range []struct {
		texts []string
		want  map[string]string // nil: refused
	}{
		{[]string{"/old=/new"}, map[string]string{"/old": "/new"}},
		{[]string{"16400=/new", "/old,2=/new 2"}, map[string]string{"16400": "/new", "/old,2": "/new 2"}},
		{[]string{`/a\=b=/c\=d`}, map[string]string{"/a=b": "/c=d"}},
		{[]string{`/a\b=/c`}, map[string]string{`/a\b`: "/c"}},
		{[]string{"/old"}, nil},
		{[]string{"=/new"}, nil},
		{[]string{"/old="}, nil},
		{[]string{"/a=/b=/c"}, nil},
		{[]string{"/old=/new", "/old=/other"}, nil},
	} {
		var v mappingValue
		var err error
		for _, text := range c.texts {
			if err = v.Set(text); err != nil {
				break
			}
		}
		if (err == nil) != (c.want != nil) || err == nil && !maps.Equal(v.places, c.want) {
			t.Errorf("%q: %v, %v; want %v", c.texts, v.places, err, c.want)
		}
	}
}

// TestRestoreErrorHint: whoever is told of a damaged or lost object is told what
// can be done, too.
func TestRestoreErrorHint(t *testing.T) {
	for _, cause := range []error{object.ErrCorrupt, object.ErrMismatch, storage.ErrNotExist} {
		err := restoreError(fmt.Errorf("extract part: %w", cause))
		if h, has := errors.AsType[*hintError](err); !has || !strings.Contains(h.hint, "another --backup") {
			t.Errorf("%v has no hint", err)
		}
	}
	if _, has := errors.AsType[*hintError](restoreError(errors.New("no space left"))); has {
		t.Error("another error has the hint, too")
	}
}
