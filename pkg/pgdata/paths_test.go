package pgdata

import "testing"

func TestExclude(t *testing.T) {
	cases := []struct {
		name  string
		isDir bool
		want  Exclusion
	}{
		{"PG_VERSION", false, Included},
		{"global/pg_control", false, Included},
		{"base/5/16384", false, Included},
		{"base/5/16384_init", false, Included},
		{"base/5/t3_16384", false, Excluded},
		{"base/5/t3_16384_vm.1", false, Excluded},
		{"base/5/t3", false, Included},
		{"base/5/pg_internal.init", false, Excluded},
		{"global/pg_internal.init.1234", false, Excluded},
		{"base/pgsql_tmp", true, Excluded},
		{"base/pgsql_tmp/pgsql_tmp123.0", false, Excluded},
		{"pg_tblspc/16400/PG_15_202209061/pgsql_tmp", true, Excluded},
		{"pg_tblspc/16400/PG_15_202209061/5/t3_9", false, Excluded},
		{"pg_wal", true, ExcludedContents},
		{"pg_replslot", true, ExcludedContents},
		{"pg_stat_tmp", true, ExcludedContents},
		{"pg_dynshmem", true, ExcludedContents},
		{"pg_notify", true, ExcludedContents},
		{"pg_serial", true, ExcludedContents},
		{"pg_snapshots", true, ExcludedContents},
		{"pg_subtrans", true, ExcludedContents},
		{"pg_stat", true, Included},
		{"postmaster.pid", false, Excluded},
		{"postmaster.opts", false, Excluded},
		{"backup_label", false, Excluded},
		{"backup_label.old", false, Included},
		{"tablespace_map", false, Excluded},
		{"backup_manifest", false, Excluded},
		{"postgresql.auto.conf", false, Included},
		{"postgresql.auto.conf.tmp", false, Excluded},
		{"current_logfiles.tmp", false, Excluded},
	}
	for _, c := range cases {
		if got := Exclude(c.name, c.isDir); got != c.want {
			t.Errorf("%s: %d, not %d", c.name, got, c.want)
		}
	}
}

func TestClassifyPath(t *testing.T) {
	cases := []struct {
		name     string
		want     Path
		initFork string
	}{
		{"base/5/16384", Path{Kind: KindRelation, Tablespace: 1663, Database: 5, Relation: 16384}, "16384_init"},
		{"base/5/16384.12", Path{Kind: KindRelation, Tablespace: 1663, Database: 5, Relation: 16384, Segment: 12}, "16384_init"},
		{"base/5/16384_vm.1", Path{Kind: KindRelation, Tablespace: 1663, Database: 5, Relation: 16384, Fork: ForkVM, Segment: 1}, "16384_init"},
		{"base/5/16384_fsm", Path{Kind: KindRelation, Tablespace: 1663, Database: 5, Relation: 16384, Fork: ForkFSM}, "16384_init"},
		{"base/5/16384_init", Path{Kind: KindRelation, Tablespace: 1663, Database: 5, Relation: 16384, Fork: ForkInit}, ""},
		{"base/5/t3_16384", Path{Kind: KindRelation, Tablespace: 1663, Database: 5, Relation: 16384, Temporary: true}, ""},
		{"global/1262", Path{Kind: KindRelation, Tablespace: 1664, Relation: 1262}, ""},
		{"global/t3_1262", Path{}, ""},
		{"pg_tblspc/16400/PG_15_202209061/5/16384", Path{Kind: KindRelation, Tablespace: 16400, Database: 5, Relation: 16384}, "16384_init"},
		{"pg_tblspc/x/PG_15_202209061/5/16384", Path{}, ""},
		{"base/5/0", Path{}, ""},
		{"base/5/016384", Path{}, ""},
		{"base/5/4294967296", Path{}, ""},
		{"base/5/16384.0", Path{}, ""},
		{"base/5/16384_main", Path{}, ""},
		{"base/5/16384x", Path{}, ""},
		{"base/x/16384", Path{}, ""},
		{"16384", Path{}, ""},
		{"global/pg_control", Path{Kind: KindControl}, ""},
		{"PG_VERSION", Path{Kind: KindVersion}, ""},
		{"base/5/PG_VERSION", Path{Kind: KindVersion}, ""},
		{"base/5/pg_filenode.map", Path{Kind: KindRelMapper}, ""},
		{"pg_xact/0000", Path{Kind: KindSLRU}, ""},
		{"pg_multixact/offsets/0000", Path{Kind: KindSLRU}, ""},
		{"pg_twophase/000002E0", Path{Kind: KindTwoPhase}, ""},
		{"pg_logical/snapshots/0-1.snap", Path{Kind: KindLogical}, ""},
		{"log/postgresql.log", Path{}, ""},
	}
	for _, c := range cases {
		got := ClassifyPath(c.name)
		if got != c.want {
			t.Errorf("%s: %+v", c.name, got)
		}
		if init := got.InitFork(); init != c.initFork {
			t.Errorf("%s: init fork %q", c.name, init)
		}
	}
	for name, want := range map[string]bool{
		"global/pg_control": true, "PG_VERSION": true, "global/pg_filenode.map": true, "base/5/PG_VERSION": false, "base/5/16384": false,
	} {
		if MustExist(name) != want {
			t.Errorf("MustExist(%s) isn't %v", name, want)
		}
	}
}
