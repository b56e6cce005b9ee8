package rescue

import (
	"testing"

	"github.com/walship/walship/pkg/search"
)

func TestParseName(t *testing.T) {
	for text, want := range map[string]Name{
		"orders": {"public", "orders"}, "Shop.Orders": {"shop", "orders"}, `"Shop"."a.""b"`: {"Shop", `a."b`}, `s."T"`: {"s", "T"},
	} {
		if got, err := ParseName(text); err != nil || got != want {
			t.Errorf("%s: %v, %v; want %v", text, got, err, want)
		}
	}
	for _, text := range []string{"", ".", "a.", ".a", "a.b.c", `"a`, `"a"b`, `a"b"`, "a b"} {
		if got, err := ParseName(text); err == nil {
			t.Errorf("%q is taken for %v", text, got)
		}
	}
	if got := (Name{"Shop", `a"b`}).String(); got != `"Shop"."a""b"` {
		t.Errorf("written: %s", got)
	}
}

func TestDrops(t *testing.T) {
	table := search.Relation{Change: search.ChangeDrop, Kind: "table", Name: "orders", SchemaOID: publicOID}
	for _, c := range []struct {
		change func(*search.Relation)
		name   Name
		want   bool
	}{
		{func(*search.Relation) {}, Name{"public", "orders"}, true},
		{func(*search.Relation) {}, Name{"shop", "orders"}, false},
		{func(r *search.Relation) { r.SchemaOID = 16500 }, Name{"shop", "orders"}, true}, // as far as is known
		{func(r *search.Relation) { r.Schema = "store" }, Name{"shop", "orders"}, false},
		{func(r *search.Relation) { r.Schema = "shop" }, Name{"shop", "orders"}, true},
		{func(r *search.Relation) { r.Change = search.ChangeTruncate }, Name{"public", "orders"}, false},
		{func(r *search.Relation) { r.Change = search.ChangeRewrite }, Name{"public", "orders"}, false},
		{func(r *search.Relation) { r.Kind = "index" }, Name{"public", "orders"}, false},
		{func(*search.Relation) {}, Name{"public", "other"}, false},
	} {
		r := table
		c.change(&r)
		if got := drops(r, c.name); got != c.want {
			t.Errorf("%+v drops %v: %v, want %v", r, c.name, got, c.want)
		}
	}
}
