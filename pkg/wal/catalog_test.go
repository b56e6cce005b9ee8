package wal

import (
	"bytes"
	"encoding/binary"
	"slices"
	"strings"
	"testing"
)

// le writes numbers one after the other, each of its own size.
func le(values ...any) []byte {
	var b bytes.Buffer
	for _, v := range values {
		switch v := v.(type) {
		case []byte:
			b.Write(v)
		case string: // a NameData
			b.WriteString(v + strings.Repeat("\x00", nameSize-len(v)))
		default:
			if err := binary.Write(&b, binary.LittleEndian, v); err != nil {
				panic(err)
			}
		}
	}
	return b.Bytes()
}

// classRow is a row of pg_class, of a version before 18 or since.
func classRow(name string, file uint32, since18 bool) Row {
	row := le(uint32(16384), name, uint32(2200), uint32(1), uint32(0), uint32(10), uint32(2), file, uint32(1700), int32(3), float32(42), int32(1))
	if since18 {
		row = append(row, le(int32(9))...)
	}
	return append(row, le(uint32(16387), uint8(1), uint8(0), []byte("p"), []byte("r"), int16(4), int16(0), make([]byte, 8), uint32(555), uint32(700), uint32(1))...)
}

func TestClass(t *testing.T) {
	want := Class{OID: 16384, Name: "orders", Namespace: 2200, FileNumber: 16390, Tablespace: 1700, Pages: 3, Rows: 42, TOAST: 16387, Kind: 'r', RewriteOf: 555}
	for _, magic := range []uint16{0xD106, 0xD110, magic18} {
		r := Record{magic: magic}
		row := classRow("orders", 16390, magic == magic18)
		if got, ok := r.Class(row); !ok || got != want {
			t.Errorf("%#x: %+v, %t", magic, got, ok)
		}
		if _, ok := r.Class(row[:len(row)-12]); ok {
			t.Errorf("%#x: a row that is cut is read", magic)
		}
		row[20] = 'x' // behind the name's end
		if _, ok := r.Class(row); ok {
			t.Errorf("%#x: a name that goes on behind its end is read", magic)
		}
	}
}

func TestOtherCatalogues(t *testing.T) {
	if oid, name, ok := ParseNamespace(Row(le(uint32(16400), "shop", uint32(10)))); oid != 16400 || name != "shop" || !ok {
		t.Errorf("a schema: %d, %s, %t", oid, name, ok)
	}
	if _, _, ok := ParseNamespace(Row("short")); ok {
		t.Error("a schema's row that is cut is read")
	}
	if index, table, ok := ParseIndex(Row(le(uint32(16390), uint32(16384)))); index != 16390 || table != 16384 || !ok {
		t.Errorf("an index: %d, %d, %t", index, table, ok)
	}
	for magic, offset := range map[uint16]int{0xD10D: 208, 0xD110: 80} {
		row := append(le(uint32(16500)), make([]byte, 300)...)
		r := Record{magic: magic}
		if _, ok := r.DoomedDatabase(row); ok {
			t.Errorf("%#x: a sound database is doomed", magic)
		}
		binary.LittleEndian.PutUint32(row[offset:], 1<<32-2)
		if oid, ok := r.DoomedDatabase(row); oid != 16500 || !ok {
			t.Errorf("%#x: a doomed database: %d, %t", magic, oid, ok)
		}
	}
	r := Record{Resource: ResourceRelationMap}
	c := Contents{Main: le(uint32(5), uint32(1663), int32(512), uint32(relationMapMagic), int32(2), uint32(1259), uint32(16402), uint32(1249), uint32(1249))}
	m, err := r.RelationMap(&c)
	if err != nil || m.Database != 5 || len(m.Files) != 2 || m.Files[1259] != 16402 {
		t.Errorf("a relation map: %+v, %v", m, err)
	}
	c.Main = c.Main[:len(c.Main)-1]
	if _, err := r.RelationMap(&c); err == nil {
		t.Error("a relation map that is cut is read")
	}
	r = Record{Resource: ResourceHeap, Info: 0x30}
	database, oids, err := r.TruncatedRelations(&Contents{Main: le(uint32(5), uint32(2), uint32(0), uint32(16384), uint32(16385))})
	if err != nil || database != 5 || !slices.Equal(oids, []uint32{16384, 16385}) {
		t.Errorf("truncated relations: %d, %d, %v", database, oids, err)
	}
}

