package wal

// Field is one key and value of a stored object's context header.
type Field struct{ Key, Value string }

// Summary is what the records of a segment say, in short.
type Summary struct{}

// Fields returns the summary as optional fields of a context header, in a
// fixed order. Their keys start with "wal.".
func (s Summary) Fields() []Field {
	return nil
}

// ParseSummary reads the summary from the fields of a context header; fields
// of other keys are ignored.
func ParseSummary(fields []Field) (Summary, error) {
	return Summary{}, nil
}
