package backup

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strconv"
	"strings"

	"github.com/walship/walship/pkg/pgdata"
	"github.com/walship/walship/pkg/postgres"
	"github.com/walship/walship/pkg/repo"
)

// incoming reads the entries of all the archives that the server sends as one
// sequence, and gives them their names in the backup.
type incoming struct {
	backup   *postgres.BaseBackup
	archive  *tar.Reader // nil between two archives
	oid      uint32      // of the archive's tablespace
	next     *tar.Header // looked at and not yet taken
	manifest bool        // the archives are over, and the manifest follows
}

// peek returns the next entry and leaves it there; nil behind the last.
func (in *incoming) peek() (*tar.Header, error) {
	for in.next == nil && !in.manifest {
		if in.archive == nil {
			stream, err := in.backup.Next()
			if errors.Is(err, io.EOF) {
				return nil, nil
			}
			if err != nil {
				return nil, err
			}
			in.archive, in.oid, in.manifest = tar.NewReader(in.backup), stream.OID, stream.Manifest
			continue
		}
		header, err := in.archive.Next()
		switch {
		case errors.Is(err, io.EOF):
			in.archive = nil
		case err != nil:
			return nil, fmt.Errorf("read what the server sends: %w", err)
		default:
			header.Name = in.name(header.Name)
			in.next = header
		}
	}
	return in.next, nil
}

// take returns the entry that was looked at. Its content is read from archive.
func (in *incoming) take() *tar.Header {
	header := in.next
	in.next = nil
	return header
}

// name is an entry's name in the backup: a tablespace's files are below
// pg_tblspc.
func (in *incoming) name(name string) string {
	name = path.Clean(name)
	if in.oid == 0 {
		return name
	}
	return path.Join(pgdata.TablespaceDir, strconv.FormatUint(uint64(in.oid), 10), name)
}

// The largest files that are kept in memory until the last part, in bytes.
var keptFiles = map[string]int64{pgdata.BackupLabelFileName: 64 << 10, pgdata.ControlFileName: pgdata.ControlFileSize}

// keep takes the entry that is next, if it is one that the last part holds, or
// none of a backup.
func (x *remote) keep(in *incoming) (bool, error) {
	header := in.next
	switch header.Typeflag {
	case tar.TypeSymlink:
		if path.Dir(header.Name) != pgdata.TablespaceDir {
			return false, fmt.Errorf("the server sent a link %q", header.Name)
		}
		in.take() // a restore makes the links itself
		return true, nil
	case tar.TypeDir:
		return false, nil
	case tar.TypeReg:
	default:
		return false, fmt.Errorf("the server sent %q, which is neither a file nor a directory", header.Name)
	}
	most, ok := keptFiles[header.Name]
	if !ok {
		return false, nil
	}
	if header.Size > most {
		return false, fmt.Errorf("the server sent a %s of %d bytes", header.Name, header.Size)
	}
	content := make([]byte, header.Size)
	if _, err := io.ReadFull(in.archive, content); err != nil {
		return false, fmt.Errorf("receive %s: %w", header.Name, err)
	}
	in.take()
	if header.Name == pgdata.ControlFileName {
		x.control = controlFile{content: content, modified: header.ModTime}
	} else {
		x.label = content
	}
	// Everything in a data directory belongs to one user.
	x.uid, x.gid = header.Uid, header.Gid
	hash := x.options.Checksums.New()
	if hash != nil {
		hash.Write(content)
	}
	return true, x.passed.add(header.Name, header.Size, hash)
}

// putIncoming stores the next part.
func (x *remote) putIncoming(ctx context.Context, in *incoming) error {
	id, number := x.record.ID, len(x.record.Parts)+1
	stored, err := x.putObject(ctx, repo.PartKey(x.record.SystemID, id, number), repo.PartHeader(x.record.SystemID, id, number), func(ctx context.Context, w io.Writer) error {
		archive := tar.NewWriter(w)
		if err := x.fillPart(ctx, archive, in); err != nil {
			return err
		}
		return archive.Close()
	})
	if err != nil {
		return err
	}
	x.record.Parts = append(x.record.Parts, stored)
	return nil
}

// fillPart takes entries until the part has its size.
func (x *remote) fillPart(ctx context.Context, archive *tar.Writer, in *incoming) error {
	buffer := make([]byte, copyBuffer)
	for size := int64(0); ; {
		header, err := in.peek()
		if err != nil || header == nil {
			return err
		}
		if kept, err := x.keep(in); err != nil {
			return err
		} else if kept {
			continue
		}
		if size > 0 && size+header.Size+tarOverhead > x.options.PartSize {
			return nil
		}
		size += header.Size + tarOverhead
		if err := x.copyEntry(ctx, archive, in, buffer); err != nil {
			return fmt.Errorf("copy %s: %w", header.Name, err)
		}
	}
}

// copyEntry moves one entry from the server's archive to the part.
func (x *remote) copyEntry(ctx context.Context, archive *tar.Writer, in *incoming, buffer []byte) error {
	header := in.take()
	out := x.header(header.Name, header.FileInfo().Mode(), header.Size, header.ModTime)
	out.Uid, out.Gid = header.Uid, header.Gid
	if header.Typeflag == tar.TypeDir {
		out.Name, out.Typeflag = strings.TrimSuffix(header.Name, "/")+"/", tar.TypeDir
		return archive.WriteHeader(out)
	}
	if err := archive.WriteHeader(out); err != nil {
		return err
	}
	content, size, err := wholeSize(header, in.archive)
	if err != nil {
		return err
	}
	hash := x.options.Checksums.New()
	for left := header.Size; left > 0; {
		n, err := io.ReadFull(content, buffer[:min(left, int64(len(buffer)))])
		if err != nil {
			return err
		}
		if err := x.limit.wait(ctx, n); err != nil {
			return err
		}
		if hash != nil {
			hash.Write(buffer[:n])
		}
		if _, err := archive.Write(buffer[:n]); err != nil {
			return err
		}
		x.progress.bytes.Add(int64(n))
		left -= int64(n)
	}
	x.progress.files.Add(1)
	x.sizes[in.oid] += size
	x.dataSize.Add(size)
	x.noted.add(header.Name)
	x.configured = x.configured || header.Name == "postgresql.conf"
	return x.passed.add(header.Name, header.Size, hash)
}
