package wal

import (
	"errors"
	"testing"
)

func TestDescribe(t *testing.T) {
	const at = uint64(848499900123456)
	file := wire(uint32(1663), uint32(5), uint32(16384))
	for want, test := range map[string]struct {
		resource ResourceManager
		info     uint8
		main     []byte
	}{
		"COMMIT 700 at 2026-11-20 14:25:00.123456Z": {ResourceTransaction, 0x00, wire(at)},
		"ABORT_PREPARED 650 at 2026-11-20 14:25:00.123456Z; gid \"g\"; removes 1663/5/16384; subtransactions 701 702": {
			ResourceTransaction, 0xC0, wire(at, uint32(0x96), uint32(2), uint32(701), uint32(702), uint32(1), file, uint32(650), "g\x00"),
		},
		"CREATE 1663/5/16384 init":                                        {ResourceStorage, 0x10, wire(file, uint32(3))},
		"TRUNCATE 1663/5/16384 to 8 blocks, parts 7":                      {ResourceStorage, 0x20, wire(uint32(8), file, uint32(7))},
		"CREATE DATABASE 20 in tablespace 1663 from 1 in tablespace 1664": {ResourceDatabase, 0x00, wire(uint32(20), uint32(1663), uint32(1), uint32(1664))},
		"CREATE DATABASE 20 in tablespace 1663":                           {ResourceDatabase, 0x10, wire(uint32(20), uint32(1663))},
		"DROP DATABASE 20; tablespaces 1663 1700":                         {ResourceDatabase, 0x20, wire(uint32(20), uint32(2), uint32(1663), uint32(1700))},
		"CREATE TABLESPACE 1700 \"/srv/\\nts\"":                           {ResourceTablespace, 0x00, wire(uint32(1700), "/srv/\nts\x00")},
		"DROP TABLESPACE 1700":                                            {ResourceTablespace, 0x10, wire(uint32(1700))},
		"CHECKPOINT_ONLINE redo 0/3000028; timeline 2; previous timeline 1": {
			ResourceXLOG, 0x10, wire(uint64(0x3000028), uint32(2), uint32(1), make([]byte, 56)),
		},
		"SWITCH": {ResourceXLOG, 0x40, nil},
		"PARAMETER_CHANGE max_connections=100 max_worker_processes=8 max_wal_senders=10 max_prepared_transactions=0 " +
			"max_locks_per_transaction=64 wal_level=unknown wal_log_hints=false track_commit_timestamp=true": {
			ResourceXLOG, 0x60, wire(uint32(100), uint32(8), uint32(10), uint32(0), uint32(64), uint32(9), uint8(0), uint8(1)),
		},
		"RESTORE_POINT \"a\\nb\" at 2026-11-20 14:25:00.123456Z":                       {ResourceXLOG, 0x70, wire(at, "a\nb", make([]byte, 61))},
		"END_OF_RECOVERY timeline 3; previous timeline 2; 2026-11-20 14:25:00.123456Z": {ResourceXLOG, 0x90, wire(at, uint32(3), uint32(2))},
		"OVERWRITE_CONTRECORD of the record at 0/3000028":                              {ResourceXLOG, 0xD0, wire(uint64(0x3000028), at)},
		"": {ResourceXLOG, 0x30, nil},
	} {
		r := recordOf(magicOf15, test.resource, test.info, nil)
		if got, err := r.Describe(&Contents{Main: test.main}); err != nil || got != want {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
		if len(test.main) == 0 {
			continue
		}
		if _, err := r.Describe(&Contents{Main: test.main[:3]}); !errors.Is(err, errRecordLength) {
			t.Errorf("%q, cut: %v", want, err)
		}
	}
}
