package crypto

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strings"

	"filippo.io/age"
)

// Recipients are the age public keys that objects are encrypted to: any one of
// their identities opens them. They are all classic or all post-quantum. The
// host of a database needs nothing else, and can't read what it has written.
type Recipients struct {
	list []recipient
}

type recipient interface {
	age.Recipient
	String() string
}

const (
	classicPrefix = "age1"
	hybridPrefix  = "age1pq1"
	secretPrefix  = "AGE-SECRET-KEY-"
)

// ParseRecipients reads 1 to MaxRecipients different recipients, "age1…"
// (X25519) or "age1pq1…" (ML-KEM-768 with X25519), never both kinds. Errors
// name a recipient by its place in the list and don't repeat it, because it
// may be a secret key put in the wrong place.
func ParseRecipients(keys []string) (*Recipients, error) {
	if len(keys) == 0 {
		return nil, errors.New("no age recipient given")
	}
	if len(keys) > MaxRecipients {
		return nil, fmt.Errorf("%d age recipients given, at most %d are possible", len(keys), MaxRecipients)
	}
	r := &Recipients{}
	hybrid := strings.HasPrefix(strings.TrimSpace(keys[0]), hybridPrefix)
	for i, key := range keys {
		key = strings.TrimSpace(key)
		if strings.HasPrefix(key, hybridPrefix) != hybrid && strings.HasPrefix(key, classicPrefix) {
			return nil, errors.New("classic (age1…) and post-quantum (age1pq1…) recipients can't be mixed: " +
				"the classic ones would undo the protection of the others")
		}
		parsed, err := parseRecipient(key)
		if err != nil {
			return nil, fmt.Errorf("parse age recipient %d: %w", i+1, err)
		}
		if slices.ContainsFunc(r.list, func(other recipient) bool { return other.String() == parsed.String() }) {
			return nil, fmt.Errorf("parse age recipient %d: it is given twice", i+1)
		}
		r.list = append(r.list, parsed)
	}
	return r, nil
}

func parseRecipient(key string) (recipient, error) {
	var parsed recipient
	var err error
	switch {
	case strings.HasPrefix(strings.ToUpper(key), secretPrefix):
		return nil, errors.New("this is a secret key: give its recipient (age1…), and consider the key exposed")
	case strings.HasPrefix(key, hybridPrefix):
		parsed, err = age.ParseHybridRecipient(key)
	case strings.HasPrefix(key, classicPrefix):
		parsed, err = age.ParseX25519Recipient(key)
	default:
		return nil, errors.New("it doesn't start with age1 or age1pq1")
	}
	if err != nil {
		return nil, errors.New("it is malformed: check that it was copied whole")
	}
	return parsed, nil
}

// Strings returns the recipients as ParseRecipients reads them, in its order.
func (r *Recipients) Strings() []string {
	var keys []string
	for _, recipient := range r.list {
		keys = append(keys, recipient.String())
	}
	return keys
}

// Fingerprints returns the recipients' fingerprints, in the same order.
func (r *Recipients) Fingerprints() []string {
	return fingerprints(r.Strings())
}

// Fingerprint returns a short, stable name for a recipient: the first 16 hex
// digits of the SHA-256 of its text (`printf %s age1… | sha256sum`).
func Fingerprint(recipient string) string {
	sum := sha256.Sum256([]byte(recipient))
	return hex.EncodeToString(sum[:8])
}

func fingerprints(recipients []string) []string {
	var prints []string
	for _, recipient := range recipients {
		prints = append(prints, Fingerprint(recipient))
	}
	return prints
}
