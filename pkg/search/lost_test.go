package search

import (
	"errors"
	"strings"
	"testing"
)

func TestParseTable(t *testing.T) {
	for text, want := range map[string]Table{
		"orders":         {"", "orders"},
		"Public.Orders":  {"public", "orders"},
		`"Public"."a.b"`: {"Public", "a.b"},
		`x."say ""hi"""`: {"x", `say "hi"`},
		"":               {},
		"a.b.c":          {},
		"a.":             {},
		".a":             {},
		`"a`:             {},
		`"a"b`:           {},
		`a b`:            {},
	} {
		got, err := ParseTable(text)
		if got != want || (err == nil) != (want != Table{}) {
			t.Errorf("%q is read as %+v, %v; want %+v", text, got, err, want)
		}
	}
}

func TestTableIs(t *testing.T) {
	table := Table{"public", "orders"}
	for _, c := range []struct {
		relation Relation
		is       bool
	}{
		{Relation{Name: "orders", Schema: "public"}, true},
		{Relation{Name: "orders", SchemaOID: publicOID}, true},
		{Relation{Name: "orders", SchemaOID: 16400}, true}, // its name isn't known
		{Relation{Name: "orders", Schema: "shop"}, false},
		{Relation{Name: "order", Schema: "public"}, false},
		{Relation{Name: "orders", Schema: "public", Kind: kindIndex}, false},
		{Relation{FileName: "1663/5/16384"}, false},
	} {
		if table.is(c.relation) != c.is {
			t.Errorf("%+v: %v", c.relation, !c.is)
		}
	}
	if !(Table{"", "orders"}).is(Relation{Name: "orders", Schema: "shop"}) || (Table{"shop", "orders"}).is(Relation{Name: "orders", SchemaOID: publicOID}) {
		t.Error("a table without a schema, or of another")
	}
}

// TestLostBy: only what happened in the database that is meant, where that is
// known, is what is looked for.
func TestLostBy(t *testing.T) {
	table := Table{"public", "orders"}
	relation := Relation{Change: ChangeDrop, Name: "orders", SchemaOID: publicOID}
	placed := relation
	placed.File.Database = 5
	for _, c := range []struct {
		what     string
		event    Event
		database uint32
		want     bool
	}{
		{"any database", Event{Database: 5, Relations: []Relation{relation}}, 0, true},
		{"the one", Event{Database: 5, Relations: []Relation{relation}}, 5, true},
		{"another", Event{Database: 6, Relations: []Relation{relation}}, 5, false},
		{"the file's, not the event's", Event{Database: 6, Relations: []Relation{placed}}, 5, true},
		{"one that isn't known", Event{Relations: []Relation{relation}}, 5, true},
		{"truncated", Event{Database: 5, Relations: []Relation{{Change: ChangeTruncate, Name: "orders", SchemaOID: publicOID}}}, 5, false},
	} {
		if got := table.lostBy(c.event, ChangeDrop, c.database); (got != nil) != c.want {
			t.Errorf("%s: %v", c.what, got)
		}
	}
}

// TestSettle: what a name stands for, of what was lost.
func TestSettle(t *testing.T) {
	loss := func(xid, database, schema uint32, name string) Loss {
		return Loss{Event{XID: xid, Database: database}, Relation{Change: ChangeDrop, Name: "orders", SchemaOID: schema, Schema: name}}
	}
	public, other := loss(1, 5, publicOID, ""), loss(2, 16400, publicOID, "")
	shop, again, unknown := loss(3, 5, 16385, "shop"), loss(4, 5, 16385, ""), loss(5, 5, 16386, "")
	for _, c := range []struct {
		what   string
		table  Table
		losses []Loss
		want   []Loss // nil: it can be several
		sure   bool
	}{
		{"nothing", Table{"public", "orders"}, nil, []Loss{}, false},
		{"one", Table{"", "orders"}, []Loss{unknown}, []Loss{unknown}, true},
		{"two databases", Table{"public", "orders"}, []Loss{public, other}, nil, false},
		{"two schemas", Table{"", "orders"}, []Loss{public, shop}, nil, false},
		{"public goes before a schema without a name", Table{"public", "orders"}, []Loss{public, unknown}, []Loss{public}, true},
		{"twice, its name known the first time only", Table{"shop", "orders"}, []Loss{shop, again, unknown}, []Loss{shop, again}, true},
		{"its name not known", Table{"shop", "orders"}, []Loss{again}, []Loss{again}, false},
		{"neither name known", Table{"shop", "orders"}, []Loss{again, unknown}, nil, false},
	} {
		got, sure, err := Settle(c.table, c.losses)
		if ambiguous, is := errors.AsType[*AmbiguousError](err); c.want == nil {
			if !is || len(ambiguous.Losses) != 2 {
				t.Errorf("%s: %v, %v", c.what, got, err)
			}
			continue
		}
		if err != nil || sure != c.sure || len(got) != len(c.want) {
			t.Errorf("%s: %v, %v, %v", c.what, got, sure, err)
			continue
		}
		for i := range got {
			if got[i].Event.XID != c.want[i].Event.XID {
				t.Errorf("%s: %v, want %v", c.what, got, c.want)
			}
		}
	}
	text := (&AmbiguousError{Table{"", "orders"}, []Loss{public, other}}).Error()
	for _, want := range []string{"transaction 1 of database 5 dropped", "transaction 2 of database 16400 dropped"} {
		if !strings.Contains(text, want) {
			t.Errorf("%q doesn't say %q", text, want)
		}
	}
}
