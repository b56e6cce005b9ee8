package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"time"
	"unicode"

	"github.com/urfave/cli/v2"

	"github.com/walship/walship/pkg/backup"
	"github.com/walship/walship/pkg/pgdata"
	"github.com/walship/walship/pkg/postgres"
	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/wal"
)

func backupCommand(e *environment) *cli.Command {
	return &cli.Command{
		Name:  "backup",
		Usage: "take base backups, and look at them",
		Subcommands: []*cli.Command{
			{
				Name:  "push",
				Usage: "take a base backup of a running server, on its own host or from elsewhere",
				Flags: append([]cli.Flag{
					&cli.StringFlag{Name: "label", Usage: "`TEXT` that the backup's label and record carry", Value: "walship base backup"},
					&cli.StringFlag{Name: "checkpoint", Usage: "`MODE` of the checkpoint that begins the backup: fast, at once; or spread, which doesn't burden the server and takes minutes", Value: "fast"},
					&cli.BoolFlag{Name: "fast", Usage: "the same as --checkpoint=fast, the default"},
					&cli.StringFlag{Name: "manifest-checksums", Usage: "`ALGORITHM` for the checksum of each file: NONE, CRC32C, SHA224, SHA256, SHA384 or SHA512", Value: string(pgdata.ChecksumCRC32C)},
					&cli.BoolFlag{Name: "no-verify-checksums", Usage: "don't hold the pages of relations against their checksums"},
					&cli.BoolFlag{Name: "incremental", Usage: "store only what changed since an earlier backup; what it needs to know that is in docs/incremental.md"},
					&cli.StringFlag{Name: "parent", Usage: "with --incremental: the backup to store the changes since, by its `ID`; without, the newest that can be it"},
					&cli.BoolFlag{Name: "remote", Usage: "let the server send its files, through the replication protocol; no access to the data directory is needed"},
					&cli.BoolFlag{Name: "with-wal", Usage: "stream the WAL of the backup into the repository, for a server that doesn't archive"},
					&cli.StringFlag{Name: "primary", Usage: "`CONNECTION` to the primary of a standby, where walship ends the segment that the backup needs last"},
					durationFlag("wal-timeout", "give up when for so long no segment that the backup needs arrives in the archive", backup.DefaultWALTimeout),
					progressFlag(),
					jsonFlag(),
				}, alias("backup-max-rate", "max-rate",
					e.settingFlags("backup.concurrency", "backup.max_rate", "encryption.identity_files", "postgres.connection", "postgres.data_directory"))...),
				Action: func(c *cli.Context) error {
					if _, err := arguments(c); err != nil {
						return err
					}
					return e.pushBackup(c)
				},
			},
			{
				Name:  "list",
				Usage: "list the backups in the repository, the oldest first",
				Flags: []cli.Flag{systemIDFlag(), jsonFlag()},
				Action: func(c *cli.Context) error {
					if _, err := arguments(c); err != nil {
						return err
					}
					return e.listBackups(c)
				},
			},
			{
				Name:      "show",
				Usage:     "print what a backup's record says",
				ArgsUsage: "ID",
				Flags:     []cli.Flag{systemIDFlag(), jsonFlag()},
				Action: func(c *cli.Context) error {
					args, err := arguments(c, "ID")
					if err != nil {
						return err
					}
					return e.showBackup(c, args[0])
				},
			},
			backupExportCommand(e),
		},
	}
}

func systemIDFlag() cli.Flag {
	return &cli.StringFlag{Name: "system-id", Usage: "only the cluster with this system `IDENTIFIER`"}
}

// backupGarbage is how much garbage may lie around, in per cent of what is in
// use, while a backup is taken. Most of what is in use are a few large buffers
// without pointers, so that to look through it takes little time.
const backupGarbage = 25

// pushBackup takes a backup.
func (e *environment) pushBackup(c *cli.Context) error {
	options, err := pushOptions(c)
	if err != nil {
		return err
	}
	meter, err := e.meter(c, "backup")
	if err != nil {
		return err
	}
	settings, err := e.config()
	if err != nil {
		return err
	}
	options.DataDirectory = settings.Postgres.DataDirectory
	options.Concurrency, options.MaxRate = settings.Backup.Concurrency, int64(settings.Backup.MaxRate)
	host, err := os.Hostname()
	if err != nil {
		return fmt.Errorf("find this host's name: %w", err)
	}
	// Without an identity an incremental backup becomes a full one and says so.
	repository, err := e.repository(c.Context, options.Incremental && len(settings.Encryption.IdentityFiles) > 0)
	if err != nil {
		return err
	}
	if settings.StateDirectory == "" && options.WithWAL {
		return &usageError{"--with-wal: state_directory isn't set, and there is no place for what is received"}
	}
	debug.SetGCPercent(backupGarbage)
	options.Progress = func(p backup.Progress) { meter.show(p.ID, p.Bytes, p.Total) }
	options.WorkDirectory = filepath.Join(settings.StateDirectory, "streams")
	begun := time.Now()
	deps := backup.Deps{Repository: repository, Log: e.logger(), Version: version(), Host: host}
	if repository.Info.Encrypted() && len(settings.Encryption.IdentityFiles) == 0 {
		deps.State = e.state
	}
	b, err := e.takeBackup(c, settings.Postgres.Connection, deps, options)
	meter.end()
	if err != nil {
		return err
	}
	err = e.printResult(c, b, func(w io.Writer) {
		fmt.Fprintf(w, "%s backup %s: %d files, %s (%s stored) in %s; WAL %s to %s on timeline %d\n", kindText(b.Parent), b.ID, b.Files,
			sizeText(b.PlainSize), sizeText(b.StoredSize), time.Since(begun).Round(100*time.Millisecond), b.StartLSN, b.StopLSN, uint32(b.Timeline))
		for _, why := range b.Degraded {
			fmt.Fprintf(w, "degraded: %s\n", why)
		}
	})
	if err == nil && len(b.Degraded) > 0 {
		err = degradedBackup(b)
	}
	return err
}

