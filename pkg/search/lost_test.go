package search

import "testing"

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
