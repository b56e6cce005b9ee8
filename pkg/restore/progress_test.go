package restore

import "testing"

// TestProgress: both the comparing with what is there and the restoring are
// told of, to their ends, in an export too.
func TestProgress(t *testing.T) {
	r, work := makeRepository(), t.TempDir()
	b := smallBackup()
	b.commit(t, r)
	run := func(q Request, o Options, run func(*Plan, Options) error) (compared, restored []Progress) {
		t.Helper()
		p, err := MakePlan(t.Context(), Of(r), q)
		if err != nil {
			t.Fatal(err)
		}
		o.Log = discard
		o.Progress = func(p Progress) {
			switch {
			case !p.Comparing:
				restored = append(restored, p)
			case len(restored) > 0:
				t.Error("comparing goes on while files are restored")
			default:
				compared = append(compared, p)
			}
		}
		if err := run(p, o); err != nil {
			t.Fatal(err)
		}
		return compared, restored
	}
	restore := func(p *Plan, o Options) error {
		_, err := Run(t.Context(), r, p, o)
		return err
	}
	export := func(p *Plan, o Options) error { return Export(t.Context(), r, p, o) }

	compared, restored := run(request(work), Options{}, restore)
	if len(compared) != 0 || len(restored) < 2 {
		t.Errorf("of a restore into nothing was said %+v and %+v", compared, restored)
	}
	compared, restored = run(request(work), Options{Reuse: true}, restore)
	if len(compared) < 2 || compared[0].Total < 20000+8192 {
		t.Fatalf("of the comparing was said %+v", compared)
	}
	// All but pg_control, and postgresql.auto.conf, whose size is another.
	if last := compared[len(compared)-1]; last.Done < 20000 || last.Done > last.Total-8192 {
		t.Errorf("the last that was said of the comparing is %+v", last)
	}
	if first := restored[0]; first.Kept < 20000 || first.Done < first.Kept {
		t.Errorf("behind the comparing was said %+v", first)
	}

	q := Request{Backup: b.record.ID, Target: Target{Kind: TargetImmediate}, Timeline: TimelineCurrent, Export: true, Directory: work + "/export", Tablespaces: map[string]string{"16400": work + "/slow"}}
	_, restored = run(q, Options{}, export)
	if len(restored) < 2 || restored[len(restored)-1].Done < 20000 {
		t.Errorf("of an export was said %+v", restored)
	}
}
