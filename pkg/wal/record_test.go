package wal

import (
	"bytes"
	"encoding/binary"
	"errors"
	"reflect"
	"strings"
	"testing"
)

// wire puts little-endian fields one behind the other.
func wire(fields ...any) []byte {
	var data []byte
	for _, field := range fields {
		switch v := field.(type) {
		case uint8:
			data = append(data, v)
		case uint16:
			data = binary.LittleEndian.AppendUint16(data, v)
		case uint32:
			data = binary.LittleEndian.AppendUint32(data, v)
		case uint64:
			data = binary.LittleEndian.AppendUint64(data, v)
		case string:
			data = append(data, v...)
		case []byte:
			data = append(data, v...)
		default:
			panic("unknown field")
		}
	}
	return data
}

const (
	magicOf13 = 0xD106
	magicOf15 = 0xD110
	magicOf18 = 0xD118
)

// recordOf makes a record with this content behind its header.
func recordOf(magic uint16, resource ResourceManager, info uint8, content []byte) *Record {
	return &Record{
		LSN: 0x3000028, XID: 700, Resource: resource, Info: info, magic: magic,
		Data: append(make([]byte, recordHeaderSize), content...),
	}
}

func TestDecode(t *testing.T) {
	rel := wire(uint32(1663), uint32(5), uint32(16384))
	file := RelFile{1663, 5, 16384}
	for name, test := range map[string]struct {
		magic   uint16
		content []byte
		want    Contents
	}{
		"nothing":         {magic: magicOf15},
		"main data":       {magic: magicOf15, content: wire(uint8(255), uint8(3), "abc"), want: Contents{Main: []byte("abc")}},
		"long main data":  {magic: magicOf15, content: wire(uint8(254), uint32(3), "abc"), want: Contents{Main: []byte("abc")}},
		"origin":          {magic: magicOf13, content: wire(uint8(253), uint16(7), uint8(255), uint8(1), "x"), want: Contents{Origin: 7, Main: []byte("x")}},
		"top-level xid":   {magic: magicOf15, content: wire(uint8(252), uint32(699), uint8(255), uint8(1), "x"), want: Contents{TopLevelXID: 699, Main: []byte("x")}},
		"block with data": {magic: magicOf15, content: wire(uint8(0), uint8(0x20), uint16(2), rel, uint32(9), uint8(255), uint8(1), "ddm"), want: Contents{Main: []byte("m"), Blocks: []Block{{Relation: file, Number: 9, Data: []byte("dd")}}}},
		"two blocks of one relation": {
			magic: magicOf15,
			content: wire(uint8(0), uint8(0x22), uint16(1), rel, uint32(9),
				uint8(3), uint8(0xC1), uint16(0), uint32(10), uint8(255), uint8(1), "dm"),
			want: Contents{Main: []byte("m"), Blocks: []Block{
				{Relation: file, Fork: ForkVisibilityMap, Number: 9, Data: []byte("d")},
				{ID: 3, Relation: file, Fork: ForkFreeSpaceMap, Number: 10, WillInit: true},
			}},
		},
		"image with a hole": {
			magic:   magicOf15,
			content: wire(uint8(0), uint8(0x10), uint16(0), uint16(3), uint16(24), uint8(0x03), rel, uint32(9), "iii"),
			want:    Contents{Blocks: []Block{{Relation: file, Number: 9, HasImage: true, ApplyImage: true, HoleOffset: 24, Image: []byte("iii")}}},
		},
		"compressed image of 13": {
			magic:   magicOf13,
			content: wire(uint8(0), uint8(0x30), uint16(2), uint16(3), uint16(24), uint8(0x07), uint16(100), rel, uint32(9), "iiidd"),
			want: Contents{Blocks: []Block{{Relation: file, Number: 9, HasImage: true, ApplyImage: true, Compressed: CompressionPGLZ,
				HoleOffset: 24, HoleLength: 100, Image: []byte("iii"), Data: []byte("dd")}}},
		},
		"image of 13 that isn't applied": {
			magic:   magicOf13,
			content: wire(uint8(0), uint8(0x10), uint16(0), uint16(3), uint16(0), uint8(0x00), rel, uint32(9), "iii"),
			want:    Contents{Blocks: []Block{{Relation: file, Number: 9, HasImage: true, Image: []byte("iii")}}},
		},
		"images of 15": {
			magic: magicOf15,
			content: wire(uint8(0), uint8(0x10), uint16(0), uint16(1), uint16(0), uint8(0x06), rel, uint32(1),
				uint8(1), uint8(0x90), uint16(0), uint16(1), uint16(0), uint8(0x0A), uint32(2),
				uint8(2), uint8(0x90), uint16(0), uint16(1), uint16(8), uint8(0x13), uint16(50), uint32(3), "plz"),
			want: Contents{Blocks: []Block{
				{ID: 0, Relation: file, Number: 1, HasImage: true, ApplyImage: true, Compressed: CompressionPGLZ, Image: []byte("p")},
				{ID: 1, Relation: file, Number: 2, HasImage: true, ApplyImage: true, Compressed: CompressionLZ4, Image: []byte("l")},
				{ID: 2, Relation: file, Number: 3, HasImage: true, ApplyImage: true, Compressed: CompressionZstd, HoleOffset: 8, HoleLength: 50, Image: []byte("z")},
			}},
		},
	} {
		t.Run(name, func(t *testing.T) {
			var c Contents
			// What an earlier record left behind must not show.
			if err := recordOf(magicOf15, 0, 0, wire(uint8(253), uint16(9), uint8(252), uint32(9), uint8(7), uint8(0x20), uint16(1), rel, uint32(1), uint8(255), uint8(1), "xy")).Decode(&c); err != nil {
				t.Fatal(err)
			}
			if err := recordOf(test.magic, 0, 0, test.content).Decode(&c); err != nil {
				t.Fatal(err)
			}
			if c.Origin != test.want.Origin || c.TopLevelXID != test.want.TopLevelXID || !bytes.Equal(c.Main, test.want.Main) {
				t.Errorf("got %+v", c)
			}
			if len(c.Blocks) != len(test.want.Blocks) {
				t.Fatalf("%d blocks, want %d", len(c.Blocks), len(test.want.Blocks))
			}
			for i, block := range c.Blocks {
				want := test.want.Blocks[i]
				if !bytes.Equal(block.Image, want.Image) || !bytes.Equal(block.Data, want.Data) {
					t.Errorf("block %d has image %q and data %q", i, block.Image, block.Data)
				}
				block.Image, block.Data, want.Image, want.Data = nil, nil, nil, nil
				if !reflect.DeepEqual(block, want) {
					t.Errorf("block %d is %+v, want %+v", i, block, want)
				}
			}
		})
	}
}