// TestHeapChange puts new row versions together from old ones and from what
// records say.
func TestHeapChange(t *testing.T) {
	header := le(uint16(33), uint16(0), uint8(32)) // t_hoff 32: 9 bytes of null bitmap and padding
	bitmap := make([]byte, 9)
	old := Row("the old row version")
	for name, test := range map[string]struct {
		info uint8
		main []byte
		data []byte
		row  string
	}{
		"insert":                 {0x00, le(uint16(7), uint8(0)), slices.Concat(header, bitmap, []byte("a row")), "a row"},
		"update":                 {0x20, le(uint32(9), uint16(6), uint8(0), uint8(0), uint32(0), uint16(7)), slices.Concat(header, bitmap, []byte("a row")), "a row"},
		"update, prefix, suffix": {0x40, le(uint32(9), uint16(6), uint8(0), uint8(0x60), uint32(0), uint16(7)), slices.Concat(le(uint16(4), uint16(12)), header, bitmap, []byte("new")), "the new row version"},
		"in place":               {0x70, le(uint16(6)), []byte("other bytes"), "other bytes"},
	} {
		r := Record{Resource: ResourceHeap, Info: test.info}
		c := Contents{Main: test.main, Blocks: []Block{{Relation: RelFile{1, 2, 3}, Number: 5, Data: test.data}}}
		change, err := r.HeapChange(&c)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if got, ok := change.NewRow(old); !ok || string(got) != test.row {
			t.Errorf("%s: %q, %t", name, got, ok)
		}
		if change.Kind != HeapInplace && change.New != (RowPlace{5, 7}) || change.Kind != HeapInsert && change.Old != (RowPlace{5, 6}) {
			t.Errorf("%s: from %v to %v", name, change.Old, change.New)
		}
		if _, ok := change.NewRow(nil); ok == strings.Contains(name, "prefix") {
			t.Errorf("%s: without the old version: %t", name, ok)
		}
		c.Blocks[0].Data = nil // the page's image has it
		if change, err = r.HeapChange(&c); err != nil {
			t.Errorf("%s without data: %v", name, err)
		} else if _, ok := change.NewRow(old); ok {
			t.Errorf("%s without data: there is a row", name)
		}
		c.Main = c.Main[:1]
		if _, err := r.HeapChange(&c); err == nil {
			t.Errorf("%s that is cut is read", name)
		}
	}
	r := Record{Resource: ResourceHeap, Info: 0x10}
	c := Contents{Main: le(uint32(9), uint16(6), uint8(0), uint8(0)), Blocks: []Block{{Number: 5}}}
	if change, err := r.HeapChange(&c); err != nil || change.Old != (RowPlace{5, 6}) || change.Kind != HeapDelete {
		t.Errorf("delete: %+v, %v", change, err)
	}
}

// heapPage has two rows, the second of which is deleted.
func heapPage() []byte {
	page := make([]byte, 8192)
	tuple := func(line, at int, xmax uint32, row string) {
		copy(page[at:], le(uint32(1), xmax, make([]byte, 12), uint16(0), uint8(24), uint8(0), []byte(row)))
		length := 24 + len(row)
		binary.LittleEndian.PutUint32(page[24+4*line:], uint32(at)|1<<15|uint32(length)<<17)
	}
	tuple(0, 8000, 0, "one")
	tuple(2, 7900, 77, "two")
	binary.LittleEndian.PutUint32(page[24+4*1:], 3<<15) // dead
	copy(page[12:], le(uint16(24+3*4), uint16(7900), uint16(8192)))
	return page
}

func TestRestoreImage(t *testing.T) {
	page := heapPage()
	without := slices.Concat(page[:36], page[7900:]) // the hole
	literal := func(data []byte, lz4 bool) []byte {
		var b []byte
		if lz4 {
			b = append(b, 0xF0)
			rest := len(data) - 15
			for ; rest >= 255; rest -= 255 {
				b = append(b, 255)
			}
			return append(append(b, byte(rest)), data...)
		}
		for chunk := range slices.Chunk(data, 8) {
			b = append(append(b, 0), chunk...)
		}
		return b
	}
	for name, b := range map[string]Block{
		"whole":      {Image: page},
		"with hole":  {Image: without, HoleOffset: 36},
		"pglz":       {Image: literal(without, false), Compressed: CompressionPGLZ, HoleOffset: 36, HoleLength: 7900 - 36},
		"lz4":        {Image: literal(without, true), Compressed: CompressionLZ4, HoleOffset: 36, HoleLength: 7900 - 36},
		"pglz whole": {Image: literal(page, false), Compressed: CompressionPGLZ},
		"zstd":       {Image: without, Compressed: CompressionZstd, HoleOffset: 36, HoleLength: 7900 - 36},
	} {
		got, err := b.RestoreImage(func(frame []byte, most int) ([]byte, error) {
			if most < len(frame) {
				t.Errorf("%s: at most %d bytes", name, most)
			}
			return frame, nil
		})
		if err != nil || !bytes.Equal(got, page) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
	}
	for name, b := range map[string]Block{
		"a hole behind the end": {Image: without, HoleOffset: 9000, HoleLength: 10},
		"a hole of no length":   {Image: make([]byte, 100), HoleOffset: 36},
		"pglz cut":              {Image: []byte{1, 0}, Compressed: CompressionPGLZ},
		"lz4 cut":               {Image: []byte{0xF0}, Compressed: CompressionLZ4},
		"too long":              {Image: literal(make([]byte, 40000), true), Compressed: CompressionLZ4},
	} {
		if _, err := b.RestoreImage(nil); err == nil {
			t.Errorf("%s: there is a page", name)
		}
	}
	var rows []RowVersion
	for row := range Rows(page) {
		rows = append(rows, row)
	}
	if len(rows) != 2 || rows[0].Offset != 1 || string(rows[0].Row) != "one" || rows[0].Deleted || rows[1].Offset != 3 || string(rows[1].Row) != "two" || !rows[1].Deleted {
		t.Errorf("the page has %+v", rows)
	}
}

