package archive

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
)

const againFile = "again"

// Again remembers whether the last push found its file in the repository. Then
// the next one is likely to, too: a standby that archives into its primary's
// repository finds most of them, and so does a server that hands over anew what
// it had handed over before a crash. It is no more than a hint for
// PushOptions.AskFirst.
type Again struct {
	// State is the private state folder of this server.
	State *os.Root
}

// Expected tells whether the last push found its file. What can't be read says
// no.
func (a Again) Expected() bool {
	_, err := a.State.Lstat(againFile)
	return err == nil
}

// Note keeps what a push found, where that is news.
func (a Again) Note(already bool) error {
	if already == a.Expected() {
		return nil
	}
	if !already {
		if err := a.State.Remove(againFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("note that the file wasn't archived yet: %w", err)
		}
		return nil
	}
	file, err := a.State.OpenFile(againFile, os.O_WRONLY|os.O_CREATE, 0o600)
	if err == nil {
		err = file.Close()
	}
	if err != nil {
		return fmt.Errorf("note that the file was archived already: %w", err)
	}
	return nil
}