func TestDecodeRefuses(t *testing.T) {
	rel := wire(uint32(1663), uint32(5), uint32(16384))
	for name, test := range map[string]struct {
		content []byte
		want    string
	}{
		"unknown reference":    {wire(uint8(33), "xxxx"), "unknown block reference 33"},
		"main data too long":   {wire(uint8(255), uint8(4), "abc"), "lengths"},
		"main data too short":  {wire(uint8(255), uint8(2), "abc"), "lengths"},
		"no length":            {wire(uint8(255)), "lengths"},
		"huge main data":       {wire(uint8(254), uint32(1<<32-1), "abc"), "lengths"},
		"cut origin":           {wire(uint8(253), uint8(1)), "lengths"},
		"cut block":            {wire(uint8(0), uint8(0x00), uint16(0), uint32(1663)), "lengths"},
		"out of order":         {wire(uint8(1), uint8(0), uint16(0), rel, uint32(1), uint8(1), uint8(0x80), uint16(0), uint32(2)), "block reference 1 comes after 1"},
		"no relation before":   {wire(uint8(0), uint8(0x80), uint16(0), uint32(2)), "there is none"},
		"data without a flag":  {wire(uint8(0), uint8(0), uint16(1), rel, uint32(1), "d"), "don't agree"},
		"a flag without data":  {wire(uint8(0), uint8(0x20), uint16(0), rel, uint32(1)), "don't agree"},
		"hole without a place": {wire(uint8(0), uint8(0x10), uint16(0), uint16(1), uint16(0), uint8(1), rel, uint32(1), "i"), "don't agree"},
		"place without a hole": {wire(uint8(0), uint8(0x10), uint16(0), uint16(1), uint16(9), uint8(0), rel, uint32(1), "i"), "don't agree"},
	} {
		var c Contents
		err := recordOf(magicOf15, 0, 0, test.content).Decode(&c)
		if err == nil || !strings.Contains(err.Error(), test.want) || !strings.Contains(err.Error(), "decode record at 0/3000028") {
			t.Errorf("%s: got %v, want an error with %q", name, err, test.want)
		}
	}
}

