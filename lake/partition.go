package lake

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow/decimal128"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/table"
	"github.com/google/uuid"
	"github.com/sluice-data/sluice/record"
)

var transformCall = regexp.MustCompile(`^\s*(?:(\w+)\(\s*(?:(\d+)\s*,\s*)?(.+?)\s*(?:,\s*(\d+)\s*)?\)|(.+?))\s*$`)

// parsePartitionBy reads day(created_at), bucket(16, id), truncate(4, name),
// hour, month, year and plain columns.
func parsePartitionBy(by []string, sc *iceberg.Schema) (iceberg.PartitionSpec, error) {
	fields := make([]iceberg.PartitionField, 0, len(by))
	for i, text := range by {
		column, name, transform, err := parseTransform(text)
		if err != nil {
			return iceberg.PartitionSpec{}, err
		}
		f, ok := sc.FindFieldByName(column)
		if !ok {
			return iceberg.PartitionSpec{}, fmt.Errorf("partition_by %q: no column %s", text, column)
		}
		if !transform.CanTransform(f.Type) {
			return iceberg.PartitionSpec{}, fmt.Errorf("partition_by %q: not possible with a column of type %s", text, f.Type)
		}
		// Explicit field ids: some catalogs cannot number them.
		fields = append(fields, iceberg.PartitionField{SourceIDs: []int{f.ID}, FieldID: 1000 + i, Name: name, Transform: transform})
	}
	return iceberg.NewPartitionSpec(fields...), nil
}

func parseTransform(text string) (column, name string, _ iceberg.Transform, err error) {
	bad := func(why string) (string, string, iceberg.Transform, error) {
		return "", "", nil, fmt.Errorf("partition_by %q: %s; want day(created_at), bucket(16, id), truncate(4, name) or a column", text, why)
	}
	m := transformCall.FindStringSubmatch(text)
	if m == nil {
		return bad("not understood")
	}
	if m[5] != "" {
		return m[5], m[5], iceberg.IdentityTransform{}, nil
	}
	verb, column, n := strings.ToLower(m[1]), m[3], m[2]+m[4]
	spec := verb
	switch verb {
	case "year", "month", "day", "hour", "identity":
		if n != "" {
			return bad(verb + " takes no number")
		}
		name = column + "_" + verb
		if verb == "identity" {
			name = column
		}
	case "years", "months", "days", "hours":
		return parseTransform(strings.TrimSuffix(verb, "s") + "(" + column + ")")
	case "bucket", "truncate":
		if n == "" {
			return bad(verb + " needs a number")
		}
		spec, name = verb+"["+n+"]", column+"_"+map[string]string{"bucket": "bucket", "truncate": "trunc"}[verb]
	default:
		return bad("unknown transform " + verb)
	}
	transform, err := iceberg.ParseTransform(spec)
	if err != nil {
		return bad(err.Error())
	}
	return column, name, transform, nil
}

// ValidatePartitionBy and ValidateSortBy report mistakes that show without a table.
func ValidatePartitionBy(by []string) error {
	for _, text := range by {
		if _, _, _, err := parseTransform(text); err != nil {
			return err
		}
	}
	return nil
}

// parseSortBy reads "id" and "created_at desc".
func parseSortBy(by []string, sc *iceberg.Schema) (table.SortOrder, error) {
	if len(by) == 0 {
		return table.UnsortedSortOrder, nil
	}
	var fields []table.SortField
	for _, text := range by {
		column, desc := parseSort(text)
		f, ok := sc.FindFieldByName(column)
		if !ok {
			return table.SortOrder{}, fmt.Errorf("sort_by %q: no column %s", text, column)
		}
		if !isPrimitive(f.Type) {
			return table.SortOrder{}, fmt.Errorf("sort_by %q: a column of type %s has no order", text, f.Type)
		}
		s := table.SortField{SourceIDs: []int{f.ID}, Transform: iceberg.IdentityTransform{}, Direction: table.SortASC, NullOrder: table.NullsFirst}
		if desc {
			s.Direction, s.NullOrder = table.SortDESC, table.NullsLast
		}
		fields = append(fields, s)
	}
	return table.NewSortOrder(1, fields)
}

