package record

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// Position is a place in a source's log. It orders all records of one stream:
// records of one stream reach every sink with rising positions, so that a
// record whose position is not newer than the last applied one is a duplicate.
//
// Rows of a backfill are the exception: all of one epoch share Seq 0 and the
// position of the backfill's consistent view. They are told apart by epoch only.
type Position struct {
	Epoch uint64 // incarnation of the stream: grows with every new slot, timeline or backfill
	LSN   uint64 // Postgres: start of the commit record, known before the transaction's first row; other sources: their own rising log address
	// Seq is 2 × the index of the change inside its transaction, from 1 on, + 1 for the insert half of a key change.
	// It is never 0: a transaction may commit exactly where a backfill looked at the database, and comes after it.
	Seq uint64
}

// Compare orders positions by epoch, log address and sequence.
func (p Position) Compare(q Position) int {
	return cmp.Or(cmp.Compare(p.Epoch, q.Epoch), cmp.Compare(p.LSN, q.LSN), cmp.Compare(p.Seq, q.Seq))
}

// IsZero reports whether p is before every real position.
func (p Position) IsZero() bool { return p == Position{} }

// String returns "epoch/lsn/seq" with the LSN in hexadecimal; ParsePosition reads it back.
func (p Position) String() string {
	return strconv.FormatUint(p.Epoch, 10) + "/" + strconv.FormatUint(p.LSN, 16) + "/" + strconv.FormatUint(p.Seq, 10)
}

// ParsePosition reads the form that String writes.
func ParsePosition(s string) (Position, error) {
	parts := strings.Split(s, "/")
	if len(parts) != 3 {
		return Position{}, fmt.Errorf("position %q: want epoch/lsn/seq", s)
	}
	epoch, err1 := strconv.ParseUint(parts[0], 10, 64)
	lsn, err2 := strconv.ParseUint(parts[1], 16, 64)
	seq, err3 := strconv.ParseUint(parts[2], 10, 64)
	if err := errors.Join(err1, err2, err3); err != nil {
		return Position{}, fmt.Errorf("position %q: %w", s, err)
	}
	return Position{Epoch: epoch, LSN: lsn, Seq: seq}, nil
}