// takeBackup connects to the servers that the backup needs, and takes it.
func (e *environment) takeBackup(c *cli.Context, connection string, deps backup.Deps, o backup.Options) (*repo.Backup, error) {
	const hint = "postgres.connection, or libpq's PGHOST, PGPORT, PGUSER and ~/.pgpass, say how to connect"
	deps.Replication = func(ctx context.Context) (*postgres.Replication, error) {
		session, err := postgres.ConnectReplication(ctx, connection)
		if err != nil {
			return nil, withHint(err, hint+"; the role needs the attribute REPLICATION, and a line for the database replication in pg_hba.conf")
		}
		return session, nil
	}
	if text := c.String("primary"); text != "" {
		deps.Primary = primaryServer{e, text}
	}
	if c.Bool("remote") {
		return backup.PushRemote(c.Context, deps, o)
	}
	server, err := postgres.Connect(c.Context, connection)
	if err != nil {
		return nil, withHint(err, hint)
	}
	// Closing the session aborts what wasn't stopped; behind a stopped
	// backup there is nothing that it could spoil.
	defer e.disconnect(server)
	deps.Server = server
	return backup.Push(c.Context, deps, o)
}

// primaryServer connects when it is needed: no session would stay idle for as
// long as a backup takes.
type primaryServer struct {
	e          *environment
	connection string
}

func (p primaryServer) CheckPrimary(ctx context.Context, systemID uint64) error {
	server, err := postgres.Connect(ctx, p.connection)
	if err != nil {
		return fmt.Errorf("the primary: %w", err)
	}
	defer p.e.disconnect(server)
	return server.CheckPrimary(ctx, systemID)
}

func (p primaryServer) SwitchWAL(ctx context.Context, systemID uint64) (wal.LSN, error) {
	server, err := postgres.Connect(ctx, p.connection)
	if err != nil {
		return 0, fmt.Errorf("the primary: %w", err)
	}
	defer p.e.disconnect(server)
	return server.SwitchWAL(ctx, systemID)
}

func (e *environment) disconnect(server *postgres.Conn) {
	if err := server.Close(); err != nil {
		e.logger().Warn("close the connection to PostgreSQL", "error", err)
	}
}

// degradedBackup says what is wrong with a backup that was taken.
func degradedBackup(b *repo.Backup) error {
	err := fmt.Errorf("%w: backup %s is stored, but degraded: %s", errDegraded, b.ID, b.Degraded[0])
	if more := len(b.Degraded) - 1; more > 0 {
		err = fmt.Errorf("%w (and %d more such lines, which backup show prints)", err, more)
	}
	return withHint(err, "keep older backups: this one brings the damage back; the server's log and pg_amcheck say what it hits")
}

// pushOptions reads the flags of backup push.
func pushOptions(c *cli.Context) (backup.Options, error) {
	o := backup.Options{
		Label: c.String("label"), WALTimeout: duration(c, "wal-timeout"), IgnorePageChecksums: c.Bool("no-verify-checksums"),
		Incremental: c.Bool("incremental"), Parent: c.String("parent"), WithWAL: c.Bool("with-wal"),
	}
	if o.Parent != "" && !o.Incremental {
		return o, &usageError{"--parent: it is for incremental backups, with --incremental"}
	}
	switch c.String("checkpoint") {
	case "fast":
		o.Fast = true
	case "spread":
		if c.Bool("fast") {
			return o, &usageError{"--fast contradicts --checkpoint=spread: give one of them"}
		}
	default:
		return o, &usageError{fmt.Sprintf("--checkpoint=%s: it is fast or spread", c.String("checkpoint"))}
	}
	if strings.ContainsFunc(o.Label, unicode.IsControl) || o.Label == "" {
		return o, &usageError{"--label: it is empty or has a control character"}
	}
	if o.WALTimeout <= 0 {
		return o, &usageError{"--wal-timeout=0: it must be longer, such as 5min"}
	}
	var err error
	if o.Checksums, err = pgdata.ParseChecksumAlgorithm(c.String("manifest-checksums")); err != nil {
		return o, &usageError{"--manifest-checksums: " + err.Error()}
	}
	return o, nil
}
