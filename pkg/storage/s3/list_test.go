package s3

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/walship/walship/pkg/storage"
)

func answer(body string) func(http.ResponseWriter, *http.Request, http.HandlerFunc) {
	return func(w http.ResponseWriter, _ *http.Request, _ http.HandlerFunc) { fmt.Fprint(w, body) }
}

func listing(truncated bool, token string, keys ...string) string {
	out := fmt.Sprintf("<ListBucketResult><Name>bucket</Name><IsTruncated>%t</IsTruncated>", truncated)
	if token != "" {
		out += "<NextContinuationToken>" + token + "</NextContinuationToken>"
	}
	for _, key := range keys {
		out += fakeContents("some/prefix/"+key, fakeObject{etag: `"e"`, modified: time.Unix(1, 0)})
	}
	return out + "</ListBucketResult>"
}

// TestListViolations is fault 18: a listing that isn't complete or can't be
// trusted ends with an error, behind what it did yield.
func TestListViolations(t *testing.T) {
	for _, c := range []struct {
		name  string
		pages []string
		keys  int // yielded before the error
		text  string
	}{
		{"out of order", []string{listing(false, "", "a/2", "a/1")}, 1, "out of order"},
		{"twice", []string{listing(false, "", "a/1", "a/1")}, 1, "out of order"},
		{"out of order over pages", []string{listing(true, "t", "a/1", "a/3"), listing(false, "", "a/2")}, 2, "out of order"},
		{"not behind the start", []string{listing(false, "", "a/0")}, 0, "out of order"},
		{"another prefix", []string{listing(false, "", "a/1", "b/1")}, 1, "doesn't start with"},
		{"cut short", []string{listing(true, "", "a/1")}, 1, "cut the listing short"},
		{"same token", []string{listing(true, "t", "a/1"), listing(true, "t", "a/2")}, 2, "cut the listing short"},
		{"nothing", []string{""}, 0, "isn't a listing"},
		{"another document", []string{"<html/>"}, 0, "isn't a listing"},
		{"broken document", []string{listing(false, "", "a/1", "a/2")[:200]}, 0, "XML"},
		{"error document", []string{fakeErrorDocument("InternalError"), fakeErrorDocument("InternalError"), fakeErrorDocument("InternalError")}, 0, "InternalError"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFake(t)
			s := f.open("")
			for _, page := range c.pages {
				f.fault("ListObjectsV2", 1, answer(page))
			}
			keys, failed := 0, error(nil)
			for _, err := range s.List(t.Context(), "a/", "a/0") {
				if failed != nil {
					t.Fatal("the listing went on behind its error")
				}
				if failed = err; err == nil {
					keys++
				}
			}
			if keys != c.keys || failed == nil || lasting(failed) || !strings.Contains(failed.Error(), c.text) {
				t.Errorf("List yields %d keys, then %v; want %d and an error with %q", keys, failed, c.keys, c.text)
			}
		})
	}
}

func TestListSkipsForeignNames(t *testing.T) {
	f := newFake(t)
	s := f.open("")
	f.fault("ListObjectsV2", 1, answer(listing(false, "", "", "a/", "a/1", "a/ä", "b")))
	var keys []string
	for info, err := range s.List(t.Context(), "", "") {
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, info.Key)
	}
	if got := strings.Join(keys, " "); got != "a/1 b" {
		t.Errorf("List = %q; want a/1 and b", got)
	}
}

// TestListAsksForWhatIsRead counts the requests behind a listing.
func TestListAsksForWhatIsRead(t *testing.T) {
	f := newFake(t)
	s := f.open("", func(l *limits) { l.page = 10 })
	for i := range 35 {
		put(t, s, fmt.Sprintf("a/%02d", i), nil)
	}
	for _, c := range []struct {
		after          string
		take, requests int
	}{{"", 1, 1}, {"", 10, 1}, {"", 11, 2}, {"", 100, 4}, {"a/24", 100, 1}, {"b", 100, 0}} {
		before, taken := len(f.received("ListObjectsV2")), 0
		for _, err := range s.List(t.Context(), "a/", c.after) {
			if err != nil {
				t.Fatal(err)
			}
			if taken++; taken == c.take {
				break
			}
		}
		if got := len(f.received("ListObjectsV2")) - before; got != c.requests {
			t.Errorf("%d keys after %q took %d requests; want %d", c.take, c.after, got, c.requests)
		}
	}
}

