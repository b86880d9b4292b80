package record

import (
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"
)

// Kind is the logical type of a field. The lattice is lossless: what a kind
// cannot hold is rejected with a reason, never rounded or clamped.
type Kind uint8

// The kinds and how a Vector holds their values (little endian).
const (
	Bool        Kind = 1 + iota // Fixed, 1 byte: 0 or 1
	Int16                       // Fixed, 2 bytes
	Int32                       // Fixed, 4 bytes
	Int64                       // Fixed, 8 bytes
	Float32                     // Fixed, 4 bytes
	Float64                     // Fixed, 8 bytes
	Decimal                     // Fixed, 16 bytes: two's complement of value × 10^Scale, 1 ≤ Precision ≤ 38
	DecimalText                 // Data: exact decimal digits of any size, NaN, Infinity, -Infinity
	Text                        // Data: UTF-8
	Bytes                       // Data
	Date                        // Fixed, 4 bytes: days since 1970-01-01 (int32); ±infinity = MaxInt32 / MinInt32
	Time                        // Fixed, 8 bytes: µs since midnight, 24:00:00 allowed
	Timestamp                   // Fixed, 8 bytes: µs since 1970-01-01 00:00:00, no zone; ±infinity = MaxInt64 / MinInt64
	TimestampTZ                 // Fixed, 8 bytes: µs since 1970-01-01 00:00:00 UTC; ±infinity as Timestamp
	UUID                        // Fixed, 16 bytes, in the order of its text
	JSON                        // Data: one valid JSON document
	Enum                        // Data: UTF-8 label
	Array                       // Offs into Child: a one-dimensional list of Elem; elements may be null
)

var kindNames = [...]string{Bool: "bool", Int16: "int16", Int32: "int32", Int64: "int64", Float32: "float32",
	Float64: "float64", Decimal: "decimal", DecimalText: "decimaltext", Text: "text", Bytes: "bytes", Date: "date",
	Time: "time", Timestamp: "timestamp", TimestampTZ: "timestamptz", UUID: "uuid", JSON: "json", Enum: "enum", Array: "array"}

// String returns the name of k as it is written in schemas, such as "timestamptz".
func (k Kind) String() string {
	if k > 0 && int(k) < len(kindNames) {
		return kindNames[k]
	}
	return fmt.Sprintf("kind(%d)", uint8(k))
}

// ParseKind reads the form that String writes.
func ParseKind(s string) (Kind, error) {
	for k, n := range kindNames {
		if n == s && n != "" {
			return Kind(k), nil
		}
	}
	return 0, fmt.Errorf("unknown type %q", s)
}

// MarshalText and UnmarshalText make a Kind readable in JSON.
func (k Kind) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads what MarshalText writes.
func (k *Kind) UnmarshalText(b []byte) error {
	p, err := ParseKind(string(b))
	*k = p
	return err
}

// Width returns the bytes of one value in Vector.Fixed; 0 for kinds of variable size and arrays.
func (k Kind) Width() int {
	switch k {
	case Bool:
		return 1
	case Int16:
		return 2
	case Int32, Float32, Date:
		return 4
	case Int64, Float64, Time, Timestamp, TimestampTZ:
		return 8
	case Decimal, UUID:
		return 16
	}
	return 0
}

// Field is one column of a stream.
type Field struct {
	Name       string `json:"name"`
	Kind       Kind   `json:"type"`
	Precision  int    `json:"precision,omitempty"` // Decimal: all digits, 1 to 38
	Scale      int    `json:"scale,omitempty"`     // Decimal: digits after the point, 0 to Precision
	Elem       *Field `json:"elem,omitempty"`      // Array: its element type; Name is "element"
	Nullable   bool   `json:"nullable"`
	Key        int    `json:"key,omitempty"`         // 1-based place in the primary key; 0 = not a key column
	SourceType string `json:"source_type,omitempty"` // as the source spells it: "numeric(10,2)"
	Tags       string `json:"tags,omitempty"`        // labels that rules select fields by, with commas between them: "pii"
}

// Tagged reports whether f has the tag, in any case.
func (f *Field) Tagged(tag string) bool {
	for t := range strings.SplitSeq(f.Tags, ",") {
		if tag != "" && strings.EqualFold(strings.TrimSpace(t), tag) {
			return true
		}
	}
	return false
}