func parseSort(text string) (column string, desc bool) {
	words := strings.Fields(text)
	if n := len(words); n > 1 {
		switch strings.ToLower(words[n-1]) {
		case "desc":
			return strings.Join(words[:n-1], " "), true
		case "asc":
			return strings.Join(words[:n-1], " "), false
		}
	}
	return strings.TrimSpace(text), false
}

type sortColumn struct {
	field int
	desc  bool
}

func sortColumns(by []string, p *plan) []sortColumn {
	var out []sortColumn
	for _, text := range by {
		name, desc := parseSort(text)
		for i := range p.fields {
			if p.file.Field(i).Name == name {
				out = append(out, sortColumn{field: p.fields[i], desc: desc})
			}
		}
	}
	return out
}

// compareCells orders two cells of a column; missing ones come first.
func compareCells(v, u *record.Vector, f *record.Field, i, j int) int {
	if a, b := v.State[i] == record.Present, u.State[j] == record.Present; !a || !b {
		switch {
		case a:
			return 1
		case b:
			return -1
		}
		return 0
	}
	switch f.Kind {
	case record.Bool:
		return cmp.Compare(v.Fixed[i], u.Fixed[j])
	case record.Int16:
		return cmp.Compare(v.Int16At(i), u.Int16At(j))
	case record.Int32, record.Date:
		return cmp.Compare(v.Int32At(i), u.Int32At(j))
	case record.Int64, record.Time, record.Timestamp, record.TimestampTZ:
		return cmp.Compare(v.Int64At(i), u.Int64At(j))
	case record.Float32:
		return cmp.Compare(v.Float32At(i), u.Float32At(j))
	case record.Float64:
		return cmp.Compare(v.Float64At(i), u.Float64At(j))
	case record.Decimal:
		h1, l1 := v.DecimalAt(i)
		h2, l2 := u.DecimalAt(j)
		return cmp.Or(cmp.Compare(h1, h2), cmp.Compare(l1, l2))
	case record.UUID:
		return slices.Compare(v.FixedAt(i, 16), u.FixedAt(j, 16))
	case record.Array:
		return 0
	}
	return slices.Compare(v.Value(i), u.Value(j))
}

// partitioner computes the partition of rows.
type partitioner struct {
	spec   iceberg.PartitionSpec
	fields []partitionField
}

type partitionField struct {
	id        int // of the partition field
	field     int // of the batch; -1 = rows of this schema have no such column
	typ       iceberg.Type
	transform iceberg.Transform
	memo      map[string]any // transformed values by the bytes of the cell, bounded
}

// tuple is a partition: its values by partition field id, nil for null.
type tuple struct {
	key    string // equal tuples have equal keys
	values map[int]any
}

func newPartitioner(spec iceberg.PartitionSpec, p *plan) (partitioner, error) {
	out := partitioner{spec: spec}
	for _, f := range spec.Fields() {
		pf := partitionField{id: f.FieldID, field: -1, transform: f.Transform, memo: map[string]any{}}
		for i := range p.fields {
			if p.file.Field(i).ID == f.SourceID() {
				pf.field, pf.typ = p.fields[i], p.file.Field(i).Type
			}
		}
		if pf.field < 0 {
			for i := len(p.fields); i < p.file.NumFields(); i++ {
				if p.file.Field(i).ID == f.SourceID() {
					return out, fmt.Errorf("partition_by %s: the changelog's own columns cannot partition a table", p.file.Field(i).Name)
				}
			}
		}
		out.fields = append(out.fields, pf)
	}
	return out, nil
}

const memoLimit = 4096

