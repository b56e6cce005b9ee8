package rescue

import "testing"

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
