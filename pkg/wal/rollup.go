package wal

import "fmt"

// Append returns the summary of the WAL that s and then next describe: a
// roll-up of consecutive segments, to which more can be appended. The record
// that the boundary between them cuts is counted with the others, if it
// wasn't overwritten. It is an error if next doesn't follow s.
//
// A roll-up's Chain is zero.
func (s Summary) Append(next Summary) (Summary, error) {
	if err := next.Follows(s); err != nil {
		return Summary{}, fmt.Errorf("append the segment that ends at %s: %w", next.End, err)
	}
	whole := s
	whole.RestorePoints = append([]RestorePoint(nil), s.RestorePoints...)
	whole.Chain, whole.Tail = ChainDigest{}, next.Tail
	whole.End, whole.Ending, whole.Problem = next.End, next.Ending, next.Problem
	if s.Ending == EndingCrossing && next.Overwritten == 0 {
		if err := whole.cross(s, next); err != nil {
			return Summary{}, fmt.Errorf("append the segment that ends at %s: %w", next.End, err)
		}
	}
	if whole.First == 0 {
		whole.First, whole.Prev = next.First, next.Prev
	}
	if next.Last != 0 {
		whole.Last = next.Last
	}
	whole.addCounts(next)
	return whole, nil
}

// cross joins the record that the boundary between two summaries cuts.
func (s *Summary) cross(before, next Summary) error {
	begun := before.Tail
	if begun.Length == 0 {
		begun = before.Head
	}
	joined, err := begun.extend(next.Head)
	switch {
	case err != nil:
		return err
	case before.Tail.Length == 0:
		s.Head = joined
	case !joined.unfinished():
		return joined.count(s, before.Last)
	case next.First == 0:
		s.Tail = joined
	}
	return nil
}

// addCounts adds what next counts.
func (s *Summary) addCounts(next Summary) {
	s.Records += next.Records
	s.Commits += next.Commits
	if next.Stops > 0 {
		s.span(next.MinTime, next.MaxTime)
	}
	s.Stops += next.Stops
	s.Transactions.append(next.Transactions)
	s.Demands = s.Demands.Max(next.Demands)
	listed := s.RestorePointCount == uint64(len(s.RestorePoints))
	for _, point := range next.RestorePoints {
		if listed {
			s.list(point)
			continue
		}
		s.RestorePointCount++
	}
	s.RestorePointCount += next.RestorePointCount - uint64(len(next.RestorePoints))
	s.addTablespaces(next)
}

// Joined returns what the record counts that begins in s and ends in next, the
// segment behind it: none if there is no such record, or if
// it was overwritten. It reports false where that can't be told from the two.
func (s Summary) Joined(next Summary) (Summary, bool) {
	joined := Summary{Transactions: Transactions{Known: true}}
	if s.Tail.Length == 0 || next.Overwritten != 0 {
		return joined, true
	}
	whole, err := s.Tail.extend(next.Head)
	if err != nil || whole.unfinished() || whole.checkCRC() != nil {
		return joined, false
	}
	return joined, whole.count(&joined, s.Last) == nil
}
