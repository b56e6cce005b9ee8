package pgdata

import "io/fs"

// Permissions of what lies in a data directory. Its own mode decides on all of
// them, as in src/common/file_perm.c: with initdb --allow-group-access its group
// may read, and nobody else ever.
const (
	DirPerm       fs.FileMode = 0o700
	FilePerm      fs.FileMode = 0o600
	GroupDirPerm  fs.FileMode = 0o750
	GroupFilePerm fs.FileMode = 0o640
)

// GroupAccess tells whether a data directory of that mode, or a directory in it,
// lets its group read.
func GroupAccess(mode fs.FileMode) bool { return mode&GroupDirPerm == GroupDirPerm }
