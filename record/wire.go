package record

// The value of a topic record is the payload of Debezium's JSON converter
// without its schema block, in this order and without white space:
//
//	{"before":ROW|null,"after":ROW|null,
//	 "op":"c","ts_ms":MS,
//	 "source":{"connector":…,"name":…,"db":…,"schema":…,"table":…,"snapshot":"false","mapping":…,"schema_id":…,
//	           "ts_ms":MS,"ts_us":US,"lsn":N,"pos":"epoch/lsn/seq"}}
//
// mapping is there where protect rules have run: their version.
//
// What changes from row to row stands last, so that writers and readers handle
// the rest as one piece of memory. Both ts_ms and ts_us are the source's commit
// time: a record sent again has the same bytes. lsn is there for postgresql
// only. A truncate has op t and no rows; the begin and end of a backfill have
// op m and, before op, "message":{"prefix":"sluice","content":"backfill-begin"}.
//
// A row holds its cells in schema order, by kind:
//
//	bool            true, false
//	int16…int64     number
//	float32/64      number that reads back to the same bits (-0.0 too); "NaN", "Infinity", "-Infinity"
//	decimal         string with exactly Scale digits after the point
//	decimaltext     string with the source's digits; "NaN", "Infinity", "-Infinity"
//	text, enum      string
//	json            string that holds the document
//	bytes           string, base64 with padding
//	uuid            string, lower case with dashes
//	date            "2024-02-29"
//	time            "23:59:59.999999", at most "24:00:00.000000"
//	timestamp       "2024-02-29T12:34:56.789012"
//	timestamptz     "2024-02-29T12:34:56.789012Z"
//	array           array, elements may be null
//
// Dates and timestamps are ISO 8601 in the proleptic Gregorian calendar. Years
// have four digits; outside 0000 to 9999 they have a sign and as many digits as
// they need, at least four: "+10000-01-01". Years are astronomical: 1 BC is
// "0000", 44 BC is "-0043". Both infinities are "infinity" and "-infinity".
//
// A cell the source did not send is left out, and its name is in the JSON array
// of the UnsentHeader. A delete has no such header: its before holds the key
// cells and, where the source gave it, the rest of the old row.

// UnsentHeader is the name of the record header that lists the fields of
// "after" that the source did not send.
const UnsentHeader = "sluice.unsent"

// The pieces of the envelope that never change.
const (
	litBefore     = `{"before":`
	litAfter      = `,"after":`
	litNoBefore   = `{"before":null,"after":`
	litNoAfter    = `,"after":null`
	litNoRows     = `{"before":null,"after":null`
	litMessage    = `,"message":{"prefix":"` + messagePrefix + `","content":"`
	litMessageEnd = `"}`
	litOp         = `,"op":"`
	litTsMs       = `,"ts_ms":`
	litTsUs       = `,"ts_us":`
	litSource     = `,"source":`
	litLSN        = `,"lsn":`
	litPos        = `,"pos":"`
	litEnd        = `"}}`

	messagePrefix = "sluice"
	textNaN       = "NaN"
	textInf       = "Infinity"
	textNegInf    = "-Infinity"
	textTimeInf   = "infinity"
	textTimeNeg   = "-infinity"
)

// opOfCode returns the op of a Debezium letter; messages say by their content which one they are.
func opOfCode(c byte) Op {
	switch c {
	case 'r':
		return OpRead
	case 'c':
		return OpInsert
	case 'u':
		return OpUpdate
	case 'd':
		return OpDelete
	case 't':
		return OpTruncate
	}
	return 0
}
