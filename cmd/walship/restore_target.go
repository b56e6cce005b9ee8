package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/urfave/cli/v2"

	"github.com/walship/walship/pkg/restore"
	"github.com/walship/walship/pkg/wal"
)

// restoreTarget reads the flags of the target.
func restoreTarget(c *cli.Context) (restore.Target, error) {
	target := restore.Target{Kind: restore.TargetLatest, Exclusive: c.Bool("exclusive")}
	var given []string
	for _, t := range []struct {
		flag  string
		kind  restore.TargetKind
		parse func(value string) error
	}{
		{"to-time", restore.TargetTime, func(s string) (err error) { target.Time, err = restore.ParseTime(s, time.Local); return err }},
		{"to-lsn", restore.TargetLSN, func(s string) (err error) { target.LSN, err = wal.ParseLSN(s); return err }},
		{"to-xid", restore.TargetXID, func(s string) (err error) { target.XID, err = restore.ParseXID(s); return err }},
		{"before-xid", restore.TargetXID, func(s string) (err error) {
			target.XID, err = restore.ParseXID(s)
			target.Exclusive = true
			return err
		}},
		{"before-drop", restore.TargetLatest, settledLater},
		{"before-truncate", restore.TargetLatest, settledLater},
		{"to-name", restore.TargetName, func(s string) error { target.Name = s; return nil }},
		{"to-latest", restore.TargetLatest, nil},
		{"immediate", restore.TargetImmediate, nil},
	} {
		if !c.IsSet(t.flag) || t.parse == nil && !c.Bool(t.flag) {
			continue
		}
		given = append(given, "--"+t.flag)
		target.Kind = t.kind
		if t.parse != nil {
			if err := t.parse(c.String(t.flag)); err != nil {
				return target, &usageError{fmt.Sprintf("--%s: %v", t.flag, err)}
			}
		}
	}
	if len(given) > 1 {
		return target, &usageError{strings.Join(given, " and ") + " are given: a restore has one target"}
	}
	return target, target.Validate()
}

// settledLater reads the flag of a target that is looked for in the WAL.
func settledLater(string) error { return nil }

// mappingValue is the value of --tablespace-map, which may come several times.
type mappingValue struct{ places map[string]string }

// Set reads OLD=NEW. As in pg_basebackup, \= stands for a = in a path.
func (v *mappingValue) Set(text string) error {
	var parts []string
	var part strings.Builder
	for i := 0; i < len(text); i++ {
		switch {
		case text[i] == '\\' && i+1 < len(text) && text[i+1] == '=':
			i++
			part.WriteByte('=')
		case text[i] == '=':
			parts = append(parts, part.String())
			part.Reset()
		default:
			part.WriteByte(text[i])
		}
	}
	parts = append(parts, part.String())
	if len(parts) != 2 || parts[0] == "" || parts[1] == "" {
		return fmt.Errorf("%q isn't of the form OLD=NEW, where a = in a path is written \\=", text)
	}
	if _, twice := v.places[parts[0]]; twice {
		return fmt.Errorf("%s is mapped twice", parts[0])
	}
	if v.places == nil {
		v.places = map[string]string{}
	}
	v.places[parts[0]] = parts[1]
	return nil
}

func (v *mappingValue) String() string { return "" }
