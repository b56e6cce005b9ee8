package wal

// MarshalText writes an LSN into JSON and other text as String does.
func (l LSN) MarshalText() ([]byte, error) { return []byte(l.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (l *LSN) UnmarshalText(text []byte) error {
	lsn, err := ParseLSN(string(text))
	if err != nil {
		return err
	}
	*l = lsn
	return nil
}
