package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"
	"github.com/walship/walship/pkg/config"
)

// settingFlags are flags that override settings, one for each of the given
// keys, or for all there are.
func (e *environment) settingFlags(keys ...string) []cli.Flag {
	wanted := make(map[string]bool, len(keys))
	for _, name := range keys {
		wanted[name] = true
	}
	var flags []cli.Flag
	for _, k := range config.Keys() {
		if len(keys) > 0 && !wanted[k.Name] {
			continue
		}
		delete(wanted, k.Name)
		flags = append(flags, &cli.GenericFlag{
			Name:     k.Flag(),
			Usage:    k.Doc,
			Value:    &settingValue{key: k, set: e.flags},
			Category: "SETTINGS",
			// Not EnvVars: config reads the environment.
			DefaultText: k.Default,
		})
	}
	for name := range wanted {
		panic("no setting is called " + name)
	}
	return flags
}

// alias gives the flag that has a name another one, too.
func alias(name, other string, flags []cli.Flag) []cli.Flag {
	for _, f := range flags {
		if g, ok := f.(*cli.GenericFlag); ok && g.Name == name {
			g.Aliases = append(g.Aliases, other)
			return flags
		}
	}
	panic("no flag is called " + name)
}

// settingValue is the value of a setting's flag. A list's flag may be given
// several times.
type settingValue struct {
	key   config.Key
	set   map[string]string
	given bool
}

func (v *settingValue) Set(text string) error {
	if v.given && v.key.List() {
		text = v.set[v.key.Name] + "," + text
	}
	v.set[v.key.Name] = text
	v.given = true
	return nil
}

func (v *settingValue) String() string { return "" }

// Serialize is what the flag parser sets the other names of a flag to.
func (v *settingValue) Serialize() string { return v.set[v.key.Name] }

// jsonFlag makes a command print its result as JSON.
func jsonFlag() cli.Flag {
	return &cli.BoolFlag{Name: "json", Usage: "print the result as JSON"}
}

// durationFlag takes a time as settings do, with PostgreSQL's units.
func durationFlag(name, usage string, value time.Duration) cli.Flag {
	return &cli.GenericFlag{Name: name, Usage: usage, Value: &durationValue{config.Duration{Duration: value}}}
}

// duration is the value of a durationFlag.
func duration(c *cli.Context, name string) time.Duration {
	return c.Generic(name).(*durationValue).Duration.Duration
}

type durationValue struct{ config.Duration }

func (v *durationValue) Set(text string) error { return v.UnmarshalText([]byte(text)) }

// arguments returns the arguments of a command, which are as many as it has
// names for. The flag parser stops at the first argument: a flag behind it is
// refused rather than taken for an argument.
func arguments(c *cli.Context, names ...string) ([]string, error) {
	args := c.Args().Slice()
	for _, arg := range args {
		if len(arg) > 1 && strings.HasPrefix(arg, "-") {
			return nil, &usageError{fmt.Sprintf("flag %s stands behind an argument: flags go before", flagName(arg))}
		}
	}
	if len(args) == len(names) {
		return args, nil
	}
	usage := strings.TrimSpace(c.Command.HelpName + " [flags] " + strings.Join(names, " "))
	if len(args) > len(names) {
		return nil, &usageError{fmt.Sprintf("unexpected argument %q: usage: %s", args[len(names)], usage)}
	}
	return nil, &usageError{fmt.Sprintf("%s is missing: usage: %s", names[len(args)], usage)}
}

// flagName leaves out a flag's value, which may be a secret.
func flagName(arg string) string {
	name, _, _ := strings.Cut(arg, "=")
	return name
}
