package restore

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/walship/walship/pkg/pgdata"
	"github.com/walship/walship/pkg/repo"
)

// blocks are the content of a file of a relation: a number for each block, 0
// for one of zeros.
type blocks []byte

func (b blocks) bytes() []byte {
	data := make([]byte, len(b)*pgdata.BlockSize)
	for i, n := range b {
		copy(data[i*pgdata.BlockSize:(i+1)*pgdata.BlockSize], bytes.Repeat([]byte{n}, pgdata.BlockSize))
	}
	return data
}

// incrementally is the file that has those blocks of it.
func (b blocks) incrementally(numbers ...uint32) []byte {
	i := pgdata.Incremental{Blocks: numbers, Length: uint32(len(b))}
	data := i.AppendHeader(nil)
	for _, n := range numbers {
		data = append(data, b[n:n+1].bytes()...)
	}
	return data
}

const relation = "base/1/16384"

// chainOf makes a chain: what each backup has of relation, and of another file
// in a tablespace; nil for nothing.
func chainOf(files ...map[string][]byte) []*madeBackup {
	var chain []*madeBackup
	for n, content := range files {
		b := &madeBackup{record: backup(fmt.Sprintf("20261120T0%d0000Z", n+1), 1, uint64(n+2), n+1, "800:800:")}
		b.record.ManifestChecksums = "SHA256"
		b.record.Tablespaces = []repo.Tablespace{{OID: 16400, Location: "/nonexistent/fast", Size: 4}}
		label := backupLabel(b.record)
		if n > 0 {
			parent := chain[n-1].record
			b.record.Parent, b.record.DataSize = parent.AsParent(), 1
			label = string(pgdata.AppendIncremental([]byte(label), parent.StartLSN, 1))
		}
		first := []tarEntry{dir("base"), dir("base/1"), dir("global"), file("PG_VERSION", "15\n"), file(fmt.Sprintf("of%d", n), "x")}
		for _, name := range slices.Sorted(maps.Keys(content)) {
			first = append(first, file(name, string(content[name])))
		}
		b.parts = [][]tarEntry{first, {file("backup_label", label), file("global/pg_control", controlFile(testSystem))}}
		b.list()
		chain = append(chain, b)
	}
	return chain
}

// restoreChain commits and restores a chain.
func restoreChain(t *testing.T, chain []*madeBackup) (map[string]string, error) {
	t.Helper()
	r, work := makeRepository(), t.TempDir()
	for _, b := range chain {
		b.commit(t, r)
	}
	q := request(work)
	q.Backup = chain[len(chain)-1].record.ID
	p, err := MakePlan(t.Context(), Of(r), q)
	if err != nil {
		return nil, err
	}
	if _, err := Run(t.Context(), r, p, Options{Concurrency: 2, Log: discard}); err != nil {
		checkUnstartable(t, q.Directory)
		return nil, err
	}
	files := tree(t, q.Directory)
	for name, content := range tree(t, filepath.Join(work, "fast")) {
		files["pg_tblspc/16400/"+name] = content
	}
	return files, nil
}

