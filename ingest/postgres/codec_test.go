package postgres

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/sluice-data/sluice/record"
)

// Builders of pgoutput messages, as the protocol describes them.

func u16(b []byte, v int) []byte    { return binary.BigEndian.AppendUint16(b, uint16(v)) }
func u32(b []byte, v uint32) []byte { return binary.BigEndian.AppendUint32(b, v) }
func u64(b []byte, v uint64) []byte { return binary.BigEndian.AppendUint64(b, v) }

func tupleBytes(b []byte, cells []cell) []byte {
	b = u16(b, len(cells))
	for _, c := range cells {
		b = append(b, c.kind)
		if c.kind == 't' || c.kind == 'b' {
			b = append(u32(b, uint32(len(c.data))), c.data...)
		}
	}
	return b
}

func rowBytes(op byte, relation uint32, oldKind byte, old, fresh []cell) []byte {
	b := u32([]byte{op}, relation)
	if oldKind != 0 {
		b = tupleBytes(append(b, oldKind), old)
	}
	if op != 'D' {
		b = tupleBytes(append(b, 'N'), fresh)
	}
	return b
}

func TestMessagesReadBack(t *testing.T) {
	begin, err := parseBegin(u32(u64(u64(nil, 7), 8), 9))
	if err != nil || begin != (beginMessage{lsn: 7, micros: 8, xid: 9}) {
		t.Error(begin, err)
	}
	commit, err := parseCommit(u64(u64(u64([]byte{0}, 7), 9), 8))
	if err != nil || commit != (commitMessage{lsn: 7, end: 9, micros: 8}) {
		t.Error(commit, err)
	}
	b := append(u32(nil, 42), "public\x00items\x00d"...)
	b = append(u16(b, 1), 1)
	b = u32(u32(append(b, "id\x00"...), 20), math.MaxUint32)
	relation, err := parseRelation(b)
	if err != nil || relation.oid != 42 || relation.namespace != "public" || relation.name != "items" || relation.identity != 'd' ||
		!slices.Equal(relation.columns, []relationColumn{{column{"id", 20, -1}, true}}) {
		t.Error(relation, err)
	}
	var cut truncateMessage
	if err := parseTruncate(u32(u32(append(u32(nil, 2), 1), 5), 6), &cut); err != nil || !slices.Equal(cut.relations, []uint32{5, 6}) {
		t.Error(cut, err)
	}
	for i := range b {
		if _, err := parseRelation(b[:i]); err == nil {
			t.Errorf("a relation cut at %d is accepted", i)
		}
	}
}

func TestRowsReadBack(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		cells := rapid.SliceOfN(rapid.Custom(func(t *rapid.T) cell {
			c := cell{kind: rapid.SampledFrom([]byte("nutb")).Draw(t, "kind")}
			if c.kind == 't' || c.kind == 'b' {
				c.data = rapid.SliceOf(rapid.Byte()).Draw(t, "data")
			}
			return c
		}), 0, 8)
		op := rapid.SampledFrom([]byte("IUD")).Draw(t, "op")
		var oldKind byte
		var old []cell
		if op == 'D' || op == 'U' && rapid.Bool().Draw(t, "has old") {
			oldKind, old = rapid.SampledFrom([]byte("KO")).Draw(t, "old kind"), cells.Draw(t, "old")
		}
		fresh := cells.Draw(t, "new")
		b := rowBytes(op, 77, oldKind, old, fresh)
		var m rowMessage
		if err := parseRow(op, b[1:], &m); err != nil {
			t.Fatal(err)
		}
		if op == 'D' {
			fresh = nil
		}
		same := func(a, b []cell) bool {
			return slices.EqualFunc(a, b, func(a, b cell) bool { return a.kind == b.kind && string(a.data) == string(b.data) })
		}
		if m.relation != 77 || m.oldKind != oldKind || !same(m.old, old) || !same(m.new, fresh) {
			t.Fatalf("%+v", m)
		}
		if n := rapid.IntRange(1, len(b)-1).Draw(t, "cut"); parseRow(op, b[1:n], &m) == nil {
			t.Fatalf("cut at %d it is accepted", n)
		}
	})
}

func FuzzMessages(f *testing.F) {
	f.Add([]byte{'B'})
	f.Add(rowBytes('U', 1, 'K', []cell{{'t', []byte("1")}}, []cell{{'n', nil}, {'u', nil}}))
	f.Add(append([]byte{'R'}, "\x00\x00\x00\x01public\x00t\x00d\x00\x01\x01id\x00\x00\x00\x00\x14\xff\xff\xff\xff"...))
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) == 0 {
			return
		}
		_, _ = parseBegin(b[1:])
		_, _ = parseCommit(b[1:])
		_, _ = parseRelation(b[1:])
		var cut truncateMessage
		_ = parseTruncate(b[1:], &cut)
		var m rowMessage
		if parseRow(b[0], b[1:], &m) == nil && (b[0] == 'I' || b[0] == 'U' || b[0] == 'D') {
			if again := rowBytes(b[0], m.relation, m.oldKind, m.old, m.new); string(again) != string(b) {
				t.Fatalf("%x reads as %x", b, again)
			}
		}
	})
}

