package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"

	"github.com/urfave/cli/v2"
)

// printResult prints a command's result on standard output: with --json the
// value itself, otherwise what text writes.
func (e *environment) printResult(c *cli.Context, value any, text func(w io.Writer)) error {
	out := bufio.NewWriter(e.out)
	if c.Bool("json") {
		encoder := json.NewEncoder(out)
		encoder.SetEscapeHTML(false)
		encoder.SetIndent("", "  ")
		if err := encoder.Encode(value); err != nil {
			return fmt.Errorf("print result: %w", err)
		}
	} else {
		text(out)
	}
	if err := out.Flush(); err != nil {
		return fmt.Errorf("print result: %w", err)
	}
	return nil
}