// TestCombine puts chains together whose outcome is written down.
func TestCombine(t *testing.T) {
	inc := pgdata.IncrementalName(relation)
	for name, test := range map[string]struct {
		chain []map[string][]byte
		want  blocks
	}{
		"unchanged": {[]map[string][]byte{
			{relation: blocks{1, 2, 3}.bytes()}, {inc: blocks{1, 2, 3}.incrementally()},
		}, blocks{1, 2, 3}},
		"changed": {[]map[string][]byte{
			{relation: blocks{1, 2, 3}.bytes()}, {inc: blocks{1, 9, 3}.incrementally(1)},
		}, blocks{1, 9, 3}},
		"changed twice": {[]map[string][]byte{
			{relation: blocks{1, 2, 3}.bytes()}, {inc: blocks{7, 8, 3}.incrementally(0, 1)}, {inc: blocks{7, 9, 3}.incrementally(1)},
		}, blocks{7, 9, 3}},
		"grown, with blocks that nobody names": {[]map[string][]byte{
			{relation: blocks{1}.bytes()}, {inc: blocks{1, 0, 0, 5, 0}.incrementally(3)},
		}, blocks{1, 0, 0, 5, 0}},
		"cut": {[]map[string][]byte{
			{relation: blocks{1, 2, 3}.bytes()}, {inc: blocks{1}.incrementally()},
		}, blocks{1}},
		"cut, and grown again in the next": {[]map[string][]byte{
			{relation: blocks{1, 2, 3, 4}.bytes()}, {inc: blocks{1}.incrementally()}, {inc: blocks{1, 0, 8, 0}.incrementally(2)},
		}, blocks{1, 0, 8, 0}},
		"whole in between": {[]map[string][]byte{
			{relation: blocks{1, 2, 3}.bytes()}, {relation: blocks{4, 5}.bytes()}, {inc: blocks{4, 6}.incrementally(1)},
		}, blocks{4, 6}},
		"whole at last": {[]map[string][]byte{
			{relation: blocks{1, 2, 3}.bytes()}, {inc: blocks{1, 2, 3}.incrementally()}, {relation: blocks{4, 5}.bytes()},
		}, blocks{4, 5}},
		"not in the full one": {[]map[string][]byte{
			{}, {relation: blocks{4, 5}.bytes()}, {inc: blocks{4, 6}.incrementally(1)},
		}, blocks{4, 6}},
		"shorter than its blocks": {[]map[string][]byte{
			{relation: blocks{1, 2, 3, 4}.bytes()},
			{inc: append(pgdata.Incremental{Blocks: []uint32{2}, Length: 1}.AppendHeader(nil), blocks{9}.bytes()...)},
		}, blocks{1, 0, 9}},
		"a foreign file with the name of blocks": {[]map[string][]byte{
			{relation: blocks{1, 2, 3}.bytes(), inc: []byte("left there by somebody")}, {inc: blocks{1, 9, 3}.incrementally(1)},
		}, blocks{1, 9, 3}},
		"an odd size below": {[]map[string][]byte{
			{relation: append(blocks{1, 2}.bytes(), "rest"...)}, {inc: blocks{1, 2, 3}.incrementally(2)},
		}, blocks{1, 2, 3}},
	} {
		t.Run(name, func(t *testing.T) {
			unchecked, err := restoreChain(t, withoutChecksums(chainOf(test.chain...)))
			if err != nil || unchecked[relation] != string(test.want.bytes()) {
				t.Errorf("without checksums the file has %d bytes, want %d, or is another (%v)", len(unchecked[relation]), len(test.want.bytes()), err)
			}
			chain := chainOf(test.chain...)
			files, err := restoreChain(t, chain)
			if err != nil {
				t.Fatal(err)
			}
			if got := files[relation]; got != string(test.want.bytes()) {
				t.Errorf("the file has %d bytes, want %d, or is another", len(got), len(test.want.bytes()))
			}
			if _, there := files[inc]; there {
				t.Errorf("%s was restored", inc)
			}
			last := chain[len(chain)-1].record
			if got := files["backup_label"]; got != backupLabel(last) {
				t.Errorf("the label is %q", got)
			}
			if _, there := files[fmt.Sprintf("of%d", len(chain)-2)]; there {
				t.Error("a file was restored that only the parent has")
			}
			checkManifest(t, files)
		})
	}
}

// withoutChecksums takes the checksums out of the manifests of a chain.
func withoutChecksums(chain []*madeBackup) []*madeBackup {
	for _, b := range chain {
		b.record.ManifestChecksums = "NONE"
		for i := range b.manifest {
			b.manifest[i].Algorithm, b.manifest[i].Checksum = pgdata.ChecksumNone, nil
		}
	}
	return chain
}

// checkManifest holds a directory against its manifest, as pg_verifybackup does.
func checkManifest(t *testing.T, files map[string]string) {
	t.Helper()
	m, err := readManifest(strings.NewReader(files["backup_manifest"]), testSystem)
	if err != nil {
		t.Fatal(err)
	}
	for name, f := range m.files {
		content, there := files[name]
		check := f.checker()
		if _, err := io.WriteString(check.tee(io.Discard), content); err != nil {
			t.Fatal(err)
		}
		if err := check.check(name); err != nil || !there || int64(len(content)) != f.size {
			t.Errorf("%s: %d bytes (%v), the manifest says %d (%v)", name, len(content), there, f.size, err)
		}
	}
	for name, content := range files {
		_, listed := m.files[name]
		ours := name == "backup_manifest" || name == "postgresql.auto.conf" || name == "recovery.signal" || strings.HasPrefix(content, "-> ")
		if !listed && !ours && content != "/" {
			t.Errorf("%s isn't in the manifest", name)
		}
	}
}