func TestDeleteReports(t *testing.T) {
	confirmed := func(key string) string { return "<Deleted><Key>some/prefix/" + key + "</Key></Deleted>" }
	refused := func(key, code string) string {
		return "<Error><Key>some/prefix/" + key + "</Key><Code>" + code + "</Code><Message>m</Message></Error>"
	}
	for _, c := range []struct {
		name, body string
		want       []string // in the error; none for success
	}{
		{"all", confirmed("a") + confirmed("b"), nil},
		{"absent", confirmed("a") + refused("b", "NoSuchKey"), nil},
		{"one refused", confirmed("a") + refused("b", "AccessDenied"), []string{"delete s3://bucket/some/prefix/b: access denied"}},
		{"both refused", refused("a", "AccessDenied") + refused("b", "InternalError"), []string{"prefix/a: access denied", "prefix/b: InternalError"}},
		{"one not mentioned", confirmed("a"), []string{"prefix/b: the server didn't confirm it"}},
		{"none mentioned", "", []string{"prefix/a: the", "prefix/b: the"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFake(t)
			s := f.open("")
			f.fault("DeleteObjects", 1, answer("<DeleteResult>"+c.body+"</DeleteResult>"))
			err := s.Delete(t.Context(), "a", "b")
			if (err != nil) != (len(c.want) > 0) {
				t.Fatalf("Delete: %v", err)
			}
			for _, text := range c.want {
				if !strings.Contains(err.Error(), text) {
					t.Errorf("Delete: %v; want %q in it", err, text)
				}
			}
		})
	}
}

func TestDeleteOneByOne(t *testing.T) {
	f := newFake(t)
	s := f.open("")
	for _, key := range []string{"a", "b", "c"} {
		put(t, s, key, nil)
	}
	f.refuse("DeleteObjects", 1, http.StatusNotImplemented, "NotImplemented")
	f.refuse("DeleteObject", 1, http.StatusForbidden, "AccessDenied")
	err := s.Delete(t.Context(), "a", "b", "c", "absent")
	if err == nil || !strings.Contains(err.Error(), "prefix/a: "+storage.ErrDenied.Error()) || strings.Contains(err.Error(), "prefix/b") {
		t.Errorf("Delete: %v; want the refused one alone", err)
	}
	if _, there := f.content("c"); there {
		t.Error("the keys behind the refused one weren't deleted")
	}
}

func TestSweepSparesOthers(t *testing.T) {
	f := newFake(t)
	s := f.open("")
	now := time.Now()
	for id, upload := range map[string]*fakeUpload{
		"old":     {key: "some/prefix/a/1", begun: now.Add(-2 * time.Hour)},
		"young":   {key: "some/prefix/a/2", begun: now},
		"beside":  {key: "some/prefix/b/1", begun: now.Add(-2 * time.Hour)},
		"foreign": {key: "a/1", begun: now.Add(-2 * time.Hour)},
	} {
		f.uploads[id] = upload
	}
	// A server that lists no uploads of a prefix, as MinIO.
	f.fault("ListMultipartUploads", 1, answer("<ListMultipartUploadsResult><IsTruncated>false</IsTruncated></ListMultipartUploadsResult>"))
	if n, err := s.Sweep(t.Context(), "a/", now.Add(-time.Hour)); err != nil || n != 1 {
		t.Errorf("Sweep = %d, %v; want 1", n, err)
	}
	if _, there := f.uploads["old"]; there || len(f.uploads) != 3 {
		t.Errorf("%d uploads are left; want all but the old one", len(f.uploads))
	}
	f.fault("ListMultipartUploads", 1, answer("<html/>"))
	if n, err := s.Sweep(t.Context(), "", now); err == nil || n != 0 {
		t.Errorf("Sweep of what isn't a listing = %d, %v; want an error", n, err)
	}
}
