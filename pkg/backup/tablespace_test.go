package backup

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/walship/walship/pkg/pgdata"
	"github.com/walship/walship/pkg/postgres"
	"github.com/walship/walship/pkg/repo"
)

func TestTablespaces(t *testing.T) { // fault 40
	s := newSite(t)
	outside := t.TempDir()
	inside := filepath.Join(s.dir, "inside")
	writeTree(t, outside, map[string]string{testVersion + "/5/100": "outside", "PG_14_202107181/5/100": "another server's", "note": "foreign"})
	writeTree(t, s.dir, map[string]string{
		"inside/" + testVersion + "/5/200": "inside", "pg_tblspc/16400": "-> " + outside, "pg_tblspc/16401": "-> " + inside,
		"pg_tblspc/16402/" + testVersion + "/5/300": "in place", "pg_tblspc/16402/" + testVersion + "/5/301_init": "",
		"pg_tblspc/16402/" + testVersion + "/5/301": "unlogged",
	})
	s.server.tablespaces = []postgres.Tablespace{{OID: 16400, Name: "a"}, {OID: 16401, Name: "b"}, {OID: 16402, Name: "c"}}
	s.server.stop.TablespaceMap = pgdata.FormatTablespaceMap([]pgdata.Tablespace{
		{OID: 16400, Location: outside}, {OID: 16401, Location: inside}, {OID: 16399, Location: "/dropped"},
	})
	b, r := s.mustPush(t)
	want := []repo.Tablespace{
		{OID: 16399, Location: "/dropped"}, {OID: 16400, Location: outside, Size: 7},
		{OID: 16401, Location: inside, Size: 6}, {OID: 16402, Location: "pg_tblspc/16402", InPlace: true, Size: 8},
	}
	if !slices.Equal(b.Tablespaces, want) {
		t.Errorf("the record has %+v, want %+v", b.Tablespaces, want)
	}
	var got []string
	for name, content := range r.entries {
		if strings.HasPrefix(name, "pg_tblspc/") || strings.HasPrefix(name, "inside") {
			got = append(got, name+"="+content)
		}
	}
	slices.Sort(got)
	wantEntries := []string{
		"inside/=", "pg_tblspc/16400/" + testVersion + "/5/100=outside", "pg_tblspc/16400/" + testVersion + "/5/=", "pg_tblspc/16400/" + testVersion + "/=",
		"pg_tblspc/16401/" + testVersion + "/5/200=inside", "pg_tblspc/16401/" + testVersion + "/5/=", "pg_tblspc/16401/" + testVersion + "/=",
		"pg_tblspc/16402/" + testVersion + "/5/300=in place", "pg_tblspc/16402/" + testVersion + "/5/301_init=", "pg_tblspc/16402/" + testVersion + "/5/=",
		"pg_tblspc/16402/" + testVersion + "/=", "pg_tblspc/16402/=", "pg_tblspc/=",
	}
	slices.Sort(wantEntries)
	if !slices.Equal(got, wantEntries) {
		t.Errorf("the backup has\n%q\nwant\n%q", got, wantEntries)
	}
	if r.entries["tablespace_map"] != string(s.server.stop.TablespaceMap) {
		t.Errorf("tablespace_map is %q", r.entries["tablespace_map"])
	}
	if _, listed := r.manifest["tablespace_map"]; listed {
		t.Error("tablespace_map is in the manifest") // rule 1
	}
}

func TestTablespaceLinks(t *testing.T) {
	for want, link := range map[string]string{
		"which doesn't exist":       "-> /nowhere/at/all",
		"isn't an absolute path":    "-> ../elsewhere",
		"neither a link nor a dire": "a file",
	} {
		t.Run(want, func(t *testing.T) {
			s := newSite(t)
			writeTree(t, s.dir, map[string]string{"pg_tblspc/16400": link})
			s.server.tablespaces = []postgres.Tablespace{{OID: 16400, Name: "a"}}
			if _, err := s.push(t.Context()); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "16400") {
				t.Errorf("got %v, want an error with %q", err, want)
			}
		})
	}
}

// A tablespace that is dropped between the start and the listing has nothing
// to be copied.
func TestTablespaceDropped(t *testing.T) {
	s := newSite(t)
	outside := t.TempDir()
	writeTree(t, s.dir, map[string]string{"pg_tblspc/16400": "-> " + outside})
	s.server.started = func() { remove(t, filepath.Join(s.dir, "pg_tblspc/16400")) }
	s.server.stop.TablespaceMap = pgdata.FormatTablespaceMap([]pgdata.Tablespace{{OID: 16400, Location: outside}})
	b, _ := s.mustPush(t)
	if want := []repo.Tablespace{{OID: 16400, Location: outside}}; !slices.Equal(b.Tablespaces, want) {
		t.Errorf("the record has %+v, want %+v", b.Tablespaces, want)
	}
}

// What isn't in the record is nowhere in the parts: a restore would refuse it.
func TestTablespaceNotInRecord(t *testing.T) { // fault 40
	s := newSite(t)
	s.archiveWAL(t, 6, 7)
	r := s.begin(t)
	writeTree(t, s.dir, map[string]string{
		"pg_tblspc/16500/" + testVersion + "/5/300": "created since", "pg_tblspc/foreign/": "", "pg_tblspc/16501": "-> " + t.TempDir(),
	})
	if err := r.finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	for name := range s.restore(t, &r.record).entries {
		if strings.HasPrefix(name, "pg_tblspc/") && name != "pg_tblspc/" {
			t.Errorf("the backup has %s, and its record the tablespaces %+v", name, r.record.Tablespaces)
		}
	}
}

