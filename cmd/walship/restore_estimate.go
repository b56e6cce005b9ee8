package main

import (
	"fmt"
	"os"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/restore"
)

func probeFlag() cli.Flag {
	return &cli.BoolFlag{Name: "no-probe", Usage: "don't read 8 MiB of the backup and the WAL to see how fast they come"}
}

// estimate makes a plan's estimate as good as it can be: by what restores on this
// host have measured, and by how fast the storage is now. It may do without both.
func (e *environment) estimate(c *cli.Context, r *repo.Repository, p *restore.Plan) {
	e.useRates(r, p)
	if c.Bool("no-probe") {
		return
	}
	if err := p.Probe(c.Context, r); err != nil {
		p.Warnings = append(p.Warnings, err.Error())
	}
}

// rates opens the folder that remembers how fast restores of a cluster on this
// host were.
func (e *environment) rates(r *repo.Repository, p *restore.Plan) (*os.Root, error) {
	return e.stateFolder(fmt.Sprintf("%d-restores-%s", p.SystemID, r.Info.ID))
}

func (e *environment) useRates(r *repo.Repository, p *restore.Plan) {
	root, err := e.rates(r, p)
	if err == nil {
		defer root.Close()
		var rates restore.Rates
		if rates, err = restore.ReadRates(root); err == nil {
			p.UseRates(rates)
		}
	}
	if err != nil {
		e.logger().Debug("how fast restores were isn't known", "error", err)
	}
}

func (e *environment) rememberRates(r *repo.Repository, p *restore.Plan, result *restore.Result, started *restore.Started) {
	root, err := e.rates(r, p)
	if err == nil {
		defer root.Close()
		err = result.Remember(root, started)
	}
	if err != nil {
		e.logger().Debug("how fast the restore was isn't remembered", "error", err)
	}
}

// writeEstimate prints how long a restore takes, and by what measure.
func writeEstimate(line func(key, format string, args ...any), e *restore.Estimate) {
	key := "time"
	say := func(m *restore.Measure, what, by string) {
		line(key, "%s %s, if %s (%s/s)", durationText(m.Duration()), what, by, sizeText(int64(m.Rate)))
		key = ""
	}
	if m := e.Files; m != nil {
		say(m, "for the files", measuredBy(m))
	}
	if m := e.Download; m != nil {
		say(m, "for the download, in one stream", measuredBy(m))
	}
	if m := e.Replay; m != nil {
		say(m, "for the replay", measuredBy(m))
	} else {
		line(key, "the replay comes in addition: nothing has measured that yet, restore run --start does")
	}
}

func measuredBy(m *restore.Measure) string {
	switch m.MeasuredBy {
	case restore.ByBackup:
		return "it goes as fast as backup " + m.Backup + " did"
	case restore.ByProbe:
		return fmt.Sprintf("it comes as fast as %s just now", sizeText(m.Sample))
	}
	return fmt.Sprintf("it goes as fast as %s in the restore of %s on this host", sizeText(m.Sample), timeText(m.MeasuredAt.Truncate(time.Second)))
}
