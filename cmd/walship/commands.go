package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"
	"github.com/walship/walship/pkg/config"
)

// commands are walship's commands in the order in which help lists them.
func commands(e *environment) []*cli.Command {
	return []*cli.Command{
		initCommand(e),
		walCommand(e),
		backupCommand(e),
		restoreCommand(e),
		rescueCommand(e),
		statusCommand(e),
		keyCommand(e),
		configCommand(e),
		versionCommand(e),
	}
}

// runCommand parses args and runs the command that they name.
func runCommand(ctx context.Context, e *environment, args []string) error {
	e.args = args
	app := &cli.App{
		Name:      "walship",
		Usage:     "archive PostgreSQL's WAL, back up and restore to an exact moment",
		UsageText: "walship [flags and settings] command [flags] [arguments]",
		Version:   version(),
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "config", Usage: "read the settings from `FILE`", Destination: &e.configFile},
		}, e.settingFlags()...),
		Commands:        commands(e),
		Reader:          e.in,
		Writer:          e.out,
		ErrWriter:       e.err,
		HideHelpCommand: true,
		ExitErrHandler:  func(*cli.Context, error) {},
	}
	started := false // the action that the user named
	app.Action = unknownCommand
	app.OnUsageError = refuseUsage
	prepare(app.Commands, &started)
	err := app.RunContext(ctx, args)
	if _, is := errors.AsType[*usageError](err); err != nil && !started && !is {
		return &usageError{err.Error()}
	}
	if cause := context.Cause(ctx); err != nil && errors.Is(err, context.Canceled) && cause != nil {
		return fmt.Errorf("%w: %w", cause, err)
	}
	return err
}

// prepare gives all commands the same manners: they print no help in the
// place of an error, and what fails before their action is wrong usage.
func prepare(all []*cli.Command, started *bool) {
	for _, c := range all {
		c.HideHelpCommand = true
		c.OnUsageError = refuseUsage
		if len(c.Subcommands) > 0 {
			c.Action = unknownCommand
			prepare(c.Subcommands, started)
			continue
		}
		action := c.Action
		c.Action = func(c *cli.Context) error {
			*started = true
			return action(c)
		}
	}
}

// refuseUsage is for what the flag parser refuses. It may be a setting whose
// flag the command doesn't take behind its name.
func refuseUsage(_ *cli.Context, err error, _ bool) error {
	usage := &usageError{err.Error()}
	flag, unknown := strings.CutPrefix(err.Error(), "flag provided but not defined: -")
	for _, k := range config.Keys() {
		if unknown && k.Flag() == flag {
			return withHint(usage, fmt.Sprintf("the flag of this setting stands before the command: walship --%s=…", flag))
		}
	}
	return usage
}

// unknownCommand is the action where a command was expected.
func unknownCommand(c *cli.Context) error {
	name := c.Command.HelpName
	if name == "" {
		name = c.App.Name
	}
	if !c.Args().Present() {
		return withHint(&usageError{fmt.Sprintf("no command is given to %s", name)}, name+" --help lists them")
	}
	return withHint(&usageError{fmt.Sprintf("%s has no command %q", name, c.Args().First())}, name+" --help lists those that there are")
}
