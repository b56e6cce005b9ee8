package file

import (
	"fmt"
	"net/url"
	"path/filepath"

	"github.com/walship/walship/pkg/storage"
)

// ParseURL returns the directory of a URL such as file:///srv/walship. The
// path is absolute; there is no host but localhost, and no option. The error
// wraps storage.ErrInvalid, and repeats nothing of the URL but its path.
func ParseURL(rawURL string) (dir string, err error) {
	u, err := url.Parse(rawURL)
	if err != nil { // which may quote a secret that the URL has in a wrong place
		return "", fmt.Errorf("parse file URL: %w: it is malformed", storage.ErrInvalid)
	}
	why := ""
	switch {
	case u.Scheme != "file":
		why = "its scheme is not file"
	case u.Host != "" && u.Host != "localhost", u.User != nil:
		why = "it has a host: write file:/// and the path"
	case u.RawQuery != "" || u.ForceQuery || u.Fragment != "":
		why = "a directory has no options"
	case u.Opaque != "" || !filepath.IsAbs(u.Path):
		why = "its path is not absolute: write file:/// and the path"
	case filepath.Clean(u.Path) == "/":
		why = "it names the root directory"
	}
	if why != "" {
		return "", fmt.Errorf("parse file URL of path %q: %w: %s", u.Path, storage.ErrInvalid, why)
	}
	return filepath.Clean(u.Path), nil
}
