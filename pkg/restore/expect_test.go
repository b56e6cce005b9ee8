package restore

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/walship/walship/pkg/crypto"
	"github.com/walship/walship/pkg/repo"
	"github.com/walship/walship/pkg/wal"
	"github.com/walship/walship/pkg/wal/waltest"
)

// changed is a catalogue whose backups are changed, and that has an identity
// or not.
type changed struct {
	Catalogue
	change func(*repo.Backup)
	blind  bool
}

func (c changed) Backup(ctx context.Context, ref repo.BackupRef) (*repo.Backup, error) {
	b, err := c.Catalogue.Backup(ctx, ref)
	if err == nil && c.change != nil {
		c.change(b)
	}
	return b, err
}

func (c changed) Segment(ctx context.Context, systemID uint64, name wal.FileName, size uint64) (io.ReadCloser, error) {
	if c.blind {
		return nil, fmt.Errorf("open %s: %w", name, crypto.ErrNoIdentity)
	}
	return c.Catalogue.Segment(ctx, systemID, name, size)
}

// TestExpect: a plan says how much is replayed, how long it takes, and what is
// written.
func TestExpect(t *testing.T) {
	l := typical(t)
	c := changed{Catalogue: Of(l.repository), change: func(b *repo.Backup) {
		b.PlainSize, b.StopTime = 50<<20, b.StartTime.Add(10*time.Second)
		configuration := b.Manifest // any object that is there
		b.Configuration = &configuration
		b.Tablespaces = []repo.Tablespace{{OID: 16400, Location: "/space"}, {OID: 16401, Location: "pg_tblspc/16401", InPlace: true}}
	}}
	r := Request{
		Target: Target{Kind: TargetLSN, LSN: l.at["e"]}, Directory: "/restored", WALDirectory: "/wal", OwnSettings: true,
		Tablespaces: map[string]string{"16400": "/elsewhere"},
	}
	p, err := MakePlan(t.Context(), c, r)
	if err != nil {
		t.Fatal(err)
	}
	if want := int64(p.Stop.EndLSN - p.record.StartLSN); p.WAL.ReplaySize != want || want <= 0 {
		t.Errorf("%d bytes are replayed, want %d", p.WAL.ReplaySize, want)
	}
	files := Measure{Bytes: 50 << 20, Seconds: 10, Rate: 5 << 20, MeasuredBy: ByBackup, Backup: p.record.ID, MeasuredAt: p.record.StopTime, Sample: 50 << 20}
	if e := p.Estimate; e.Files == nil || *e.Files != files || e.Replay != nil || e.Download != nil {
		t.Errorf("the estimate is %+v of files %+v, want %+v", e, e.Files, files)
	}
	var paths []string
	for _, written := range p.Writes {
		paths = append(paths, written.Path)
	}
	want := []string{
		"/restored.walship/restore.json", "/restored.walship/parts", "/restored/backup_manifest", "/restored.walship/configuration", "/restored/pg_wal",
		"/restored/pg_tblspc/16400", "/restored.walship/walship.toml", "/restored/postgresql.auto.conf", "/restored/recovery.signal", "/restored/global/pg_control",
	}
	if !slices.Equal(paths, want) {
		t.Errorf("it writes\n%q, want\n%q", paths, want)
	}

	// A backup that is put together is as much as all of its chain; one whose
	// clock stood still says nothing.
	p.chain = append(p.chain, &repo.Backup{PlainSize: 25 << 20, StartTime: minute(1), StopTime: minute(9)})
	if e := p.estimate().Files; e.Seconds != 15 {
		t.Errorf("the estimate of a chain is %+v, want 15 s", e)
	}
	p.chain[0].StopTime = p.chain[0].StartTime
	if e := p.estimate().Files; e != nil {
		t.Errorf("the estimate is %+v without a measure", e)
	}
}

// TestNotesOfCertified: what the plan has read from the WAL it doesn't put in
// question.
func TestNotesOfCertified(t *testing.T) {
	l := typical(t)
	for _, target := range []Target{
		{Kind: TargetTime, Time: minute(2)}, {Kind: TargetXID, XID: 703}, {Kind: TargetName, Name: "here"},
	} {
		for _, blind := range []bool{false, true} {
			p, err := MakePlan(t.Context(), changed{Catalogue: Of(l.repository), blind: blind}, Request{Target: target})
			if err != nil {
				t.Fatal(err)
			}
			if p.Certified == blind || (len(p.Notes) > 1) != blind {
				t.Errorf("%s, blind %v: certified %v, notes %q", target, blind, p.Certified, p.Notes)
			}
			if !blind && len(p.Notes) > 0 {
				t.Errorf("%s: notes %q of what is certain", target, p.Notes)
			}
		}
	}
}

// TestMinimal: no recovery goes on where wal_level was minimal.
func TestMinimal(t *testing.T) {
	for _, cut := range []bool{false, true} { // by the segment's end
		l := newLife(t)
		l.commit(701, minute(1))
		if cut {
			l.fillTo(3*smallSegment - waltest.BlockSize)
			l.noopTo(3*smallSegment - 24)
		}
		at := l.Record(wal.ResourceXLOG, 0x60, 0, append(binary.LittleEndian.AppendUint32(nil, 100), make([]byte, 24)...))
		l.commit(702, minute(3))
		l.SwitchSegment()
		l.archive(t, l.repository, 2)
		for _, test := range []struct {
			target            Target
			blind             bool
			problem, warnings string
		}{
			{Target{Kind: TargetLatest}, false, "wal_level was minimal from LSN " + at.String() + " on", ""},
			{Target{Kind: TargetXID, XID: 702, Exclusive: true}, false, "wal_level was minimal from LSN " + at.String() + " on", ""},
			{Target{Kind: TargetXID, XID: 701}, false, "", ""},
			{Target{Kind: TargetLSN, LSN: at, Exclusive: true}, false, "", ""},
			{Target{Kind: TargetLSN, LSN: at}, false, "wal_level was minimal", ""},
			{Target{Kind: TargetLatest}, true, "", "wal_level was minimal at some time"},
		} {
			p, err := MakePlan(t.Context(), changed{Catalogue: Of(l.repository), blind: test.blind}, Request{Target: test.target})
			if err != nil {
				t.Fatal(err)
			}
			problems, warnings := strings.Join(p.Problems, "\n"), strings.Join(p.Warnings, "\n")
			if !strings.Contains(problems, test.problem) || !strings.Contains(warnings, test.warnings) ||
				(problems == "") != (test.problem == "") || (warnings == "") != (test.warnings == "") || p.Reachable != (test.problem == "") {
				t.Errorf("cut %v, %s, blind %v: problems %q, warnings %q; want %q, %q", cut, test.target, test.blind, problems, warnings, test.problem, test.warnings)
			}
		}
	}
}
