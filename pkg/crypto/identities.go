package crypto

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"

	"filippo.io/age"
	"filippo.io/age/armor"
)

// Identities are age secret keys. They are needed to read objects and nowhere
// else.
type Identities struct {
	list       []age.Identity
	recipients []string
}

const (
	maxIdentityFile = 1 << 20
	// maxWorkFactor allows a passphrase-protected file to ask for 1 GiB of
	// memory (128 · 8 · 2^20 bytes); age itself writes them with 2^18.
	maxWorkFactor = 20
)

// NewIdentity makes a secret key, as a line of an identity file, and its
// recipient.
func NewIdentity(postQuantum bool) (secret, recipient string, err error) {
	if postQuantum {
		identity, err := age.GenerateHybridIdentity()
		if err != nil {
			return "", "", fmt.Errorf("generate identity: %w", err)
		}
		return identity.String(), identity.Recipient().String(), nil
	}
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		return "", "", fmt.Errorf("generate identity: %w", err)
	}
	return identity.String(), identity.Recipient().String(), nil
}

// LoadIdentities reads identity files: one secret key per line, with empty
// lines and comments, as age-keygen writes them; or such a file encrypted with
// a passphrase by `age -p`, armored or not. passphrase is asked for those; nil
// refuses them.
//
// A file that anyone but its owner may access, or that belongs to somebody
// other than this process's user or root, is refused. No error repeats what
// is in a file.
func LoadIdentities(files []string, passphrase func(file string) (string, error)) (*Identities, error) {
	if len(files) == 0 {
		return nil, errors.New("no identity file given")
	}
	ids := &Identities{}
	for _, name := range files {
		if err := ids.load(name, passphrase); err != nil {
			return nil, fmt.Errorf("load identity file %s: %w", name, err)
		}
	}
	return ids, nil
}

func (ids *Identities) load(name string, passphrase func(file string) (string, error)) error {
	data, err := readPrivate(name)
	if err != nil {
		return err
	}
	if text := bytes.TrimLeft(data, " \t\r\n"); bytes.HasPrefix(text, []byte(armor.Header)) {
		data, err = decryptFile(armor.NewReader(bytes.NewReader(text)), name, passphrase)
	} else if IsSealed(data) {
		data, err = decryptFile(bytes.NewReader(data), name, passphrase)
	}
	if err != nil {
		return err
	}
	return ids.parse(data)
}

// readPrivate reads a small regular file that only its owner can access. What
// is checked is the file that was opened, whatever the name stands for by then.
func readPrivate(name string) ([]byte, error) {
	// Non-blocking, because opening a named pipe would wait for a writer.
	f, err := os.OpenFile(name, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, withoutName(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, withoutName(err)
	}
	if !info.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	if mode := info.Mode().Perm(); mode&0o077 != 0 {
		return nil, fmt.Errorf("its permissions %04o let others access the secret key: chmod 600 %s", mode, name)
	}
	owner := info.Sys().(*syscall.Stat_t).Uid
	if user := uint32(os.Geteuid()); owner != user && owner != 0 {
		return nil, fmt.Errorf("it belongs to user %d, who could replace it: chown %d %s", owner, user, name)
	}
	data, err := io.ReadAll(io.LimitReader(f, maxIdentityFile+1))
	if err != nil {
		return nil, withoutName(err)
	}
	if len(data) > maxIdentityFile {
		return nil, fmt.Errorf("longer than %d bytes", maxIdentityFile)
	}
	return data, nil
}

// withoutName drops the file's name, which the caller adds.
func withoutName(err error) error {
	var pathErr *os.PathError
	if errors.As(err, &pathErr) {
		return fmt.Errorf("%s: %w", pathErr.Op, pathErr.Err)
	}
	return err
}

func decryptFile(src io.Reader, name string, passphrase func(file string) (string, error)) ([]byte, error) {
	if passphrase == nil {
		return nil, errors.New("it is protected with a passphrase, and there is no way to ask for it")
	}
	secret, err := passphrase(name)
	if err != nil {
		return nil, fmt.Errorf("ask for the passphrase: %w", err)
	}
	identity, err := age.NewScryptIdentity(secret)
	if err != nil {
		return nil, err
	}
	identity.SetMaxWorkFactor(maxWorkFactor)
	plain, err := age.Decrypt(src, identity)
	if errors.Is(err, age.ErrIncorrectIdentity) {
		return nil, errors.New("wrong passphrase, or not encrypted with a passphrase")
	}
	if err != nil {
		return nil, fmt.Errorf("decrypt: %w", err)
	}
	data, err := io.ReadAll(io.LimitReader(plain, maxIdentityFile+1))
	if err != nil {
		return nil, fmt.Errorf("decrypt: %w", err)
	}
	if len(data) > maxIdentityFile {
		return nil, fmt.Errorf("longer than %d bytes", maxIdentityFile)
	}
	return data, nil
}

func (ids *Identities) parse(data []byte) error {
	found := false
	for i, line := range strings.Split(string(data), "\n") {
		line = strings.TrimSpace(line)
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		if err := ids.add(line); err != nil {
			return fmt.Errorf("line %d: %w", i+1, err)
		}
		found = true
	}
	if !found {
		return errors.New("it has no identity")
	}
	return nil
}

func (ids *Identities) add(line string) error {
	switch {
	case strings.HasPrefix(line, secretPrefix+"1"):
		identity, err := age.ParseX25519Identity(line)
		if err != nil {
			return errors.New("malformed secret key")
		}
		ids.list = append(ids.list, identity)
		ids.recipients = append(ids.recipients, identity.Recipient().String())
	case strings.HasPrefix(line, secretPrefix+"PQ-1"):
		identity, err := age.ParseHybridIdentity(line)
		if err != nil {
			return errors.New("malformed secret key")
		}
		ids.list = append(ids.list, identity)
		ids.recipients = append(ids.recipients, identity.Recipient().String())
	case strings.HasPrefix(line, classicPrefix):
		return errors.New("this is a recipient, not an identity (AGE-SECRET-KEY-…)")
	default:
		return errors.New("not an identity of age (AGE-SECRET-KEY-…)")
	}
	return nil
}

// Recipients returns the identities' recipients, in the files' order.
func (ids *Identities) Recipients() []string {
	if ids == nil {
		return nil
	}
	return append([]string(nil), ids.recipients...)
}

// Fingerprints returns the fingerprints of Recipients, in the same order.
func (ids *Identities) Fingerprints() []string {
	return fingerprints(ids.Recipients())
}
