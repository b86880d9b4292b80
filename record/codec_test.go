package record

import (
	"bytes"
	"encoding/json"
	"errors"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"
)

func TestRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSchema(t)
		b := drawBatch(t, s)
		d, got := NewDecoder(s), NewBatch(s, nil)
		var heads HeadReader
		for i, m := range encodeAll(b) {
			if !json.Valid(m.value) || len(m.key) > 0 && !json.Valid(m.key) || len(m.unsent) > 0 && !json.Valid(m.unsent) {
				t.Fatalf("not JSON: %s %s %s", m.key, m.value, m.unsent)
			}
			h, err := heads.Read(m.value)
			if want := (Head{s.ID, b.Ops[i], b.Pos[i], b.Time[i]}); err != nil || h != want {
				t.Fatalf("head %+v, %v; want %+v", h, err, want)
			}
			if err := d.Append(got, m.key, m.value, m.unsent); err != nil {
				t.Fatalf("row %d: %v\n%s", i, err, m.value)
			}
		}
		requireSame(t, b, got)
		again := encodeAll(got)
		for i, m := range encodeAll(b) {
			if !bytes.Equal(m.value, again[i].value) || !bytes.Equal(m.key, again[i].key) || !bytes.Equal(m.unsent, again[i].unsent) {
				t.Fatalf("row %d is written differently the second time", i)
			}
		}
	})
}

// TestOtherForms reads what another producer might write: members in any order, white space, unknown members.
func TestOtherForms(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawSchema(t)
		b := drawBatch(t, s)
		d, got := NewDecoder(s), NewBatch(s, nil)
		rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 1))
		for i, m := range encodeAll(b) {
			other := reshape(rng, m.value)
			h, err := ReadHead(other)
			if want := (Head{s.ID, b.Ops[i], b.Pos[i], b.Time[i]}); err != nil || h != want {
				t.Fatalf("head %+v, %v; want %+v\n%s", h, err, want, other)
			}
			if err := d.Append(got, m.key, other, m.unsent); err != nil {
				t.Fatalf("row %d: %v\n%s", i, err, other)
			}
		}
		requireSame(t, b, got)
	})
}

// reshape writes the members of all objects of a JSON document in another
// order, with white space between and unknown members added.
func reshape(rng *rand.Rand, doc []byte) []byte {
	space := func() string { return []string{"", " ", "\n\t", "\r\n "}[rng.IntN(4)] }
	var members map[string]json.RawMessage
	if doc[0] != '{' || json.Unmarshal(doc, &members) != nil {
		return doc
	}
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(members)) { // the same seed gives the same text
		n, _ := json.Marshal(name)
		parts = append(parts, string(n)+space()+":"+space()+string(reshape(rng, members[name])))
	}
	if rng.IntN(2) == 0 {
		parts = append(parts, `"unknown`+space()+`\u00e4": {"x": [1, "}", {"y": null}], "op": "d"}`)
	}
	rng.Shuffle(len(parts), func(i, j int) { parts[i], parts[j] = parts[j], parts[i] })
	return []byte("{" + space() + strings.Join(parts, space()+","+space()) + space() + "}")
}

func TestControlRoundTrip(t *testing.T) {
	s := wideSchema()
	for _, op := range []Op{OpTruncate, OpBackfillBegin, OpBackfillEnd} {
		want := NewControl(s, op, Position{3, 0xabc, 7}, 1_700_000_000_000_001)
		e, d, got := NewEncoder(s, testOrigin), NewDecoder(s), NewBatch(s, nil)
		value := e.AppendValue(nil, want, 0)
		if key := e.AppendKey(nil, want, 0); key != nil {
			t.Errorf("%v: key %s", op, key)
		}
		if h, err := ReadHead(value); err != nil || h != (Head{s.ID, op, want.Pos[0], want.Time[0]}) {
			t.Errorf("%v: head %+v, %v", op, h, err)
		}
		if err := d.Append(got, nil, value, nil); err != nil {
			t.Fatal(err)
		}
		if c, ok := got.Control(); !ok || c != op || got.Pos[0] != want.Pos[0] || got.Time[0] != want.Time[0] {
			t.Errorf("%v: got %v %v %v", op, got.Ops, got.Pos, got.Time)
		}
		if err := d.Append(got, nil, value, nil); !errors.Is(err, errControl) {
			t.Errorf("a second record in a control batch: %v", err)
		}
	}
}

