package lake

import (
	"fmt"
	"slices"
	"strings"

	"github.com/apache/iceberg-go"
	"github.com/sluice-data/sluice/record"
)

// columnType returns the Iceberg type of a field. A kind that some of the
// engines refuse, and with it the whole table, becomes text: Spark has no
// time. JSON, enums and unbounded decimals have no Iceberg type.
func columnType(f *record.Field) (iceberg.Type, error) {
	switch f.Kind {
	case record.Bool:
		return iceberg.PrimitiveTypes.Bool, nil
	case record.Int16, record.Int32:
		return iceberg.PrimitiveTypes.Int32, nil
	case record.Int64:
		return iceberg.PrimitiveTypes.Int64, nil
	case record.Float32:
		return iceberg.PrimitiveTypes.Float32, nil
	case record.Float64:
		return iceberg.PrimitiveTypes.Float64, nil
	case record.Decimal:
		return iceberg.DecimalTypeOf(f.Precision, f.Scale), nil
	case record.DecimalText, record.Text, record.JSON, record.Enum, record.Time:
		return iceberg.PrimitiveTypes.String, nil
	case record.Bytes:
		return iceberg.PrimitiveTypes.Binary, nil
	case record.Date:
		return iceberg.PrimitiveTypes.Date, nil
	case record.Timestamp:
		return iceberg.PrimitiveTypes.Timestamp, nil
	case record.TimestampTZ:
		return iceberg.PrimitiveTypes.TimestampTz, nil
	case record.UUID:
		return iceberg.PrimitiveTypes.UUID, nil
	case record.Array:
		elem, err := columnType(f.Elem)
		if err != nil {
			return nil, err
		}
		return &iceberg.ListType{Element: elem}, nil
	}
	return nil, fmt.Errorf("column %s: no Iceberg type for %s", f.Name, f.Kind)
}

// fits reports whether a column of type have takes every value of type want.
func fits(have, want iceberg.Type) bool {
	switch h := have.(type) {
	case *iceberg.ListType:
		w, ok := want.(*iceberg.ListType)
		return ok && fits(h.Element, w.Element)
	case iceberg.Int64Type:
		return want.Equals(iceberg.PrimitiveTypes.Int32) || want.Equals(have)
	case iceberg.Float64Type:
		return want.Equals(iceberg.PrimitiveTypes.Float32) || want.Equals(have)
	case iceberg.DecimalType:
		w, ok := want.(iceberg.DecimalType)
		return ok && w.Scale() == h.Scale() && w.Precision() <= h.Precision()
	}
	return have.Equals(want)
}

// widens reports whether Iceberg lets a column of type have become want.
func widens(have, want iceberg.Type) bool {
	switch h := have.(type) {
	case iceberg.Int32Type:
		return want.Equals(iceberg.PrimitiveTypes.Int64)
	case iceberg.Float32Type:
		return want.Equals(iceberg.PrimitiveTypes.Float64)
	case iceberg.DecimalType:
		w, ok := want.(iceberg.DecimalType)
		return ok && w.Scale() == h.Scale() && w.Precision() > h.Precision()
	}
	return false
}

// identifying reports whether a column may be an identifier field: floats may not.
func identifying(t iceberg.Type) bool {
	return !t.Equals(iceberg.PrimitiveTypes.Float32) && !t.Equals(iceberg.PrimitiveTypes.Float64) && isPrimitive(t)
}

func isPrimitive(t iceberg.Type) bool {
	_, ok := t.(iceberg.PrimitiveType)
	return ok
}

// The columns that an append table has besides the stream's own: it is a
// changelog, and these say what happened, when, and in which order.
const (
	colOp        = "_op"           // read, insert, update, delete
	colEpoch     = "_epoch"        // record.Position, part by part
	colLSN       = "_lsn"          //
	colSeq       = "_seq"          //
	colCommitted = "_committed_at" // when the source committed the change
	colPartition = "_partition"    // of Kafka
	colOffset    = "_offset"       // of Kafka
)

var metaColumns = []iceberg.NestedField{
	{Name: colOp, Type: iceberg.PrimitiveTypes.String, Doc: "read, insert, update or delete"},
	{Name: colEpoch, Type: iceberg.PrimitiveTypes.Int64, Doc: "incarnation of the stream"},
	{Name: colLSN, Type: iceberg.PrimitiveTypes.Int64, Doc: "place in the source's log"},
	{Name: colSeq, Type: iceberg.PrimitiveTypes.Int64, Doc: "order inside its transaction"},
	{Name: colCommitted, Type: iceberg.PrimitiveTypes.TimestampTz, Doc: "commit time at the source"},
	{Name: colPartition, Type: iceberg.PrimitiveTypes.Int32, Doc: "Kafka partition"},
	{Name: colOffset, Type: iceberg.PrimitiveTypes.Int64, Doc: "Kafka offset"},
}

// columnNames are the table's names of the fields of s. Engines do not tell
// capitals apart: of names that differ in nothing else, the first column keeps
// its own and a later one gets __2, __3 … behind it; columns that the table sc
// has already keep theirs (nil = there is no table yet). A field called like
// one of the changelog's own columns makes room for it.
func columnNames(sc *iceberg.Schema, s *record.Schema, appends bool) []string {
	taken, natural := map[string]string{}, map[string]bool{} // by the name in small letters
	if sc != nil {
		for _, f := range sc.Fields() {
			if low := strings.ToLower(f.Name); taken[low] == "" || s.Index(f.Name) >= 0 {
				taken[low] = f.Name
			}
		}
	}
	for i := range s.Fields {
		natural[strings.ToLower(s.Fields[i].Name)] = true
	}
	names, used := make([]string, len(s.Fields)), map[string]bool{}
	for i := range s.Fields {
		base := s.Fields[i].Name
		if appends && isMeta(base) {
			base += "__source"
		}
		name := base
		for n := 2; ; n++ {
			low := strings.ToLower(name)
			free := !used[low] && (taken[low] == "" || taken[low] == name) && (name == base || !natural[low])
			if free {
				used[low] = true
				break
			}
			name = fmt.Sprintf("%s__%d", base, n)
		}
		names[i] = name
	}
	return names
}

// isMeta reports whether an engine would take name for a column of the changelog.
func isMeta(name string) bool {
	return slices.ContainsFunc(metaColumns, func(f iceberg.NestedField) bool { return strings.EqualFold(f.Name, name) })
}
