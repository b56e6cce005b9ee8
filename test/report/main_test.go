package main

import (
	"io"
	"strings"
	"testing"
)

func TestRun(t *testing.T) {
	const pass = `{"Action":"output","Package":"p","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"pass","Package":"p","Test":"TestA"}
{"Action":"output","Package":"p","Output":"PASS\n"}
{"Action":"output","Package":"p","Output":"ok  \tp\t0.1s\n"}
{"Action":"pass","Package":"p"}
`
	for _, test := range []struct {
		name, in, out, err string
	}{
		{"pass", pass, "ok  \tp\t0.1s\ntests passed: 1, skipped: 0\n", ""},
		{"nothing", `{"Action":"output","Package":"q","Output":"?   \tq\t[no test files]\n"}` + "\n" + `{"Action":"skip","Package":"q"}`,
			"tests passed: 0, skipped: 0\n", "no test ran"},
		{"not JSON", "go: oops\n" + pass, "go: oops\nok  \tp\t0.1s\ntests passed: 1, skipped: 0\n", ""},
		{"fail", pass + `{"Action":"output","Package":"p","Test":"TestB","Output":"    want 1\n"}
{"Action":"fail","Package":"p","Test":"TestB"}
{"Action":"output","Package":"p","Output":"FAIL\tp\t0.1s\n"}
{"Action":"fail","Package":"p"}
`, "ok  \tp\t0.1s\n    want 1\nFAIL\tp\t0.1s\ntests passed: 1, skipped: 0\n", "tests failed"},
		{"skip", pass + `{"Action":"output","Package":"p","Test":"TestS","Output":"    why\n"}
{"Action":"skip","Package":"p","Test":"TestS"}
`, "ok  \tp\t0.1s\nskipped: p TestS\ntests passed: 1, skipped: 1\n", "1 tests were skipped, and none may be"},
		{"slow", strings.ReplaceAll(pass, `"TestA"}`, `"TestA","Elapsed":61.2}`) +
			`{"Action":"pass","Package":"p","Test":"TestA/part","Elapsed":61.2}` + "\n" +
			`{"Action":"pass","Package":"p","Test":"TestB","Elapsed":4.9}` + "\n" +
			`{"Action":"pass","Package":"p","Test":"TestC","Elapsed":62.7}` + "\n",
			"ok  \tp\t0.1s\nslow: 63 s p TestC\nslow: 61 s p TestA\ntests passed: 4, skipped: 0\n", ""},
		{"panic", pass + `{"Action":"output","Package":"p","Test":"TestP","Output":"panic: oops\n"}
{"Action":"output","Package":"p","Test":"TestQ","Output":"=== PAUSE TestQ\n"}
{"Action":"fail","Package":"p"}
`, "ok  \tp\t0.1s\npanic: oops\ntests passed: 1, skipped: 0\n", "tests failed"},
		{"build", `{"ImportPath":"p","Action":"build-output","Output":"undefined: x\n"}
{"ImportPath":"p","Action":"build-fail"}
`, "undefined: x\ntests passed: 0, skipped: 0\n", "tests failed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			var out strings.Builder
			err := run(strings.NewReader(test.in), &out, false)
			if out.String() != test.out {
				t.Errorf("printed %q, want %q", out.String(), test.out)
			}
			if text := errorText(err); text != test.err {
				t.Errorf("error %q, want %q", text, test.err)
			}
		})
	}
}

func TestRunNone(t *testing.T) {
	if err := run(strings.NewReader(""), io.Discard, true); err != nil {
		t.Errorf("nothing ran, and that is fine: %v", err)
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