func TestTransaction(t *testing.T) {
	const at = Timestamp(848499900123456)
	all := func(items ...any) []byte { return wire(append([]any{uint64(at)}, items...)...) }
	stats15 := wire(uint32(1), uint32(2), uint32(5), uint32(16384))
	stats18 := wire(uint32(1), uint32(2), uint32(5), uint32(16384), uint32(0))
	files := wire(uint32(2), uint32(1663), uint32(5), uint32(16384), uint32(1700), uint32(5), uint32(16385))
	invalidations := wire(uint32(1), make([]byte, 16))
	prepare := func(magic uint16) []byte {
		data := wire(uint32(0x57F94534), uint32(0), uint32(701), uint32(5), uint64(at), uint32(10), uint32(3), uint32(1), uint32(1))
		if magic >= magicOf15 {
			data = append(data, wire(uint32(0), uint32(0))...)
		}
		data = append(data, wire(uint32(0), uint8(0), uint8(0), uint16(6), uint64(0), uint64(0), "gid 1\x00\x00\x00")...)
		return append(data, wire(uint32(702), uint32(703), uint32(704), uint32(0),
			uint32(1663), uint32(5), uint32(16384), uint32(0), uint32(1663), uint32(5), uint32(16390), uint32(0))...)
	}
	prepared := Transaction{
		Action: ActionPrepare, Time: at, XID: 701, Database: 5, GID: "gid 1", Subtransactions: []uint32{702, 703, 704},
		Dropped: []RelFile{{1663, 5, 16384}}, DroppedOnAbort: []RelFile{{1663, 5, 16390}},
	}
	for name, test := range map[string]struct {
		magic uint16
		info  uint8
		main  []byte
		want  Transaction
	}{
		"commit": {magicOf13, 0x00, all(), Transaction{Action: ActionCommit, Time: at, XID: 700}},
		"abort":  {magicOf13, 0x20, all(), Transaction{Action: ActionAbort, Time: at, XID: 700}},
		"commit with everything, 13": {
			magicOf13, 0x80, all(uint32(0x0F), uint32(5), uint32(1663), uint32(2), uint32(701), uint32(702), files, invalidations),
			Transaction{Action: ActionCommit, Time: at, XID: 700, Database: 5, Subtransactions: []uint32{701, 702}, Dropped: []RelFile{{1663, 5, 16384}, {1700, 5, 16385}}},
		},
		"commit prepared with everything, 15": {
			magicOf15, 0xB0, all(uint32(0x1BF), uint32(5), uint32(1663), uint32(1), uint32(701), files, stats15, invalidations, uint32(650), "gid\x00", uint64(0), uint64(0)),
			Transaction{Action: ActionCommitPrepared, Time: at, XID: 650, GID: "gid", Database: 5, Subtransactions: []uint32{701}, Dropped: []RelFile{{1663, 5, 16384}, {1700, 5, 16385}}},
		},
		"abort prepared with everything, 18": {
			magicOf18, 0xC0, all(uint32(0x196), uint32(1), uint32(701), files, stats18, uint32(650), "gid\x00"),
			Transaction{Action: ActionAbortPrepared, Time: at, XID: 650, GID: "gid", Subtransactions: []uint32{701}, Dropped: []RelFile{{1663, 5, 16384}, {1700, 5, 16385}}},
		},
		"prepare, 13": {magicOf13, 0x10, prepare(magicOf13), prepared},
		"prepare, 15": {magicOf15, 0x10, prepare(magicOf15), prepared},
	} {
		t.Run(name, func(t *testing.T) {
			r := recordOf(test.magic, ResourceTransaction, test.info, nil)
			got, err := r.Transaction(&Contents{Main: test.main})
			if err != nil || !reflect.DeepEqual(got, test.want) {
				t.Fatalf("got %+v, %v\nwant %+v", got, err, test.want)
			}
			for n := range test.main {
				cut, err := r.Transaction(&Contents{Main: test.main[:n]})
				if err == nil && (len(cut.Subtransactions) != len(got.Subtransactions) || len(cut.Dropped) != len(got.Dropped)) {
					t.Errorf("cut to %d bytes it is read as %+v", n, cut)
				}
			}
		})
	}
	t.Run("lengths beyond the record", func(t *testing.T) {
		r := recordOf(magicOf15, ResourceTransaction, 0x80, nil)
		for _, flag := range []uint32{0x02, 0x04, 0x08, 0x100} {
			if got, err := r.Transaction(&Contents{Main: all(flag, uint32(1<<32-1), uint64(0))}); !errors.Is(err, errRecordLength) {
				t.Errorf("flag %#x: got %+v, %v", flag, got, err)
			}
		}
	})
	t.Run("other records", func(t *testing.T) {
		for _, r := range []*Record{recordOf(magicOf15, ResourceTransaction, 0x50, nil), recordOf(magicOf15, ResourceTransaction, 0x60, nil), recordOf(magicOf15, ResourceXLOG, 0x00, nil)} {
			if _, ok := r.TransactionAction(); ok {
				t.Errorf("%s %#x ends a transaction", r.Resource, r.Info)
			}
			if _, err := r.Transaction(&Contents{}); err == nil {
				t.Errorf("%s %#x is decoded as a transaction's end", r.Resource, r.Info)
			}
		}
	})
}

