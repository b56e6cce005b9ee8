package archive

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/walship/walship/pkg/durable"
	"github.com/walship/walship/pkg/wal"
)

// unknownFile is the record's name in a server's state folder.
const unknownFile = "unknown-segment.json"

// UnknownRecord remembers between the calls of one recovery run that it is
// not known whether a segment is in the repository. The zero value, and nil,
// remember nothing and say so when something must be remembered.
type UnknownRecord struct {
	// State is the private state folder of this server.
	State *os.Root
	// Run tells one recovery run from another: what is known of one says
	// nothing about the next.
	Run string
}

type unknownSegment struct {
	Run      string         `json:"run"`
	Timeline wal.TimelineID `json:"timeline"`
	Log      uint32         `json:"log"`
	Segment  uint32         `json:"segment"`
}

// holdsBack says whether name must not be served, because a segment at the
// same place of a newer timeline has an unknown answer. A record that can't
// be read is an error: it may be one that holds back.
func (u *UnknownRecord) holdsBack(name wal.FileName) (bool, error) {
	record, err := u.read()
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read which segment's presence is unknown: %w", err)
	}
	return record.Run == u.Run && record.Log == name.Log && record.Segment == name.Seg && record.Timeline > name.Timeline, nil
}

func (u *UnknownRecord) read() (unknownSegment, error) {
	var record unknownSegment
	if u == nil || u.State == nil {
		return record, fs.ErrNotExist
	}
	data, err := u.State.ReadFile(unknownFile)
	if err != nil {
		return record, err
	}
	return record, json.Unmarshal(data, &record)
}

// set remembers that the answer for name is unknown.
func (u *UnknownRecord) set(name wal.FileName) error {
	if u == nil || u.State == nil {
		return errors.New("remember that its presence is unknown: there is no state folder; set state_directory to one that the server's user can write")
	}
	data, err := json.Marshal(unknownSegment{u.Run, name.Timeline, name.Log, name.Seg})
	if err == nil {
		err = durable.WriteFile(u.State, unknownFile, data, 0o600)
	}
	if err != nil {
		return fmt.Errorf("remember that its presence is unknown: %w", err)
	}
	return nil
}

// clear forgets an unknown answer for a segment that was now answered with
// authority, or for an older one.
func (u *UnknownRecord) clear(name wal.FileName) error {
	record, err := u.read()
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err == nil && record.Run == u.Run && record.Timeline > name.Timeline {
		return nil // still open: this is its parent's answer
	}
	if err := u.State.Remove(unknownFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("forget that a segment's presence was unknown: %w", err)
	}
	return nil
}