// TestRefused holds what a decoder refuses, and that its batch is what it was before.
func TestRefused(t *testing.T) {
	s := (&Schema{Stream: StreamName{Source: "s", Name: "t"}, Fields: []Field{
		{Name: "id", Kind: Int32, Key: 1},
		{Name: "small", Kind: Int16, Nullable: true},
		{Name: "amount", Kind: Decimal, Precision: 5, Scale: 2, Nullable: true},
		{Name: "digits", Kind: DecimalText, Nullable: true},
		{Name: "txt", Kind: Text, Nullable: true},
		{Name: "raw", Kind: Bytes, Nullable: true},
		{Name: "day", Kind: Date, Nullable: true},
		{Name: "clock", Kind: Time, Nullable: true},
		{Name: "local", Kind: Timestamp, Nullable: true},
		{Name: "at", Kind: TimestampTZ, Nullable: true},
		{Name: "uid", Kind: UUID, Nullable: true},
		{Name: "doc", Kind: JSON, Nullable: true},
		{Name: "f4", Kind: Float32, Nullable: true},
		{Name: "f8", Kind: Float64, Nullable: true},
		{Name: "list", Kind: Array, Nullable: true, Elem: &Field{Name: "element", Kind: Int32}},
		{Name: "flag", Kind: Bool, Nullable: true},
		{Name: "must", Kind: Text},
	}}).Seal()
	const tail = `,"op":"c","source":{"pos":"1/2/3","ts_us":5}}`
	cases := []struct{ row, want string }{
		{`{"id":1}`, `"must": byte 0: missing`},
		{`{"must":""}`, `"id": byte 0: missing`},
		{`{"id":null,"must":""}`, `"id": byte 29: null in a field`},
		{`{"id":1,"must":null}`, `"must"`},
		{`{"id":1,"id":1,"must":""}`, `"id": byte 36: there twice`},
		{`{"id":2147483648,"must":""}`, "does not fit"},
		{`{"id":-2147483649,"must":""}`, "does not fit"},
		{`{"id":99999999999999999999999,"must":""}`, "does not fit"},
		{`{"id":1.5,"must":""}`, "not an integer"},
		{`{"id":1e3,"must":""}`, "not an integer"},
		{`{"id":"1","must":""}`, "not an integer"},
		{`{"id":1,"small":32768,"must":""}`, `"small"`},
		{`{"id":1,"amount":"1000.00","must":""}`, "before the point"},
		{`{"id":1,"amount":"1.001","must":""}`, "after the point"},
		{`{"id":1,"amount":"NaN","must":""}`, "not a decimal"},
		{`{"id":1,"amount":"","must":""}`, "not a decimal"},
		{`{"id":1,"amount":".","must":""}`, "not a decimal"},
		{`{"id":1,"amount":"--1","must":""}`, "not a decimal"},
		{`{"id":1,"amount":true,"must":""}`, "not a number"},
		{`{"id":1,"digits":"1.2.3","must":""}`, "not a decimal"},
		{`{"id":1,"digits":"12x","must":""}`, "not a decimal"},
		{`{"id":1,"txt":"` + "\xff" + `","must":""}`, "not UTF-8"},
		{`{"id":1,"txt":"long enough for the words \\` + "\xc3" + `","must":""}`, "not UTF-8"},
		{`{"id":1,"txt":"\ud800","must":""}`, "invalid escape"},
		{`{"id":1,"txt":"\ud800\u0041","must":""}`, "invalid escape"},
		{`{"id":1,"txt":"\x","must":""}`, "invalid escape"},
		{`{"id":1,"txt":"\u12g4","must":""}`, "invalid escape"},
		{`{"id":1,"txt":5,"must":""}`, "not a string"},
		{`{"id":1,"raw":"=A==","must":""}`, "not base64"},
		{`{"id":1,"raw":"QQ","must":""}`, "not base64"},
		{`{"id":1,"raw":"QR==","must":""}`, "not base64"},
		{`{"id":1,"day":"2023-02-29","must":""}`, "not a date"},
		{`{"id":1,"day":"2023-13-01","must":""}`, "not a date"},
		{`{"id":1,"day":"+99999999-01-01","must":""}`, "not a date"},
		{`{"id":1,"day":19000,"must":""}`, "not a string"},
		{`{"id":1,"clock":"24:00:00.000001","must":""}`, "not a time"},
		{`{"id":1,"clock":"23:60:00","must":""}`, "not a time"},
		{`{"id":1,"clock":"23:59:59.1234567","must":""}`, "below microseconds"},
		{`{"id":1,"local":"2024-01-01T00:00:00Z","must":""}`, "zone"},
		{`{"id":1,"local":"2024-01-01","must":""}`, "not a timestamp"},
		{`{"id":1,"at":"2024-01-01T00:00:00","must":""}`, "zone"},
		{`{"id":1,"at":"+294248-01-01T00:00:00Z","must":""}`, "64 bits"},
		{`{"id":1,"at":"-290308-12-21T19:59:05.224192Z","must":""}`, "64 bits"},
		{`{"id":1,"uid":"00000000-0000-0000-0000-00000000000g","must":""}`, "not a UUID"},
		{`{"id":1,"uid":"00000000000000000000000000000000","must":""}`, "not a UUID"},
		{`{"id":1,"doc":{"a":},"must":""}`, "not valid JSON"},
		{`{"id":1,"f4":1e39,"must":""}`, "not a number"},
		{`{"id":1,"f8":1e309,"must":""}`, "not a number"},
		{`{"id":1,"f8":"nan","must":""}`, "not a number"},
		{`{"id":1,"f8":1.,"must":""}`, ""},
		{`{"id":1,"list":[1,2147483648],"must":""}`, "does not fit"},
		{`{"id":1,"list":[1,null],"must":""}`, "null in a field"},
		{`{"id":1,"list":[1,],"must":""}`, "not an integer"},
		{`{"id":1,"list":{},"must":""}`, "not an array"},
		{`{"id":1,"flag":1,"must":""}`, "not a boolean"},
		{`{"id":1,"flag":nul,"must":""}`, "not valid JSON"},
		{`{"id":1,"must":"",}`, "not a string"},
		{`{"id":1;"must":""}`, "not valid JSON"},
		{`{"id" 1,"must":""}`, "not valid JSON"},
		{`null`, "member after: has no row"},
		{`[]`, "member after: has no row"},
	}
	good := `{"before":null,"after":{"id":1,"txt":"x","list":[1,2],"must":"m"}` + tail
	for _, c := range cases {
		d, b := NewDecoder(s), NewBatch(s, nil)
		if err := d.Append(b, nil, []byte(good), nil); err != nil {
			t.Fatal(err)
		}
		// As the first record the value takes the general way, with a before that must be undone too.
		for _, before := range []string{`null`, `{"id":1,"txt":"old"}`} {
			err := d.Append(b, nil, []byte(`{"before":`+before+`,"after":`+c.row+tail), nil)
			if c.want == "" {
				continue
			}
			if err == nil || !strings.Contains(err.Error(), c.want) && before == "null" {
				t.Errorf("%s: error %v, want %q", c.row, err, c.want)
			}
			if b.Len() != 1 || b.Before != nil {
				t.Fatalf("%s: the batch has %d rows", c.row, b.Len())
			}
			requireConsistent(t, b)
		}
	}
}