func TestControl(t *testing.T) {
	checkpoint := wire(uint64(0x3000028), uint32(2), uint32(1), make([]byte, 48), uint64(1795184700), make([]byte, 16))
	for info, kind := range map[uint8]ControlKind{0x00: ControlCheckpointShutdown, 0x12: ControlCheckpointOnline} {
		r := recordOf(magicOf15, ResourceXLOG, info, nil)
		if got, ok := r.ControlKind(); !ok || got != kind {
			t.Errorf("%#x is of kind %d", info, got)
		}
		got, err := r.Checkpoint(&Contents{Main: checkpoint})
		want := Checkpoint{Redo: 0x3000028, Timeline: 2, PreviousTimeline: 1, Time: 848499900e6}
		if err != nil || got != want {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
	}
	r := recordOf(magicOf15, ResourceXLOG, 0x60, nil)
	parameters, err := r.ParameterChange(&Contents{Main: wire(uint32(100), uint32(8), uint32(10), uint32(0), uint32(64), uint32(2), uint8(0), uint8(1), uint16(0))})
	if want := (Parameters{100, 8, 10, 0, 64, 2, false, true}); err != nil || parameters != want {
		t.Errorf("got %+v, %v, want %+v", parameters, err, want)
	}
	r = recordOf(magicOf15, ResourceXLOG, 0x90, nil)
	end, err := r.EndOfRecovery(&Contents{Main: wire(uint64(5), uint32(3), uint32(2))})
	if want := (EndOfRecovery{5, 3, 2}); err != nil || end != want {
		t.Errorf("got %+v, %v, want %+v", end, err, want)
	}
	r = recordOf(magicOf15, ResourceXLOG, 0x70, nil)
	point, err := r.RestorePoint(&Contents{Main: wire(uint64(5), strings.Repeat("x", 64))})
	if want := (RestorePoint{r.LSN, 5, strings.Repeat("x", 64)}); err != nil || point != want {
		t.Errorf("got %+v, %v, want %+v", point, err, want)
	}
	if _, ok := recordOf(magicOf15, ResourceTransaction, 0x70, nil).ControlKind(); ok {
		t.Error("a transaction's record is a control record")
	}

	decoders := map[ControlKind]func(r *Record, c *Contents) error{
		ControlCheckpointShutdown:  func(r *Record, c *Contents) error { _, err := r.Checkpoint(c); return err },
		ControlParameterChange:     func(r *Record, c *Contents) error { _, err := r.ParameterChange(c); return err },
		ControlRestorePoint:        func(r *Record, c *Contents) error { _, err := r.RestorePoint(c); return err },
		ControlEndOfRecovery:       func(r *Record, c *Contents) error { _, err := r.EndOfRecovery(c); return err },
		ControlOverwriteContRecord: func(r *Record, c *Contents) error { _, err := r.OverwrittenContRecord(c); return err },
	}
	for info := 0; info < 0x100; info += 0x10 {
		r := recordOf(magicOf15, ResourceXLOG, uint8(info), nil)
		kind, _ := r.ControlKind()
		for of, decode := range decoders {
			err := decode(r, &Contents{Main: make([]byte, 7)})
			if mine := kind == of || of == ControlCheckpointShutdown && kind == ControlCheckpointOnline; errors.Is(err, errRecordLength) != mine || errors.Is(err, errNotThatRecord) == mine {
				t.Errorf("info %#x decoded as kind %d: %v", info, of, err)
			}
		}
	}
}

func TestStorage(t *testing.T) {
	file := wire(uint32(1663), uint32(5), uint32(16384))
	for name, test := range map[string]struct {
		magic    uint16
		resource ResourceManager
		info     uint8
		main     []byte
		want     Storage
	}{
		"create":               {magicOf13, ResourceStorage, 0x11, wire(file, uint32(3)), Storage{Kind: StorageCreate, Relation: RelFile{1663, 5, 16384}, Fork: ForkInit}},
		"truncate":             {magicOf18, ResourceStorage, 0x21, wire(uint32(8), file, uint32(7)), Storage{Kind: StorageTruncate, Relation: RelFile{1663, 5, 16384}, Blocks: 8, Parts: TruncatedMain | TruncatedVisibilityMap | TruncatedFreeSpaceMap}},
		"create database":      {magicOf13, ResourceDatabase, 0x01, wire(uint32(20), uint32(1663), uint32(1), uint32(1664)), Storage{Kind: StorageCreateDatabaseCopy, Database: 20, Tablespaces: []uint32{1663}, TemplateDatabase: 1, TemplateTablespace: 1664}},
		"create database, log": {magicOf15, ResourceDatabase, 0x10, wire(uint32(20), uint32(1663)), Storage{Kind: StorageCreateDatabaseLog, Database: 20, Tablespaces: []uint32{1663}}},
		"drop database, 13":    {magicOf13, ResourceDatabase, 0x11, wire(uint32(20), uint32(2), uint32(1663), uint32(1700)), Storage{Kind: StorageDropDatabase, Database: 20, Tablespaces: []uint32{1663, 1700}}},
		"drop database, 15":    {magicOf15, ResourceDatabase, 0x21, wire(uint32(20), uint32(1), uint32(1663)), Storage{Kind: StorageDropDatabase, Database: 20, Tablespaces: []uint32{1663}}},
		"create tablespace":    {magicOf15, ResourceTablespace, 0x00, wire(uint32(1700), "/srv/ts\x00"), Storage{Kind: StorageCreateTablespace, Tablespaces: []uint32{1700}, Path: "/srv/ts"}},
		"drop tablespace":      {magicOf15, ResourceTablespace, 0x10, wire(uint32(1700)), Storage{Kind: StorageDropTablespace, Tablespaces: []uint32{1700}}},
	} {
		t.Run(name, func(t *testing.T) {
			r := recordOf(test.magic, test.resource, test.info, nil)
			got, err := r.Storage(&Contents{Main: test.main})
			if err != nil || !reflect.DeepEqual(got, test.want) {
				t.Fatalf("got %+v, %v\nwant %+v", got, err, test.want)
			}
			for n := range test.main {
				if _, err := r.Storage(&Contents{Main: test.main[:n]}); !errors.Is(err, errRecordLength) {
					t.Errorf("cut to %d bytes: %v", n, err)
				}
			}
		})
	}
	for _, r := range []*Record{recordOf(magicOf13, ResourceDatabase, 0x20, nil), recordOf(magicOf15, ResourceStorage, 0x30, nil), recordOf(magicOf15, ResourceXLOG, 0x10, nil)} {
		if kind, ok := r.StorageKind(); ok {
			t.Errorf("%s %#x is of kind %d", r.Resource, r.Info, kind)
		}
		if _, err := r.Storage(&Contents{Main: make([]byte, 100)}); !errors.Is(err, errNotThatRecord) {
			t.Errorf("%s %#x: %v", r.Resource, r.Info, err)
		}
	}
}

func TestNamesOfThings(t *testing.T) {
	for got, want := range map[string]string{
		ResourceXLOG.String():               "XLOG",
		ResourceManager(21).String():        "LogicalMessage",
		ResourceManager(22).String():        "unknown022",
		ResourceManager(128).String():       "custom128",
		Fork(9).String():                    "fork9",
		RelFile{1663, 5, 16384}.String():    "1663/5/16384",
		TransactionAction(0).String():       "UNKNOWN",
		Timestamp(848499900123456).String(): "2026-11-20 14:25:00.123456Z",
		Ending(0).String():                  "",
		EndingDamaged.String():              "damaged",
		Kind(0).String():                    "unknown WAL file",
		TimelineID(10).String():             "0000000A",
	} {
		if got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