// TestCombineRandom takes chains of random changes, and looks for what the files
// were in the end.
func TestCombineRandom(t *testing.T) {
	for seed := range uint64(30) {
		random := rand.New(rand.NewPCG(25, seed))
		names := []string{relation, "base/1/16384.1", "base/1/16390", "pg_tblspc/16400/PG_15_202209061/5/16401"}
		now := map[string]blocks{}
		var chain []map[string][]byte
		for n := range 2 + random.IntN(5) {
			had := now
			now = map[string]blocks{}
			content := map[string][]byte{}
			for _, name := range names {
				before, there := had[name]
				if n == 0 || !there || random.IntN(8) == 0 { // new
					now[name] = randomBlocks(random, random.IntN(200))
					content[name] = now[name].bytes()
					continue
				}
				after := slices.Clone(before)
				if len(after) > 0 && random.IntN(5) == 0 {
					after = after[:random.IntN(len(after))]
				}
				grown := len(after)
				after = append(after, make(blocks, random.IntN(40))...)
				changed := map[uint32]bool{}
				for range random.IntN(60) {
					if len(after) > 0 {
						block := uint32(random.IntN(len(after)))
						after[block], changed[block] = byte(1+random.IntN(255)), true
					}
				}
				// What grows over what was cut is named, as walship does it.
				for block := grown; block < min(len(before), len(after)); block++ {
					changed[uint32(block)] = true
				}
				now[name] = after
				content[pgdata.IncrementalName(name)] = after.incrementally(slices.Sorted(maps.Keys(changed))...)
			}
			chain = append(chain, content)
		}
		files, err := restoreChain(t, chainOf(chain...))
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		for _, name := range names {
			if files[name] != string(now[name].bytes()) {
				t.Errorf("seed %d: %s has %d bytes, want %d, or is another", seed, name, len(files[name]), len(now[name].bytes()))
			}
		}
		checkManifest(t, files)
	}
}

func randomBlocks(random *rand.Rand, n int) blocks {
	b := make(blocks, n)
	for i := range b {
		b[i] = byte(random.IntN(256))
	}
	return b
}