// TestRepetitions: what is repeated may overlap what it makes.
func TestRepetitions(t *testing.T) {
	const want = "abababababababababab-ababab"
	// ab, then 18 bytes from 2 before (a length of 18 is followed by one that is added); -; 6 from 3 before the dash's end…
	pglz := []byte{0b10100, 'a', 'b', 0x0F, 2, 0, '-', 0x03, 7}
	if got, err := decodePGLZ(pglz, 100); err != nil || string(got) != want {
		t.Errorf("pglz: %q, %v", got, err)
	}
	lz4 := []byte{0x2E, 'a', 'b', 2, 0, 0x12, '-', 7, 0, 0x00}
	if got, err := decodeLZ4(lz4, 100); err != nil || string(got) != want {
		t.Errorf("lz4: %q, %v", got, err)
	}
	for most := range len(want) {
		if _, err := decodePGLZ(pglz, most); err == nil {
			t.Errorf("pglz: %d bytes are more than %d", len(want), most)
		}
		if _, err := decodeLZ4(lz4, most); err == nil {
			t.Errorf("lz4: %d bytes are more than %d", len(want), most)
		}
	}
	if _, err := decodePGLZ([]byte{1, 0x00, 9}, 100); err == nil {
		t.Error("pglz: what is before the beginning is repeated")
	}
	if _, err := decodeLZ4([]byte{0x10, 'a', 9, 0, 0}, 100); err == nil {
		t.Error("lz4: what is before the beginning is repeated")
	}
}

func FuzzHeap(f *testing.F) {
	header := le(uint16(33), uint16(0), uint8(32))
	f.Add(uint8(0x40), uint8(0), le(uint32(9), uint16(6), uint8(0), uint8(0x60), uint32(0), uint16(7)), slices.Concat(le(uint16(4), uint16(12)), header, make([]byte, 12)), []byte{})
	f.Add(uint8(0x00), uint8(1), le(uint16(7), uint8(0)), []byte{}, []byte{0b10100, 'a', 'b', 0x0F, 2, 0, '-', 0x03, 7})
	f.Add(uint8(0x10), uint8(2), le(uint32(9), uint16(6), uint8(0), uint8(0)), []byte{}, []byte{0x2E, 'a', 'b', 2, 0, 0x12, '-', 7, 0, 0x00})
	f.Add(uint8(0x10), uint8(0), le(uint32(9), uint16(6), uint8(0), uint8(0)), []byte{}, heapPage())
	f.Fuzz(func(t *testing.T, info, compressed uint8, main, data, image []byte) {
		b := Block{Data: data, Image: image, HasImage: true, ApplyImage: true, Compressed: Compression(compressed % 3)}
		if len(data) > 2 {
			b.HoleOffset, b.HoleLength = uint16(data[0])<<4, uint16(data[1])<<6
		}
		c := Contents{Main: main, Blocks: []Block{b}}
		r := Record{Resource: ResourceHeap, Info: info, magic: magic15}
		if change, err := r.HeapChange(&c); err == nil {
			if row, ok := change.NewRow(Row("an older version of the row")); ok && len(row) > len(data)+64 {
				t.Errorf("a row of %d bytes from %d", len(row), len(data))
			}
		}
		page, err := b.RestoreImage(nil)
		if len(page) > maxPageSize+len(image) {
			t.Errorf("a page of %d bytes", len(page))
		}
		for row := range Rows(page) {
			if err != nil || len(row.Row) > len(page) {
				t.Errorf("a row of %d bytes on a page of %d, %v", len(row.Row), len(page), err)
			}
			r.Class(row.Row)
			r.DoomedDatabase(row.Row)
		}
		_, _, _ = r.TruncatedRelations(&c)
		r.Resource = ResourceRelationMap
		_, _ = r.RelationMap(&c)
	})
}
