package main

import (
	"fmt"
	"io"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"github.com/walship/walship/pkg/pgdata"
	"github.com/walship/walship/pkg/restore"
)

func backupExportCommand(e *environment) *cli.Command {
	return &cli.Command{
		Name:      "export",
		Usage:     "write a backup with its WAL as a data directory, as pg_basebackup does",
		ArgsUsage: "ID",
		Flags: append([]cli.Flag{
			&cli.StringFlag{Name: "to-dir", Usage: "the new data `DIRECTORY`, empty or not there yet"},
			&cli.GenericFlag{Name: "tablespace-map", Usage: "put the tablespace at OLD (or with that OID) to NEW: `OLD=NEW`; may be given several times", Value: &mappingValue{}},
			&cli.BoolFlag{Name: "replace", Usage: "the exported cluster takes the place of the original: keep its archiving settings"},
			systemIDFlag(), progressFlag(), jsonFlag(),
		}, e.settingFlags("restore.concurrency", "encryption.identity_files")...),
		Action: func(c *cli.Context) error {
			args, err := arguments(c, "ID")
			if err != nil {
				return err
			}
			return restoreError(e.exportBackup(c, args[0]))
		},
	}
}

// exported is the result of an export.
type exported struct {
	Backup    string `json:"backup"`
	Directory string `json:"directory"`
	// Configuration is where the configuration files lie that the original
	// had outside its data directory; empty when it had none.
	Configuration string `json:"configuration,omitempty"`
}

func (e *environment) exportBackup(c *cli.Context, id string) error {
	if c.String("to-dir") == "" {
		return &usageError{"--to-dir is missing: it names the directory to be made"}
	}
	dir, err := filepath.Abs(c.String("to-dir"))
	if err != nil {
		return fmt.Errorf("find --to-dir: %w", err)
	}
	request := restore.Request{
		Backup: id, Target: restore.Target{Kind: restore.TargetImmediate}, Timeline: restore.TimelineCurrent, Export: true,
		Replace: c.Bool("replace"), Directory: dir, Tablespaces: c.Generic("tablespace-map").(*mappingValue).places,
	}
	if text := c.String("system-id"); text != "" {
		if request.SystemID, err = parseSystemID(text); err != nil {
			return err
		}
	}
	meter, err := e.meter(c, "export")
	if err != nil {
		return err
	}
	settings, err := e.config()
	if err != nil {
		return err
	}
	repository, err := e.repository(c.Context, true)
	if err != nil {
		return err
	}
	plan, err := restore.MakePlan(c.Context, restore.Of(repository), request)
	if err != nil {
		return err
	}
	err = restore.Export(c.Context, repository, plan, restore.Options{
		Concurrency: settings.Restore.Concurrency, Log: e.logger(), Progress: meter.ofRestore(id),
	})
	meter.end()
	if err != nil {
		return err
	}
	result := exported{Backup: id, Directory: dir}
	if plan.HasConfiguration() {
		result.Configuration = filepath.Join(restore.StateDirectory(dir), "configuration")
	}
	return e.printResult(c, result, func(w io.Writer) {
		fmt.Fprintf(w, "backup %s is in %s; start it with: pg_ctl -D %s start\n", id, dir, pgdata.ShellWord(dir))
		if result.Configuration != "" {
			fmt.Fprintf(w, "the original's configuration files, which it had elsewhere, are in %s\n", result.Configuration)
		}
	})
}
