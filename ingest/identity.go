package ingest

import (
	"context"
	"fmt"
	"strings"

	"github.com/sluice-data/sluice/record"
)

// sameKey refuses a schema with another key than the records before it, unless
// a backfill begins. Sinks find the row of a record by its key, and its topic
// partition comes from it: after a change of the key they would keep old rows
// beside the new ones, and order per key would be lost (invariant 4). The key
// is remembered beside the checkpoint, because it may change while nothing runs.
func (s *protected) sameKey(ctx context.Context, in *record.Schema) error {
	checkpoint := "key/" + s.name.Local()
	if s.identity == nil {
		data, err := s.p.LoadCheckpoint(ctx, checkpoint)
		if err != nil {
			return fmt.Errorf("load the known key: %w", err)
		}
		text := string(data)
		s.identity = &text
	}
	now := identityOf(in)
	if now != *s.identity {
		if *s.identity != "" && !s.rekey {
			return fmt.Errorf("the key of %s was (%s) and is (%s): rows under the old key have to be loaded anew",
				s.name.Local(), *s.identity, now)
		}
		if err := s.p.SaveCheckpoint(ctx, checkpoint, []byte(now)); err != nil {
			return fmt.Errorf("save the known key: %w", err)
		}
		s.identity = &now
	}
	s.rekey = false
	return nil
}

// identityOf names the key fields in key order with what the canonical form of
// their values depends on.
func identityOf(in *record.Schema) string {
	keys := in.Keys()
	if len(keys) == 0 {
		return "none"
	}
	var b strings.Builder
	for i, k := range keys {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%q %s", in.Fields[k].Name, keyKind(in.Fields[k].Kind))
	}
	return b.String()
}

// keyKind is one kind for those whose equal values are equal keys: a column
// that only grows keeps its keys.
func keyKind(k record.Kind) record.Kind {
	switch k {
	case record.Int16, record.Int32:
		return record.Int64
	case record.Float32:
		return record.Float64
	case record.Decimal:
		return record.DecimalText
	case record.Enum:
		return record.Text
	}
	return k
}