// TestCombineRefuses: whatever is wrong with a chain is said, and there is no
// cluster.
func TestCombineRefuses(t *testing.T) {
	inc := pgdata.IncrementalName(relation)
	full, changed := blocks{1, 2, 3}.bytes(), blocks{1, 9, 3}.incrementally(1)
	three := func() []*madeBackup {
		return chainOf(map[string][]byte{relation: full}, map[string][]byte{inc: changed}, map[string][]byte{inc: changed})
	}
	spoil := func(b *madeBackup, name string, change func(e *tarEntry)) {
		for i := range b.parts[0] {
			if e := &b.parts[0][i]; e.Name == name {
				change(e)
				e.Size = int64(len(e.content))
			}
		}
	}
	for name, test := range map[string]struct {
		change func(chain []*madeBackup) []*madeBackup
		says   string
	}{
		"no full backup": {func(c []*madeBackup) []*madeBackup { return c[1:] }, "based on backup 20261120T010000Z, which isn't in the repository any more"},
		"a gap":          {func(c []*madeBackup) []*madeBackup { return []*madeBackup{c[0], c[2]} }, "based on backup 20261120T020000Z, which isn't in the repository"},
		"degraded": {func(c []*madeBackup) []*madeBackup {
			c[1].record.Degraded = []string{"a bad page"}
			return c
		}, "backup 20261120T020000Z, which is degraded: a bad page"},
		"other checksums": {func(c []*madeBackup) []*madeBackup { c[0].record.DataChecksums = true; return c }, "other page checksums"},
		"other major":     {func(c []*madeBackup) []*madeBackup { c[0].record.ServerVersion = 140001; return c }, "is of PostgreSQL 14"},
		"label of another parent": {func(c []*madeBackup) []*madeBackup {
			c[2].parts[1][0] = file("backup_label", string(pgdata.AppendIncremental([]byte(backupLabel(c[2].record)), 1, 1)))
			c[2].list()
			return c
		}, "backup_label is based on"},
		"a label of a full one": {func(c []*madeBackup) []*madeBackup {
			c[2].parts[1][0] = file("backup_label", backupLabel(c[2].record))
			c[2].list()
			return c
		}, "backup_label is based on"},
		"nothing of the file in between": {func(c []*madeBackup) []*madeBackup {
			c[1].parts[0] = slices.DeleteFunc(c[1].parts[0], func(e tarEntry) bool { return e.Name == inc })
			c[1].list()
			return c
		}, "of which backup 20261120T020000Z has nothing"},
		"nowhere whole": {func(c []*madeBackup) []*madeBackup {
			spoil(c[0], relation, func(e *tarEntry) { e.Name, e.content = inc, changed })
			c[0].list()
			return c
		}, "of which backup 20261120T010000Z has nothing"},
		"both": {func(c []*madeBackup) []*madeBackup { c[1].add(file(relation, "x")); c[1].list(); return c }, "both whole and incrementally"},
		"both at last": {func(c []*madeBackup) []*madeBackup {
			c[2].add(file(relation, "x"))
			c[2].list()
			return c
		}, relation},
		"other blocks below": {func(c []*madeBackup) []*madeBackup {
			spoil(c[0], relation, func(e *tarEntry) { e.content = slices.Clone(full); e.content[5] = 77 })
			return c
		}, "doesn't have the SHA256 checksum"},
		"other blocks in between": {func(c []*madeBackup) []*madeBackup {
			spoil(c[1], inc, func(e *tarEntry) { e.content = slices.Clone(changed); e.content[9000] = 77 })
			return c
		}, "doesn't have the SHA256 checksum"},
		"other blocks": {func(c []*madeBackup) []*madeBackup {
			spoil(c[2], inc, func(e *tarEntry) { e.content = slices.Clone(changed); e.content[9000] = 77 })
			return c
		}, "doesn't have the SHA256 checksum"},
		"other size": {func(c []*madeBackup) []*madeBackup {
			spoil(c[0], relation, func(e *tarEntry) { e.content = full[:8192] })
			return c
		}, "its manifest says"},
		"not in the parts": {func(c []*madeBackup) []*madeBackup {
			c[0].parts[0] = slices.DeleteFunc(c[0].parts[0], func(e tarEntry) bool { return e.Name == relation })
			return c
		}, "isn't in its parts"},
		"twice in the parts": {func(c []*madeBackup) []*madeBackup { c[0].add(file(relation, string(full))); return c }, "comes twice"},
		"no header": {func(c []*madeBackup) []*madeBackup {
			spoil(c[1], inc, func(e *tarEntry) { e.content = []byte("short") })
			c[1].list()
			return c
		}, "read incremental file's header"},
		"cut": {func(c []*madeBackup) []*madeBackup {
			spoil(c[1], inc, func(e *tarEntry) { e.content = changed[:len(changed)-1] })
			c[1].list()
			return c
		}, "should have"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := restoreChain(t, test.change(three())); err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("%v; want an error that says %q", err, test.says)
			}
		})
	}
	if _, err := restoreChain(t, three()); err != nil {
		t.Errorf("with nothing wrong: %v", err)
	}
}

// TestPlanChain: a plan shows the chain, and passes over one that is broken.
func TestPlanChain(t *testing.T) {
	r := makeRepository()
	inc := pgdata.IncrementalName(relation)
	chain := chainOf(map[string][]byte{relation: blocks{1}.bytes()}, map[string][]byte{inc: blocks{1}.incrementally()}, map[string][]byte{inc: blocks{1}.incrementally()})
	chain[1].record.Degraded = []string{"a bad page"}
	for _, b := range chain {
		b.commit(t, r)
	}
	p, err := MakePlan(t.Context(), Of(r), request(t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	// The second one is degraded, and so nothing can be based on it; but it is
	// there for those who want it.
	if p.Backup.ID != chain[1].record.ID || len(p.Backup.BasedOn) != 1 || p.Backup.BasedOn[0].ID != chain[0].record.ID {
		t.Errorf("the plan takes backup %s, based on %v", p.Backup.ID, p.Backup.BasedOn)
	}
	if len(p.Warnings) == 0 || !strings.Contains(p.Warnings[0], "backup 20261120T030000Z can't be put together") {
		t.Errorf("the plan warns %q", p.Warnings)
	}
	if want := chain[0].record.StoredSize + chain[1].record.StoredSize; p.DownloadSize-p.WAL.StoredSize != want {
		t.Errorf("%d bytes are downloaded besides WAL, want %d", p.DownloadSize-p.WAL.StoredSize, want)
	}
}
