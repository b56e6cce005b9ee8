// Package wal knows the format of PostgreSQL's write-ahead log, versions 13
// to 18: file names, positions, timelines and their history files, page
// headers, and the records inside.
//
// It is pure knowledge: nothing here opens a file, reads a clock or knows
// where WAL is stored. Whatever bytes it is given, it answers or returns an
// error; it never panics, and never allocates more than its input bounds.
//
// WAL is written in the byte order of the machine that runs the server. Only
// little-endian WAL is read (amd64, arm64, ppc64le, riscv64, loong64).
package wal
