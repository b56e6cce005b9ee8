package main

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"

	"github.com/urfave/cli/v2"
	"github.com/walship/walship/pkg/config"
)

func configCommand(e *environment) *cli.Command {
	return &cli.Command{
		Name:  "config",
		Usage: "look at the settings",
		Subcommands: []*cli.Command{{
			Name:  "show",
			Usage: "print every setting and where it came from; secrets are left out",
			Flags: []cli.Flag{jsonFlag()},
			Action: func(c *cli.Context) error {
				if _, err := arguments(c); err != nil {
					return err
				}
				return e.showConfig(c)
			},
		}},
	}
}

// settingResult is one setting. Value is null where it isn't set, and an
// array for lists.
type settingResult struct {
	Key    string `json:"key"`
	Value  any    `json:"value"`
	Origin string `json:"origin"`         // default, file, environment or flag
	Name   string `json:"name,omitempty"` // the file, variable or flag
	Env    string `json:"env"`
}

type configResult struct {
	File     string          `json:"file,omitempty"` // the file that was read
	Settings []settingResult `json:"settings"`
}

func (e *environment) showConfig(c *cli.Context) error {
	settings, err := e.config()
	if err != nil {
		return err
	}
	result := configResult{File: settings.File()}
	for _, v := range settings.Values() {
		result.Settings = append(result.Settings, settingResult{
			Key: v.Key.Name, Value: jsonValue(v),
			Origin: string(v.Origin.Kind), Name: v.Origin.Name, Env: v.Key.Env(),
		})
	}
	return e.printResult(c, result, func(w io.Writer) {
		if result.File != "" {
			fmt.Fprintf(w, "# %s\n", result.File)
		}
		table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
		for _, v := range settings.Values() {
			fmt.Fprintf(table, "%s\t= %s\t# %s\n", v.Key.Name, v.Literal(), v.Origin)
		}
		_ = table.Flush() // w remembers an error
	})
}

func jsonValue(v config.Value) any {
	switch {
	case v.Key.List():
		return append([]string{}, v.Texts...)
	case len(v.Texts) == 0:
		return nil
	}
	return strings.Join(v.Texts, "")
}
