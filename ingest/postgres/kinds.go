package postgres

import (
	"context"
	"fmt"

	"github.com/jackc/pgx/v5"

	"github.com/sluice-data/sluice/record"
)

// column is one column as the catalog and the Relation message describe it.
type column struct {
	name   string
	typ    uint32
	typmod int32
}

// pgType is a row of pg_type.
type pgType struct {
	oid    uint32
	name   string
	kind   byte // typtype: b base, d domain, e enum, c composite, r range …
	base   uint32
	typmod int32
	elem   uint32 // of a true array whose elements are separated by commas
}

// types resolves what columns hold. It caches, as a type that is used cannot
// change into another one.
type types struct {
	byOID map[uint32]pgType
	text  map[column]string // by type and modifier: as SQL writes it
	check bool              // the server's encoding does not guarantee UTF-8
}

const typeQuery = `
SELECT oid, typname::text, typtype::text, typbasetype, typtypmod,
       CASE WHEN typelem <> 0 AND typlen = -1 AND typcategory = 'A' AND typdelim = ',' AND oid NOT IN (22, 30) THEN typelem ELSE 0 END
FROM pg_type WHERE oid = ANY($1)`

// load reads the types of cols and everything they are made of.
func (t *types) load(ctx context.Context, conn *pgx.Conn, cols []column) error {
	if t.byOID == nil {
		t.byOID, t.text = map[uint32]pgType{}, map[column]string{}
	}
	var missing []uint32
	var formats []column
	for _, c := range cols {
		if _, ok := t.byOID[c.typ]; !ok {
			missing = append(missing, c.typ)
		}
		if key := (column{"", c.typ, c.typmod}); t.text[key] == "" {
			formats = append(formats, key)
		}
	}
	for len(missing) > 0 {
		rows, err := conn.Query(ctx, typeQuery, missing)
		if err != nil {
			return wrap("read pg_type", err)
		}
		for _, oid := range missing {
			t.byOID[oid] = pgType{oid: oid} // stays if the type is gone: its text form is kept
		}
		missing = nil
		for rows.Next() {
			var p pgType
			var kind string
			if err := rows.Scan(&p.oid, &p.name, &kind, &p.base, &p.typmod, &p.elem); err != nil {
				rows.Close()
				return wrap("read pg_type", err)
			}
			p.kind = kind[0]
			t.byOID[p.oid] = p
			for _, next := range []uint32{p.base, p.elem} {
				if _, ok := t.byOID[next]; next != 0 && !ok {
					missing = append(missing, next)
				}
			}
		}
		if err := rows.Err(); err != nil {
			return wrap("read pg_type", err)
		}
	}
	for _, f := range formats {
		var text *string
		if err := conn.QueryRow(ctx, `SELECT format_type($1, $2)`, f.typ, f.typmod).Scan(&text); err != nil {
			return wrap("name a type", err)
		}
		t.text[f] = "unknown"
		if text != nil {
			t.text[f] = *text
		}
	}
	return nil
}

// The built-in types that have a form of their own.
var builtin = map[uint32]struct {
	kind record.Kind
	form form
}{
	16: {record.Bool, formBool}, 21: {record.Int16, formInt2}, 23: {record.Int32, formInt4}, 20: {record.Int64, formInt8},
	700: {record.Float32, formFloat4}, 701: {record.Float64, formFloat8},
	25: {record.Text, formString}, 1043: {record.Text, formString}, 1042: {record.Text, formString}, 19: {record.Text, formString},
	17: {record.Bytes, formBytea}, 1082: {record.Date, formDate}, 1083: {record.Time, formTime},
	1114: {record.Timestamp, formTimestamp}, 1184: {record.TimestampTZ, formTimestamp},
	2950: {record.UUID, formUUID}, 114: {record.JSON, formString}, 3802: {record.JSON, formJSONB},
}

// codec returns how values of col are read. load must have seen col.
func (t *types) codec(col column) *codec {
	p, typmod := t.byOID[col.typ], col.typmod
	for p.kind == 'd' {
		typmod = p.typmod
		p = t.byOID[p.base]
	}
	c := &codec{check: t.check, form: formOther,
		field: record.Field{Name: col.name, Kind: record.Text, Nullable: true, SourceType: t.text[column{"", col.typ, col.typmod}]}}
	b, known := builtin[p.oid]
	switch {
	case known:
		c.field.Kind, c.form = b.kind, b.form
	case p.oid == 1700:
		c.numeric(typmod)
	case p.kind == 'e':
		c.field.Kind, c.form = record.Enum, formString
	case p.name == "citext" && p.kind == 'b':
		c.form = formString
	case p.elem != 0:
		c.form, c.field.Kind = formArray, record.Array
		c.elem = t.codec(column{"element", p.elem, typmod})
		if c.elem.form == formArray { // a domain over an array inside of an array
			c.form, c.field.Kind, c.elem = formOther, record.Text, nil
			break
		}
		c.elem.field.SourceType = ""
		c.field.Elem = &c.elem.field
	}
	c.width = c.field.Kind.Width()
	return c
}

// numeric tells apart what fits 128 bits and what only text can hold.
func (c *codec) numeric(typmod int32) {
	c.field.Kind, c.form = record.DecimalText, formNumeric
	if typmod < 4 {
		return
	}
	m := typmod - 4
	precision, scale := int(m>>16&0xffff), int(m&0x7ff^1024)-1024
	if precision <= 38 && scale >= 0 && scale <= precision {
		c.field.Kind, c.form, c.field.Precision, c.field.Scale = record.Decimal, formDecimal, precision, scale
	}
}

// shape is the schema of a stream with the codecs of its fields.
type shape struct {
	schema *record.Schema
	codecs []*codec
	keys   []int // key fields in key order
	binary bool  // every field can be read in binary format
}

// shape makes the schema of a stream. Only key columns are declared not to be
// null: the catalog may already be ahead of the log about the others.
func (t *types) shape(name record.StreamName, cols []column, key []string) (*shape, error) {
	s := &shape{schema: &record.Schema{Stream: name}, binary: true}
	for _, col := range cols {
		c := t.codec(col)
		for i, k := range key {
			if k == col.name {
				c.field.Key, c.field.Nullable = i+1, false
			}
		}
		s.schema.Fields = append(s.schema.Fields, c.field)
		s.codecs = append(s.codecs, c)
		s.binary = s.binary && c.binary()
	}
	s.schema.Seal()
	s.keys = s.schema.Keys()
	found := 0
	for _, f := range s.schema.Fields {
		if f.Key > 0 {
			found++
		}
	}
	if found != len(key) {
		return nil, fmt.Errorf("the key of %s has a column that is not published", name.Local())
	}
	return s, nil
}
