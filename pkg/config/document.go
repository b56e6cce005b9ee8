package config

import (
	"fmt"
	"strings"
)

// Documentation is the table of settings in Markdown, as it stands in
// docs/configuration.md.
func Documentation() string {
	var out strings.Builder
	out.WriteString("| key | environment variable | flag | default | meaning |\n|---|---|---|---|---|\n")
	for _, k := range Keys() {
		fallback := ""
		if k.Default != "" {
			fallback = "`" + k.Default + "`"
		}
		fmt.Fprintf(&out, "| `%s` | `%s` | `--%s` | %s | %s |\n", k.Name, k.Env(), k.Flag(), fallback, k.Doc)
	}
	return out.String()
}
