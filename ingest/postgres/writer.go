package postgres

import (
	"fmt"
	"sync"

	"github.com/sluice-data/sluice/record"
)

// writer collects rows of one shape into batches. One goroutine uses it.
type writer struct {
	shape *shape
	batch *record.Batch // nil until the first row
	old   bool          // batches have Before vectors
	bytes int           // on the wire
	pool  *sync.Pool
}

func newWriter(s *shape) *writer { return &writer{shape: s, pool: &sync.Pool{}} }

// clone returns a shape that another goroutine may use.
func (s *shape) clone() *shape {
	c := *s
	c.codecs = make([]*codec, len(s.codecs))
	for i, k := range s.codecs {
		c.codecs[i] = k.clone()
	}
	return &c
}

func (c *codec) clone() *codec {
	k := *c
	k.unquot = nil
	if c.elem != nil {
		k.elem = c.elem.clone()
	}
	return &k
}

// open readies the batch for a row.
func (w *writer) open() *record.Batch {
	if w.batch != nil {
		return w.batch
	}
	if b, ok := w.pool.Get().(*record.Batch); ok {
		b.Reset()
		w.batch = b
		return b
	}
	pool := w.pool
	w.batch = record.NewBatch(w.shape.schema, func(b *record.Batch) { pool.Put(b) })
	if w.old {
		w.batch.Before = make([]*record.Vector, len(w.shape.codecs))
		for i := range w.shape.schema.Fields {
			w.batch.Before[i] = record.NewVector(&w.shape.schema.Fields[i])
		}
	}
	return w.batch
}

// take returns the batch and starts another one.
func (w *writer) take() *record.Batch {
	b := w.batch
	w.batch, w.bytes = nil, 0
	return b
}

// head appends what every row has.
func (w *writer) head(op record.Op, pos record.Position, micros int64) *record.Batch {
	b := w.open()
	b.Ops = append(b.Ops, op)
	b.Pos = append(b.Pos, pos)
	b.Time = append(b.Time, micros)
	return b
}

// row appends a row of a query; kinds says per column how its values are written.
// An error means that the stream cannot be trusted any more.
func (w *writer) row(op record.Op, pos record.Position, micros int64, kinds []byte, values [][]byte) error {
	b := w.head(op, pos, micros)
	for i, c := range w.shape.codecs {
		kind := kinds[i]
		if values[i] == nil {
			kind = 'n'
		}
		if r := c.appendCell(b.After[i], kind, values[i]); r != nil {
			if err := w.refuse(b, c, r); err != nil {
				return err
			}
		}
		w.bytes += len(values[i])
	}
	return nil
}

// refuse notes that the newest row of b has a value that cannot go on.
func (w *writer) refuse(b *record.Batch, c *codec, r *refusal) error {
	if r.fatal {
		return fmt.Errorf("read column %s of type %s: a value %s", c.field.Name, c.field.SourceType, r.reason)
	}
	row := b.Len() - 1
	if n := len(b.Rejects); n == 0 || b.Rejects[n-1].Row != row {
		b.Rejects = append(b.Rejects, record.Reject{Row: row, Code: r.code, Reason: c.field.Name + " " + r.reason})
	}
	return nil
}

// tuple appends a row of the log. Cells that are missing in cells are unsent.
func (w *writer) tuple(op record.Op, pos record.Position, micros int64, cells []cell) error {
	b := w.head(op, pos, micros)
	if len(cells) != len(w.shape.codecs) {
		return fmt.Errorf("a row has %d columns, its table %d", len(cells), len(w.shape.codecs))
	}
	for i, c := range w.shape.codecs {
		if r := c.appendCell(b.After[i], cells[i].kind, cells[i].data); r != nil {
			if err := w.refuse(b, c, r); err != nil {
				return err
			}
		}
		w.bytes += len(cells[i].data)
	}
	return nil
}

// remove appends a delete: the key cells of the old row, the rest unsent.
func (w *writer) remove(pos record.Position, micros int64, cells []cell) error {
	b := w.head(record.OpDelete, pos, micros)
	if len(cells) != len(w.shape.codecs) {
		return fmt.Errorf("a row has %d columns, its table %d", len(cells), len(w.shape.codecs))
	}
	for i, c := range w.shape.codecs {
		kind := cells[i].kind
		if c.field.Key == 0 {
			kind = 'u'
		}
		if r := c.appendCell(b.After[i], kind, cells[i].data); r != nil {
			if err := w.refuse(b, c, r); err != nil {
				return err
			}
		}
		w.bytes += len(cells[i].data)
	}
	return nil
}

// before appends the old row of the newest row, nil if the log has none. Values
// in it that cannot go on are unsent: the old row only informs.
func (w *writer) before(cells []cell) {
	if !w.old {
		return
	}
	for i, c := range w.shape.codecs {
		v := w.batch.Before[i]
		if cells == nil {
			v.AppendMissing(record.Unsent, c.width)
			continue
		}
		c.appendCell(v, cells[i].kind, cells[i].data)
	}
}
