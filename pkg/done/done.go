// Package done is the record that one call of archive_command leaves for those
// that follow it: a segment is in the repository. It speaks of the file that was
// read, in the state in which it was read, and to calls that mean the same
// repository and cluster.
//
// A record is read before most of walship is initialised (see cmd/walship/early), so it
// imports next to nothing.
package done

import (
	"bytes"
	"errors"
	"hash/fnv"
	"io/fs"
	"os"
	"strconv"
	"syscall"
	"time"
)

const (
	// Life is how long a record counts, from when it was written. PostgreSQL
	// asks for the segments of a batch right after it; what is older has been
	// asked for by a call that didn't know of it.
	Life = 10 * time.Minute
	// KnownLife is how long repository.json isn't read again.
	KnownLife = 2 * time.Minute
)

// Digest stands for all that it was made of. It needn't withstand a forger: who
// can write records can write what they like. It doesn't give away the secrets
// in it, but lets one who knows all else try short ones: records are private.
type Digest uint64

func digest(lists ...[]string) Digest {
	h := fnv.New128a()
	for _, list := range lists {
		h.Write([]byte(strconv.Itoa(len(list)) + "\n"))
		for _, text := range list {
			h.Write([]byte(strconv.Itoa(len(text)) + ":" + text))
		}
	}
	var halves [2]Digest
	for i, b := range h.Sum(nil) {
		halves[i/8] = halves[i/8]<<8 | Digest(b)
	}
	return halves[0] ^ halves[1]
}

// NewCall tells calls apart that may mean different things: it is the digest of
// all that a call goes by. That is the arguments without the file's path, the
// environment, the working directory, and the content of the file of settings.
func NewCall(args, environ []string, directory string, settings []byte) Digest {
	return digest(args, environ, []string{directory, string(settings)})
}

// NewTarget is the digest of what a call means: a repository's place and a
// cluster.
func NewTarget(place string, systemID uint64) Digest {
	return digest([]string{place, strconv.FormatUint(systemID, 10)})
}

// Folder is the name, in the state directory, of the folder of the records for
// the cluster in a data directory: an absolute path without symbolic links.
func Folder(dataDirectory string) string {
	return "done/" + strconv.FormatUint(uint64(digest([]string{dataDirectory})), 16)
}

// CheckPrivate returns an error if the folder isn't the caller's own, or others
// can change it: then what is in it can't be relied on.
func CheckPrivate(folder *os.Root) error {
	info, err := folder.Stat(".")
	if err != nil {
		return err
	}
	if owner, known := info.Sys().(*syscall.Stat_t); known && int(owner.Uid) != os.Geteuid() {
		return errors.New("it belongs to user " + strconv.FormatUint(uint64(owner.Uid), 10))
	}
	if info.Mode()&0o022 != 0 {
		return errors.New("others can write to it: chmod go-w it")
	}
	return nil
}

// Identity tells one file, in one state, from another: PostgreSQL uses its
// segments' files again, under new names and with other content.
type Identity struct {
	Device, Inode   uint64
	Size            int64
	Modified, State int64 // nanoseconds since 1970: mtime and ctime
}

// Identify returns the zero Identity where the system doesn't say.
func Identify(info fs.FileInfo) Identity {
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return Identity{}
	}
	return Identity{
		Device: stat.Dev, Inode: stat.Ino, Size: stat.Size,
		Modified: stat.Mtim.Nano(), State: stat.Ctim.Nano(),
	}
}

// Record says that a segment is in a repository.
type Record struct {
	At         time.Time // when it was written
	Read       time.Time // when repository.json was read
	Repository string    // id
	Call       Digest    // NewCall of the call that archived the segment
	Target     Digest    // and NewTarget
	Segment    string    // file name
	File       Identity
}

// MaxSize bounds a record's encoding, in bytes.
const MaxSize = 512

const magic = "walship-done-2"

// Encode writes a record: a line of words, the last of which is a digest.
func (r Record) Encode() []byte {
	line := []byte(magic)
	number := func(n uint64) { line = strconv.AppendUint(append(line, ' '), n, 16) }
	word := func(w string) { line = append(append(line, ' '), w...) }
	number(uint64(r.At.UnixNano()))
	number(uint64(r.Read.UnixNano()))
	word(r.Repository)
	number(uint64(r.Call))
	number(uint64(r.Target))
	word(r.Segment)
	number(r.File.Device)
	number(r.File.Inode)
	number(uint64(r.File.Size))
	number(uint64(r.File.Modified))
	number(uint64(r.File.State))
	h := fnv.New64a()
	h.Write(line)
	number(h.Sum64())
	return append(line, '\n')
}

// Decode reads what Encode wrote, and nothing else.
func Decode(data []byte) (Record, bool) {
	words := bytes.Split(bytes.TrimSuffix(data, []byte("\n")), []byte(" "))
	const count = 13
	if len(data) > MaxSize || len(words) != count {
		return Record{}, false
	}
	next := 0
	word := func() string { next++; return string(words[next-1]) }
	number := func() uint64 {
		n, _ := strconv.ParseUint(word(), 16, 64) // what is wrong is encoded otherwise
		return n
	}
	var r Record
	word()
	r.At = time.Unix(0, int64(number()))
	r.Read = time.Unix(0, int64(number()))
	r.Repository = word()
	r.Call = Digest(number())
	r.Target = Digest(number())
	r.Segment = word()
	r.File = Identity{Device: number(), Inode: number(), Size: int64(number()), Modified: int64(number()), State: int64(number())}
	return r, bytes.Equal(r.Encode(), data)
}

// Same tells whether a call finds the record's segment as it was, at a time at
// which the record still counts.
func (r Record) Same(segment string, file Identity, now time.Time) bool {
	return r.Segment == segment && r.File == file && file != Identity{} && within(now.Sub(r.At), Life)
}

// Known tells whether it is known, without a look at repository.json, that the
// repository is still the one that the record is about.
func (r Record) Known(now time.Time) bool { return within(now.Sub(r.Read), KnownLife) }

func within(age, life time.Duration) bool { return age >= 0 && age < life }