// Schema describes the rows of one stream at one point of its life. It is
// immutable once shared; ID identifies it everywhere.
type Schema struct {
	Stream StreamName `json:"stream"`
	Fields []Field    `json:"fields"`
	ID     string     `json:"id"` // hash of stream and fields, see Seal

	// Mapping names the rules that the rows have gone through: the version of
	// the protect rules, behind a + that of the shape rules. It is no part of
	// the ID: rules may change and the schema stay the same. Empty = no rules.
	Mapping string `json:"mapping,omitempty"`
}

// StreamName names one table, endpoint or folder of one source.
type StreamName struct {
	Source    string `json:"source"`           // name of the source in the configuration: shop-db
	Namespace string `json:"schema,omitempty"` // Postgres schema; empty where the source has none
	Name      string `json:"name"`             // table, endpoint or folder
}

// String returns source.schema.table, quoting parts that hold dots, capitals or quotes.
func (n StreamName) String() string {
	if n.Namespace == "" {
		return quotePart(n.Source) + "." + quotePart(n.Name)
	}
	return quotePart(n.Source) + "." + quotePart(n.Namespace) + "." + quotePart(n.Name)
}

// Local returns the name without its source: schema.table.
func (n StreamName) Local() string {
	if n.Namespace == "" {
		return quotePart(n.Name)
	}
	return quotePart(n.Namespace) + "." + quotePart(n.Name)
}

func quotePart(s string) string {
	plain := s != "" && strings.IndexFunc(s, func(r rune) bool {
		return r == '.' || r == '"' || r != '_' && r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && r < 128
	}) < 0
	if plain {
		return s
	}
	return `"` + strings.ReplaceAll(s, `"`, `""`) + `"`
}

// ParseStreamName reads source.schema.table or source.name; parts may be quoted as in SQL.
func ParseStreamName(s string) (StreamName, error) {
	var parts []string
	for rest := s; ; {
		var part string
		if strings.HasPrefix(rest, `"`) {
			var b strings.Builder
			i := 1
			for {
				if i >= len(rest) {
					return StreamName{}, fmt.Errorf("stream %q: a quote is not closed", s)
				}
				if rest[i] == '"' {
					if i+1 < len(rest) && rest[i+1] == '"' {
						b.WriteByte('"')
						i += 2
						continue
					}
					break
				}
				b.WriteByte(rest[i])
				i++
			}
			part, rest = b.String(), rest[i+1:]
		} else if i := strings.IndexByte(rest, '.'); i >= 0 {
			part, rest = rest[:i], rest[i:]
		} else {
			part, rest = rest, ""
		}
		if part == "" {
			return StreamName{}, fmt.Errorf("stream %q: a part is empty; want source.schema.table", s)
		}
		parts = append(parts, part)
		if rest == "" {
			break
		}
		if rest[0] != '.' {
			return StreamName{}, fmt.Errorf("stream %q: want a dot after %q", s, part)
		}
		rest = rest[1:]
	}
	switch len(parts) {
	case 2:
		return StreamName{Source: parts[0], Name: parts[1]}, nil
	case 3:
		return StreamName{Source: parts[0], Namespace: parts[1], Name: parts[2]}, nil
	}
	return StreamName{}, fmt.Errorf("stream %q has %d parts; want source.schema.table", s, len(parts))
}

// Seal computes ID from the stream and its fields and returns s. Call it once
// after the last change; equal schemas get equal IDs in every process.
func (s *Schema) Seal() *Schema {
	h := fnv.New64a()
	w := func(v string) { h.Write([]byte(strconv.Itoa(len(v)))); h.Write([]byte{':'}); h.Write([]byte(v)) }
	w(s.Stream.String())
	for i := range s.Fields {
		for f := &s.Fields[i]; f != nil; f = f.Elem {
			w(f.Name)
			w(fmt.Sprint(f.Kind, f.Precision, f.Scale, f.Nullable, f.Key, f.SourceType))
			if f.Tags != "" { // without tags the ID is what it was before there were any
				w("tags " + f.Tags)
			}
		}
	}
	s.ID = fmt.Sprintf("%016x", h.Sum64())
	return s
}

// Index returns the place of the named field, -1 if there is none.
func (s *Schema) Index(name string) int {
	for i := range s.Fields {
		if s.Fields[i].Name == name {
			return i
		}
	}
	return -1
}

// Keys returns the indexes of the primary key's fields in key order; empty if the stream has no key.
func (s *Schema) Keys() []int {
	n := 0
	for i := range s.Fields {
		n = max(n, s.Fields[i].Key)
	}
	keys := make([]int, n)
	for i := range s.Fields {
		if k := s.Fields[i].Key; k > 0 {
			keys[k-1] = i
		}
	}
	return keys
}
