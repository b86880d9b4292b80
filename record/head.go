package record

import (
	"bytes"
	"errors"
	"fmt"
)

// Head is what a consumer must know of a record before it can choose a decoder.
type Head struct {
	SchemaID string // empty where the record does not come from sluice
	Op       Op
	Pos      Position // zero where the record does not come from sluice: its offset is its place then
	Time     int64    // source commit time, µs since 1970-01-01 UTC
}

// ReadHead reads the head of one record value. A consumer of many uses a HeadReader.
func ReadHead(value []byte) (Head, error) {
	var r HeadReader
	return r.Read(value)
}

// HeadReader reads the heads of a run of record values. It remembers the end of
// the previous one, so that a row of the same transaction or backfill costs a
// comparison and a few digits; it never parses the row of a record that sluice
// wrote. It is not safe for concurrent use. The zero value is ready.
type HeadReader struct {
	source   []byte // the last source block of our own form, from its comma to the schema id's closing quote
	schemaID string
	tail     []byte // the last tail of our own form, from after op to the last slash of the position
	pos      Position
	time     int64
}

var errEnvelope = errors.New("not a Debezium envelope")

// Read reads the head of value.
func (r *HeadReader) Read(value []byte) (Head, error) {
	if h, _, ok := r.fast(value); ok {
		return h, nil
	}
	e, err := r.scan(value)
	return e.head, err
}

// tailOpLen is the length of ,"op":"x" before the tail.
const tailOpLen = len(litOp) + 2

// fast reads the head of a value of our own form from its end. start is where
// the rows end and ,"op": begins. Messages are left to the scan.
func (r *HeadReader) fast(v []byte) (h Head, start int, ok bool) {
	end := len(v) - len(litEnd)
	if end < 0 || string(v[end:]) != litEnd {
		return h, 0, false
	}
	slash := end - 1
	for slash >= 0 && v[slash]-'0' <= 9 {
		slash--
	}
	seq, digits := parseUint(v[slash+1:end], 10)
	if !digits || slash < 0 || v[slash] != '/' {
		return h, 0, false
	}
	tail := slash + 1 - len(r.tail)
	if len(r.tail) == 0 || tail < 0 || !bytes.Equal(v[tail:slash+1], r.tail) {
		if tail, ok = r.learnTail(v, slash); !ok {
			return h, 0, false
		}
	}
	start = tail - tailOpLen
	if start < 0 || !hasLiteral(v, start, litOp) || v[tail-1] != '"' {
		return h, 0, false
	}
	op := opOfCode(v[tail-2])
	if op == 0 {
		return h, 0, false
	}
	h = Head{SchemaID: r.schemaID, Op: op, Pos: r.pos, Time: r.time}
	h.Pos.Seq = seq
	return h, start, true
}

// learnTail reads the tail that ends at the last slash of a position backwards
// and remembers it. Its source block must be the one that is known.
func (r *HeadReader) learnTail(v []byte, slash int) (start int, ok bool) {
	at, pos, micros, ok := readSourceEnd(v, slash)
	if !ok || len(r.source) == 0 {
		return 0, false
	}
	source := at - len(r.source)
	if source < 0 || !bytes.Equal(v[source:at], r.source) {
		return 0, false
	}
	_, start, ok = numberBefore(v, source, litTsMs)
	if !ok {
		return 0, false
	}
	r.tail, r.pos, r.time = append(r.tail[:0], v[start:slash+1]...), pos, micros
	return start, true
}

// readSourceEnd reads the members of a source block that change from row to
// row, from the last slash of the position backwards; start is where they begin.
func readSourceEnd(v []byte, slash int) (start int, pos Position, micros int64, ok bool) {
	i := slash
	for i > 0 && unhex(v[i-1]) <= 15 {
		i--
	}
	pos.LSN, ok = parseUint(v[i:slash], 16)
	if !ok || i == 0 || v[i-1] != '/' {
		return 0, pos, 0, false
	}
	i--
	j := i
	for j > 0 && v[j-1]-'0' <= 9 {
		j--
	}
	pos.Epoch, ok = parseUint(v[j:i], 10)
	if !ok || j < len(litPos) || !hasLiteral(v, j-len(litPos), litPos) {
		return 0, pos, 0, false
	}
	i = j - len(litPos)
	if _, at, is := numberBefore(v, i, litLSN); is {
		i = at
	}
	micros, i, ok = numberBefore(v, i, litTsUs)
	if !ok {
		return 0, pos, 0, false
	}
	_, start, ok = numberBefore(v, i, litTsMs)
	return start, pos, micros, ok
}

// numberBefore reads the integer member that ends at v[:end]; start is where its name lit begins.
func numberBefore(v []byte, end int, lit string) (x int64, start int, ok bool) {
	i := end
	for i > 0 && (v[i-1]-'0' <= 9 || v[i-1] == '-') {
		i--
	}
	start = i - len(lit)
	if start < 0 || !hasLiteral(v, start, lit) {
		return 0, 0, false
	}
	x, next, err := readInt(v, i)
	return x, start, err == nil && next == end
}