func TestConfiguration(t *testing.T) { // rule 6
	s := newSite(t)
	etc := t.TempDir()
	writeTree(t, etc, map[string]string{
		"postgresql.conf": "port = 5\n# include 'commented.conf'\ninclude_dir = 'conf.d'\nINCLUDE 'extra.conf' # yes\n" +
			"include_if_exists 'it''s.conf'\ninclude_if_exists = none.conf\ninclude_something 'x.conf'\n",
		"conf.d/10.conf": "include '../loop.conf'\n", "conf.d/.hidden.conf": "", "conf.d/20.conf~": "", "conf.d/sub.conf/": "",
		"extra.conf": "a = 1\n", "it's.conf": "", "loop.conf": "include 'postgresql.conf'\n", "commented.conf": "", "x.conf": "",
		"pg_hba.conf": "include \"hba_more.conf\"\n", "hba_more.conf": "local all all trust\n", "from_a_setting.conf": "b = 2\n",
	})
	if err := os.Remove(filepath.Join(etc, "conf.d/sub.conf")); err != nil {
		t.Fatal(err)
	}
	f := &s.server.facts
	f.ConfigFile, f.HBAFile = filepath.Join(etc, "postgresql.conf"), filepath.Join(etc, "pg_hba.conf")
	f.SourceFiles = []string{filepath.Join(etc, "from_a_setting.conf"), filepath.Join(s.dir, "postgresql.auto.conf")}
	b, _ := s.mustPush(t)
	got := untar(t, s.open(t, *b.Configuration, repo.ConfigurationHeader(b.SystemID, b.ID)))
	for _, name := range []string{"postgresql.conf", "conf.d/10.conf", "extra.conf", "it's.conf", "loop.conf", "pg_hba.conf", "hba_more.conf", "from_a_setting.conf"} {
		stored := strings.TrimPrefix(filepath.Join(etc, name), "/")
		want, err := os.ReadFile(filepath.Join(etc, name))
		content, there := got[stored]
		if err != nil || !there || content != string(want) {
			t.Errorf("%s is stored as %q (%v), want %q (%v)", name, content, there, want, err)
		}
		delete(got, stored)
	}
	if len(got) != 0 {
		t.Errorf("the object also has %v", got)
	}
	want := map[string]string{"config_file": f.ConfigFile, "hba_file": f.HBAFile}
	if len(b.ConfigurationOf) != 2 || b.ConfigurationOf["config_file"] != want["config_file"] || b.ConfigurationOf["hba_file"] != want["hba_file"] {
		t.Errorf("the record says %v, want %v", b.ConfigurationOf, want)
	}
}

// The pg_hba.conf of a server that walship started for its own user isn't
// captured: a restored server would let everybody in.
func TestPrivateAccess(t *testing.T) {
	for _, c := range []struct {
		folder, content string
		captured        bool
	}{
		{"restored.walship/socket", "local all all trust\n", false},
		{"walship-socket-123", "local all all trust\n", false},
		{"restored.walship/socket", "local all all peer\n", true}, // somebody's own
		{"etc", "local all all trust\n", true},
	} {
		s := newSite(t)
		dir := t.TempDir()
		hba := filepath.Join(dir, c.folder, "pg_hba.conf")
		writeTree(t, dir, map[string]string{c.folder + "/pg_hba.conf": c.content, "postgresql.conf": "port = 5\n"})
		s.server.facts.ConfigFile, s.server.facts.HBAFile = filepath.Join(dir, "postgresql.conf"), hba
		b, _ := s.mustPush(t)
		got := untar(t, s.open(t, *b.Configuration, repo.ConfigurationHeader(b.SystemID, b.ID)))
		_, there := got[strings.TrimPrefix(hba, "/")]
		if _, named := b.ConfigurationOf["hba_file"]; there != c.captured || named != c.captured || len(b.ConfigurationOf) == 0 {
			t.Errorf("%s with %q: captured %v, the record says %v", c.folder, c.content, there, b.ConfigurationOf)
		}
	}
}

// A configuration file in the data directory that is a link is captured by
// what it leads to.
func TestLinkedConfiguration(t *testing.T) {
	s := newSite(t)
	etc := t.TempDir()
	writeTree(t, etc, map[string]string{"real.conf": "port = 7\n"})
	remove(t, filepath.Join(s.dir, "postgresql.conf"))
	writeTree(t, s.dir, map[string]string{"postgresql.conf": "-> " + filepath.Join(etc, "real.conf")})
	b, r := s.mustPush(t)
	if b.ConfigurationOf["config_file"] != s.server.facts.ConfigFile {
		t.Fatalf("the record says %v", b.ConfigurationOf)
	}
	got := untar(t, s.open(t, *b.Configuration, repo.ConfigurationHeader(b.SystemID, b.ID)))
	if got[strings.TrimPrefix(s.server.facts.ConfigFile, "/")] != "port = 7\n" {
		t.Errorf("the object has %v", got)
	}
	if _, there := r.entries["postgresql.conf"]; there {
		t.Error("the parts have the link")
	}
}
