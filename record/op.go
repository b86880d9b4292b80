package record

import "fmt"

// Op says what a row change does.
type Op uint8

// The data ops carry a row; the control ops (Truncate and above) carry none.
const (
	OpRead          Op = 1 + iota // a row of a backfill
	OpInsert                      // a row that was inserted
	OpUpdate                      // a row that was updated
	OpDelete                      // a row that was deleted; After holds the key columns, everything else is unsent or null
	OpTruncate                    // all rows of the stream are gone
	OpBackfillBegin               // a backfill of a new epoch starts: rows of earlier epochs are superseded
	OpBackfillEnd                 // the backfill of this epoch is complete
)

// opCodes are the Debezium letters; m (message) marks what only sluice knows.
var opCodes = [...]string{OpRead: "r", OpInsert: "c", OpUpdate: "u", OpDelete: "d", OpTruncate: "t", OpBackfillBegin: "m", OpBackfillEnd: "m"}

var opNames = [...]string{OpRead: "read", OpInsert: "insert", OpUpdate: "update", OpDelete: "delete",
	OpTruncate: "truncate", OpBackfillBegin: "backfill-begin", OpBackfillEnd: "backfill-end"}

// Code returns the letter that stands for o in a Debezium envelope.
func (o Op) Code() string {
	if int(o) < len(opCodes) {
		return opCodes[o]
	}
	return ""
}

// String returns the word for o, such as "insert".
func (o Op) String() string {
	if o > 0 && int(o) < len(opNames) {
		return opNames[o]
	}
	return fmt.Sprintf("op(%d)", uint8(o))
}

// Control reports whether o carries no row but changes the whole stream.
// A control op is always the only entry of its Batch.
func (o Op) Control() bool { return o >= OpTruncate }