func TestRefusedEnvelopes(t *testing.T) {
	s := (&Schema{Stream: StreamName{Source: "s", Name: "t"}, Fields: []Field{{Name: "id", Kind: Int32, Key: 1}}}).Seal()
	for value, want := range map[string]string{
		``:                                    "byte 0",
		`null`:                                "byte 0",
		`{}`:                                  "member op",
		`{"op":"x"}`:                          "member op",
		`{"op":"c"`:                           "ends too early",
		`{"op":"c","after":{"id":1}} x`:       "not valid JSON",
		`{"op":"c","after":{"id":1}`:          "ends too early",
		`{"op":"c"}`:                          "member after",
		`{"op":"m","message":{"prefix":"x"}}`: "member op",
		`{"op":"d","before":null}`:            "missing in the old row",
		`{"op":"c","after":{"id":1},"source":{"schema_id":"other"}}`: "another schema",
		`{"op":"c","after":{"id":1},"source":{"pos":"1/2"}}`:         "not a Debezium envelope",
	} {
		b := NewBatch(s, nil)
		err := NewDecoder(s).Append(b, nil, []byte(value), nil)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", value, err, want)
		}
		if b.Len() != 0 {
			t.Errorf("%s: a row was appended", value)
		}
		requireConsistent(t, b)
	}
}