// everyCodec has one codec per form.
func everyCodec() []*codec {
	kinds := &types{}
	kinds.byOID, kinds.text = map[uint32]pgType{}, map[column]string{}
	var cols []column
	for oid := range builtin {
		kinds.byOID[oid] = pgType{oid: oid, kind: 'b'}
		kinds.byOID[oid+100000] = pgType{oid: oid + 100000, kind: 'b', elem: oid}
		cols = append(cols, column{"c", oid, -1}, column{"c", oid + 100000, -1})
	}
	kinds.byOID[1700] = pgType{oid: 1700, kind: 'b'}
	kinds.byOID[869] = pgType{oid: 869, kind: 'b'}
	cols = append(cols, column{"c", 1700, -1}, column{"c", 1700, 38<<16 + 10 + 4}, column{"c", 1700, 9<<16 + 9 + 4}, column{"c", 869, -1})
	slices.SortFunc(cols, func(a, b column) int { return int(int64(a.typ)-int64(b.typ))*1000 + int(a.typmod%1000-b.typmod%1000) })
	var out []*codec
	for _, c := range cols {
		out = append(out, kinds.codec(c))
	}
	return out
}

// FuzzValues feeds any bytes to every codec: it refuses them or leaves a vector in order.
func FuzzValues(f *testing.F) {
	for _, h := range hard {
		f.Add([]byte(strings.Trim(h.literal, "'")), true)
	}
	f.Add(u16(u16(u16(u16(u16(nil, 1), 0), 0), 2), 5), false)
	f.Fuzz(func(t *testing.T, b []byte, text bool) {
		for _, c := range everyCodec() {
			v := record.NewVector(&c.field)
			kind := byte('b')
			if text {
				kind = 't'
			}
			r := c.appendCell(v, kind, b)
			if (r != nil) != (v.State[0] == record.Unsent) || v.Len() != 1 || len(v.Fixed) != c.width {
				t.Fatalf("%s: %v leaves %+v", c.field.Kind, r, v)
			}
			if c.width == 0 && (len(v.Offs) != 2 || v.Child == nil && int(v.Offs[1]) != len(v.Data) || v.Child != nil && int(v.Offs[1]) != v.Child.Len()) {
				t.Fatalf("%s: %v leaves %+v", c.field.Kind, r, v)
			}
		}
	})
}

// numericBytes writes the binary form of digits × 10^-scale.
func numericBytes(digits string, scale int, negative bool) []byte {
	whole := digits[:len(digits)-scale]
	fraction := digits[len(digits)-scale:]
	for len(whole)%4 != 0 {
		whole = "0" + whole
	}
	for len(fraction)%4 != 0 {
		fraction += "0"
	}
	var groups []int
	for all := whole + fraction; all != ""; all = all[4:] {
		var g int
		fmt.Sscanf(all[:4], "%d", &g)
		groups = append(groups, g)
	}
	weight := len(whole)/4 - 1
	for len(groups) > 0 && groups[0] == 0 {
		groups, weight = groups[1:], weight-1
	}
	for len(groups) > 0 && groups[len(groups)-1] == 0 {
		groups = groups[:len(groups)-1]
	}
	if len(groups) == 0 {
		weight, negative = 0, false
	}
	sign := 0
	if negative {
		sign = signNegative
	}
	b := u16(u16(u16(u16(nil, len(groups)), weight), sign), scale)
	for _, g := range groups {
		b = u16(b, g)
	}
	return b
}

func TestNumericsReadAlikeFromTextAndBinary(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		precision := rapid.IntRange(1, 38).Draw(t, "precision")
		scale := rapid.IntRange(0, precision).Draw(t, "scale")
		digits := strings.Repeat("0", scale) + fmt.Sprintf("%0*d", precision-scale, 0)
		digits = digits[:precision]
		n := rapid.IntRange(0, precision).Draw(t, "digits")
		tail := rapid.StringOfN(rapid.RuneFrom([]rune("0123456789")), n, n, -1).Draw(t, "tail")
		digits = digits[:precision-n] + tail
		negative := rapid.Bool().Draw(t, "negative") && strings.Trim(digits, "0") != ""
		text := strings.TrimLeft(digits[:precision-scale], "0")
		if text == "" {
			text = "0"
		}
		if scale > 0 {
			text += "." + digits[precision-scale:]
		}
		if negative {
			text = "-" + text
		}
		binary := numericBytes(digits, scale, negative)

		c := &codec{}
		c.numeric(int32(precision<<16+scale) + 4)
		c.width = c.field.Kind.Width()
		v := record.NewVector(&c.field)
		if r := c.appendCell(v, 't', []byte(text)); r != nil {
			t.Fatal(text, r)
		}
		if r := c.appendCell(v, 'b', binary); r != nil {
			t.Fatal(text, r)
		}
		want, _ := new(big.Int).SetString(strings.Replace(text, ".", "", 1), 10)
		for i := range 2 {
			hi, lo := v.DecimalAt(i)
			got := new(big.Int).Add(new(big.Int).Lsh(big.NewInt(hi), 64), new(big.Int).SetUint64(lo))
			if got.Cmp(want) != 0 {
				t.Fatalf("%s reads as %s", text, got)
			}
		}
		w := record.NewVector(&record.Field{Kind: record.DecimalText})
		if r := numericBinary(w, binary); r != nil || string(w.Value(0)) != text {
			t.Fatalf("%s is shown as %s", text, w.Value(0))
		}
	})
}

func TestDecimalsThatDoNotFitAreRefused(t *testing.T) {
	c := &codec{}
	c.numeric(5<<16 + 2 + 4) // numeric(5,2)
	c.width = 16
	for _, text := range []string{"1000.00", "99999", "1.001", "123456789012345678901234567890123456789012345"} {
		v := record.NewVector(&c.field)
		if r := c.appendCell(v, 't', []byte(text)); r != refuseDigits {
			t.Errorf("%s as text: %v", text, r)
		}
		scale := 0
		if i := strings.IndexByte(text, '.'); i >= 0 {
			scale = len(text) - i - 1
		}
		if r := c.appendCell(v, 'b', numericBytes(strings.Replace(text, ".", "", 1), scale, false)); r != refuseDigits {
			t.Errorf("%s in binary: %v", text, r)
		}
	}
}