// of returns the partition of a row whose cells cell gives, by field.
func (p *partitioner) of(fields []record.Field, cell func(field int) (*record.Vector, int)) (tuple, error) {
	t := tuple{values: make(map[int]any, len(p.fields))}
	var key strings.Builder
	for k := range p.fields {
		f := &p.fields[k]
		t.values[f.id] = nil
		if f.field < 0 {
			key.WriteString("-;")
			continue
		}
		v, i := cell(f.field)
		if v.State[i] != record.Present {
			key.WriteString("-;")
			continue
		}
		raw := cellBytes(v, &fields[f.field], i)
		value, ok := f.memo[string(raw)]
		if !ok {
			lit, err := literal(v, &fields[f.field], f.typ, i)
			if err != nil {
				return t, err
			}
			if out := f.transform.Apply(iceberg.Optional[iceberg.Literal]{Val: lit, Valid: true}); out.Valid {
				value = out.Val.Any()
			}
			if len(f.memo) >= memoLimit {
				clear(f.memo)
			}
			f.memo[string(raw)] = value
		}
		t.values[f.id] = value
		fmt.Fprintf(&key, "%v;", value)
	}
	t.key = key.String()
	return t, nil
}

func cellBytes(v *record.Vector, f *record.Field, i int) []byte {
	if w := f.Kind.Width(); w > 0 {
		return v.FixedAt(i, w)
	}
	return v.Value(i)
}

// literal returns a present cell as a value of the column's type.
func literal(v *record.Vector, f *record.Field, typ iceberg.Type, i int) (iceberg.Literal, error) {
	number := func(x int64) iceberg.Literal {
		if typ.Equals(iceberg.PrimitiveTypes.Int32) {
			return iceberg.NewLiteral(int32(x))
		}
		return iceberg.NewLiteral(x)
	}
	switch f.Kind {
	case record.Bool:
		return iceberg.NewLiteral(v.Fixed[i] == 1), nil
	case record.Int16:
		return number(int64(v.Int16At(i))), nil
	case record.Int32:
		return number(int64(v.Int32At(i))), nil
	case record.Int64:
		return number(v.Int64At(i)), nil
	case record.Float32:
		if typ.Equals(iceberg.PrimitiveTypes.Float64) {
			return iceberg.NewLiteral(float64(v.Float32At(i))), nil
		}
		return iceberg.NewLiteral(v.Float32At(i)), nil
	case record.Float64:
		return iceberg.NewLiteral(v.Float64At(i)), nil
	case record.Date:
		return iceberg.NewLiteral(iceberg.Date(v.Int32At(i))), nil
	case record.Timestamp, record.TimestampTZ:
		return iceberg.NewLiteral(iceberg.Timestamp(v.Int64At(i))), nil
	case record.UUID:
		return iceberg.NewLiteral(uuid.UUID(v.FixedAt(i, 16))), nil
	case record.Decimal:
		hi, lo := v.DecimalAt(i)
		return iceberg.NewLiteral(iceberg.Decimal{Val: decimal128.New(hi, lo), Scale: f.Scale}), nil
	case record.Time:
		var buf [16]byte
		return iceberg.NewLiteral(string(appendTime(buf[:0], v.Int64At(i)))), nil
	case record.Bytes:
		return iceberg.NewLiteral(slices.Clone(v.Value(i))), nil
	case record.Array:
		return nil, fmt.Errorf("column %s: a list does not partition a table", f.Name)
	}
	return iceberg.NewLiteral(string(v.Value(i))), nil
}

// tupleOf returns the partition that a manifest gives for a data file.
func tupleOf(values map[int]any) tuple {
	var key strings.Builder
	for _, id := range slices.Sorted(maps.Keys(values)) {
		switch v := values[id].(type) {
		case nil:
			key.WriteString("-;")
		case float64:
			fmt.Fprintf(&key, "%x;", math.Float64bits(v))
		case []byte:
			fmt.Fprintf(&key, "%x;", v)
		default:
			fmt.Fprintf(&key, "%v;", v)
		}
	}
	return tuple{key: key.String(), values: values}
}