// TestImpostor feeds values that begin and end like our own but hold something else in between.
func TestImpostor(t *testing.T) {
	s := wideSchema()
	b := wideBatch(s, 2)
	m := encodeAll(b)
	d, got := NewDecoder(s), NewBatch(s, nil)
	if err := d.Append(got, m[0].key, m[0].value, nil); err != nil {
		t.Fatal(err)
	}
	at := bytes.LastIndex(m[1].value, []byte(`,"op":"`))
	for _, op := range []string{"c", "d", "t"} { // a row that only some ops read, with a quote that does not close
		value := []byte(`{"before":null,"after":{"id":1,"x":"y,"z":1},"op":"` + op + string(m[1].value[at+len(litOp)+1:]))
		if err := d.Append(got, m[1].key, value, nil); err == nil || got.Len() != 1 {
			t.Errorf("op %s: %d rows, error %v", op, got.Len(), err)
		}
	}
	for _, middle := range []string{`}`, ` `, `,"after":null`, `garbage`, `,"x":{"y":1}`} {
		value := append(append(bytes.Clone(m[1].value[:at]), middle...), m[1].value[at:]...)
		n := got.Len()
		err := d.Append(got, m[1].key, value, nil)
		if valid := json.Valid(value) && middle != `,"after":null`; valid != (err == nil) && middle != `,"after":null` {
			t.Errorf("%q: %v", middle, err)
		}
		if err != nil && got.Len() != n {
			t.Errorf("%q: a row was appended", middle)
		}
		requireConsistent(t, got)
	}
}

func TestDeleteKeyFromKey(t *testing.T) {
	s := (&Schema{Stream: StreamName{Source: "s", Name: "t"}, Fields: []Field{
		{Name: "id", Kind: Int32, Key: 1}, {Name: "txt", Kind: Text, Nullable: true}}}).Seal()
	b := NewBatch(s, nil)
	d := NewDecoder(s)
	if err := d.Append(b, []byte(`{"id":7}`), []byte(`{"before":null,"after":null,"op":"d"}`), nil); err != nil {
		t.Fatal(err)
	}
	if b.After[0].Int32At(0) != 7 || b.After[1].State[0] != Unsent || b.Before != nil {
		t.Fatalf("got %+v", b)
	}
	if err := d.Append(b, []byte(`{"id":"x"}`), []byte(`{"before":null,"after":null,"op":"d"}`), nil); err == nil || b.Len() != 1 {
		t.Fatalf("a bad key: %v", err)
	}
}

func TestMissingFields(t *testing.T) {
	s := (&Schema{Stream: StreamName{Source: "s", Name: "t"}, Fields: []Field{
		{Name: "id", Kind: Int32, Key: 1}, {Name: "a", Kind: Text, Nullable: true}, {Name: "b", Kind: Text}}}).Seal()
	b, d := NewBatch(s, nil), NewDecoder(s)
	value := []byte(`{"before":{"b":"old"},"after":{"id":1},"op":"u"}`)
	if err := d.Append(b, nil, value, []byte(`["b","gone"]`)); err != nil {
		t.Fatal(err)
	}
	if b.After[1].State[0] != Null || b.After[2].State[0] != Unsent {
		t.Errorf("a missing nullable field and a listed one: %d %d", b.After[1].State[0], b.After[2].State[0])
	}
	if b.Before[0].State[0] != Unsent || string(b.Before[2].Value(0)) != "old" {
		t.Errorf("before: %+v", b.Before)
	}
	for _, header := range []string{`["b"`, `{"b":1}`, `[1]`} {
		if err := d.Append(b, nil, value, []byte(header)); !errors.Is(err, errUnsentBad) || b.Len() != 1 {
			t.Errorf("header %s: %v", header, err)
		}
	}
}

func TestErrorsHoldNoValue(t *testing.T) {
	s := (&Schema{Stream: StreamName{Source: "s", Name: "t"}, Fields: []Field{{Name: "id", Kind: Int32, Key: 1}, {Name: "txt", Kind: Text}}}).Seal()
	for _, value := range []string{
		`{"after":{"id":"SECRET"},"op":"c"}`,
		`{"after":{"id":1,"txt":SECRET},"op":"c"}`,
		`{"after":{"SECRET":"\x"},"op":"c"}`,
		`{"after":{"\xSECRET":1},"op":"c"}`,
		`{"op":"SECRET"}`,
		`SECRET`,
		`{"op":"c","source":{"schema_id":"SECRET"},"after":{}}`,
	} {
		err := NewDecoder(s).Append(NewBatch(s, nil), []byte(`SECRET`), []byte(value), []byte(`SECRET`))
		if err == nil || strings.Contains(err.Error(), "SECRET") {
			t.Errorf("%s: %v", value, err)
		}
	}
}