// parseUint reads all of b; it reports false if b is empty, is no number or does not fit.
func parseUint(b []byte, base uint64) (x uint64, ok bool) {
	if len(b) == 0 || len(b) > 20 {
		return 0, false
	}
	if base == 10 && len(b) < 20 {
		for _, c := range b {
			if c -= '0'; c > 9 {
				return 0, false
			}
			x = x*10 + uint64(c)
		}
		return x, true
	}
	for _, c := range b {
		d := uint64(unhex(c))
		if d >= base || x > (1<<64-1-d)/base {
			return 0, false
		}
		x = x*base + d
	}
	return x, true
}

// parsePosition is ParsePosition for bytes.
func parsePosition(b []byte) (p Position, ok bool) {
	i, j := bytes.IndexByte(b, '/'), bytes.LastIndexByte(b, '/')
	if i < 0 || i == j {
		return p, false
	}
	var ok1, ok2, ok3 bool
	p.Epoch, ok1 = parseUint(b[:i], 10)
	p.LSN, ok2 = parseUint(b[i+1:j], 16)
	p.Seq, ok3 = parseUint(b[j+1:], 10)
	return p, ok1 && ok2 && ok3
}

// envelope is a record value taken apart: what its head says and where its rows are.
type envelope struct {
	head          Head
	before, after int // places of the rows, 0 where absent or null
	end           int // where the only row must end; 0 where a scan has found that already
}

// scan takes any Debezium envelope apart and learns its source block if it is of our own form.
func (r *HeadReader) scan(v []byte) (envelope, error) {
	var e envelope
	var millis int64
	var code byte
	timed := false
	var message Op
	source := 0
	end, err := eachMember(v, skipSpace(v, 0), func(name []byte, at int) (int, error) {
		if at >= len(v) {
			return at, errEnd
		}
		switch string(name) {
		case "before", "after":
			if v[at] == '{' {
				if name[0] == 'b' {
					e.before = at
				} else {
					e.after = at
				}
			}
		case "op":
			if at+2 < len(v) && v[at] == '"' && v[at+2] == '"' {
				code = v[at+1]
			}
		case "message":
			message = readMessage(v, at)
		case "ts_ms":
			millis, _, _ = readInt(v, at)
		case "source":
			if v[at] == '{' {
				source = at
				timed = true
				return readSource(v, at, &e.head)
			}
		}
		return skipValue(v, at)
	})
	if err == nil && skipSpace(v, end) != len(v) {
		err = errSyntax
	}
	if err != nil {
		return envelope{}, fmt.Errorf("read envelope: byte %d: %w", end, err)
	}
	if e.head.Op = opOfCode(code); code == 'm' {
		e.head.Op = message
	}
	if e.head.Op == 0 {
		return envelope{}, fmt.Errorf("read envelope: member op: %w", errEnvelope)
	}
	if !timed {
		e.head.Time = microsOf(millis)
	}
	if source > 0 && e.head.SchemaID != "" {
		r.learnSource(v, source, e.head.SchemaID)
	}
	return e, nil
}

// microsOf turns ms into µs; a time that does not fit is no time: 0.
func microsOf(millis int64) int64 {
	if micros := millis * 1000; micros/1000 == millis {
		return micros
	}
	return 0
}

// learnSource remembers the constant part of the source block at v[at:] if the value ends in our own form.
func (r *HeadReader) learnSource(v []byte, at int, schemaID string) {
	r.source, r.tail = r.source[:0], r.tail[:0]
	from, slash := at-len(litSource), bytes.LastIndexByte(v, '/')
	if slash < 0 || from < 0 || !hasLiteral(v, from, litSource) {
		return
	}
	to, _, _, ok := readSourceEnd(v, slash)
	if ok && to > at {
		r.source, r.schemaID = append(r.source, v[from:to]...), schemaID
	}
}

// readMessage returns the op that the content of our own message stands for, 0 for any other.
func readMessage(v []byte, at int) Op {
	var ours bool
	var op Op
	_, err := eachMember(v, at, func(name []byte, at int) (int, error) {
		end, err := skipValue(v, at)
		if err != nil || v[at] != '"' {
			return end, err
		}
		content := v[at+1 : end-1]
		switch string(name) {
		case "prefix":
			ours = string(content) == messagePrefix
		case "content":
			switch string(content) {
			case opNames[OpBackfillBegin]:
				op = OpBackfillBegin
			case opNames[OpBackfillEnd]:
				op = OpBackfillEnd
			}
		}
		return end, nil
	})
	if err != nil || !ours {
		return 0
	}
	return op
}

// readSource reads the source block at v[at:] into h.
func readSource(v []byte, at int, h *Head) (int, error) {
	var millis int64
	exact := false // the time is there in µs
	end, err := eachMember(v, at, func(name []byte, at int) (int, error) {
		end, err := skipValue(v, at)
		if err != nil {
			return end, err
		}
		switch string(name) {
		case "schema_id":
			if v[at] == '"' {
				h.SchemaID = string(v[at+1 : end-1])
			}
		case "pos":
			// MySQL's pos is a number and means something else.
			if v[at] == '"' {
				var ok bool
				if h.Pos, ok = parsePosition(v[at+1 : end-1]); !ok {
					return at, errEnvelope
				}
			}
		case "ts_us":
			if micros, _, err := readInt(v, at); err == nil {
				h.Time, exact = micros, true
			}
		case "ts_ms":
			millis, _, _ = readInt(v, at)
		}
		return end, nil
	})
	if !exact {
		h.Time = microsOf(millis)
	}
	return end, err
}
