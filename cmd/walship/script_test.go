package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"github.com/walship/walship/pkg/pgdata"
	"github.com/walship/walship/pkg/wal"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"walship": main})
}

// TestScripts runs the command lines in testdata/script, each in an empty
// directory and an empty environment, with walship as a program of its own.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		Setup: func(env *testscript.Env) error {
			home := filepath.Join(env.WorkDir, "home")
			env.Setenv("HOME", home)
			env.Setenv("AWS_EC2_METADATA_DISABLED", "true")
			return os.Mkdir(home, 0o700)
		},
		Cmds: map[string]func(ts *testscript.TestScript, neg bool, args []string){
			"exits":   exits,
			"envfile": setFromFile,
			"cluster": makeCluster,
			"segment": makeSegment,
			"mode":    checkMode,
		},
	})
}

// exits CODE COMMAND ARGS…: the command exits with that code.
func exits(ts *testscript.TestScript, _ bool, args []string) {
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	err = ts.Exec(args[1], args[2:]...)
	code := 0
	if exit, is := errors.AsType[*exec.ExitError](err); is {
		code = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if code != want {
		ts.Fatalf("exit code %d, not %d", code, want)
	}
}

// envfile NAME FILE: sets a variable to what a file says.
func setFromFile(ts *testscript.TestScript, _ bool, args []string) {
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile(args[1])))
}

// cluster DIR SYSTEMID: as much of a data directory as WAL needs.
func makeCluster(ts *testscript.TestScript, _ bool, args []string) {
	dir := ts.MkAbs(args[0])
	ts.Check(os.MkdirAll(filepath.Join(dir, "global"), 0o700))
	ts.Check(os.MkdirAll(filepath.Join(dir, "pg_wal"), 0o700))
	data, err := os.ReadFile(controlFile)
	ts.Check(err)
	systemID, err := strconv.ParseUint(args[1], 10, 64)
	ts.Check(err)
	ts.Check(os.WriteFile(filepath.Join(dir, pgdata.ControlFileName), controlFileOf(data, systemID), 0o600))
}

// segment FILE SYSTEMID LETTER: pages with good headers, filled with a letter.
func makeSegment(ts *testscript.TestScript, _ bool, args []string) {
	file := ts.MkAbs(args[0])
	name, err := wal.ParseFileName(filepath.Base(file))
	ts.Check(err)
	systemID, err := strconv.ParseUint(args[1], 10, 64)
	ts.Check(err)
	ts.Check(os.WriteFile(file, segmentOf(name, systemID, args[2][0]), 0o600))
}

// mode FILE MODE: the permissions of a file, in octal.
func checkMode(ts *testscript.TestScript, _ bool, args []string) {
	info, err := os.Stat(ts.MkAbs(args[0]))
	ts.Check(err)
	want, err := strconv.ParseUint(args[1], 8, 32)
	ts.Check(err)
	if info.Mode().Perm() != fs.FileMode(want) {
		ts.Fatalf("%s has mode %o, not %o", args[0], info.Mode().Perm(), want)
	}
}

// controlFile is the beginning of a real pg_control of PostgreSQL 15.
var controlFile, _ = filepath.Abs("../../pkg/pgdata/testdata/control/15")

func controlFileOf(data []byte, systemID uint64) []byte {
	const crcOffset = 288
	data = append(data, make([]byte, pgdata.ControlFileSize-len(data))...)
	binary.LittleEndian.PutUint64(data, systemID)
	binary.LittleEndian.PutUint32(data[crcOffset:], crc32.Checksum(data[:crcOffset], crc32.MakeTable(crc32.Castagnoli)))
	return data
}

func segmentOf(name wal.FileName, systemID uint64, fill byte) []byte {
	const size, pageSize, magic15 = 1 << 20, 8192, 0xD110
	data := bytes.Repeat([]byte{fill}, size)
	for offset := 0; offset < size; offset += pageSize {
		h := wal.PageHeader{Magic: magic15, Timeline: name.Timeline, Address: name.Start(size) + wal.LSN(offset)}
		if offset == 0 {
			h.Long, h.Info, h.SystemID, h.SegmentSize, h.BlockSize = true, 2, systemID, size, pageSize
		}
		copy(data[offset:], h.AppendHeader(nil))
	}
	return data
}
