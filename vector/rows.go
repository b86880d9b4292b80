package vector

import (
	"context"
	"encoding/json"
	"slices"
	"strings"

	"github.com/sluice-data/sluice/record"
	"github.com/sluice-data/sluice/vector/parse"
	"github.com/sluice-data/sluice/vector/store"
)

// change is what a batch says about one document.
type change struct {
	row     int // its reject's place in the batch: the newest row that speaks of it
	key     [32]byte
	doc     store.Document
	known   store.Known
	sha     []byte // of the content as the source declares it; may be nil
	body    []byte // with hasBody
	object  string
	etag    string
	size    int64
	mime    string
	hasBody bool // body or object was sent
	gone    bool // neither body nor object: the source could not give any

	fields  map[string]json.RawMessage // text fields of a record that were sent
	deleted bool

	reject *record.Reject
	skip   bool // superseded by what is stored
}

// columns finds the cells of a batch by name.
type columns struct {
	b *record.Batch
}

// cell returns the vector of a field if the row has a value or a null in it.
func (c columns) cell(name string, row int) (v *record.Vector, null, sent bool) {
	i := c.b.Schema.Index(name)
	if i < 0 {
		return nil, false, false
	}
	v = c.b.After[i]
	switch v.State[row] {
	case record.Present:
		return v, false, true
	case record.Null:
		return v, true, true
	}
	return v, false, false
}

// text returns a text cell: nil if it was not sent, empty for null.
func (c columns) text(name string, row int) *string {
	v, null, sent := c.cell(name, row)
	if !sent {
		return nil
	}
	s := ""
	if !null && c.b.Schema.Fields[c.b.Schema.Index(name)].Kind.Width() == 0 {
		s = string(v.Value(row))
	}
	return &s
}

// data returns the bytes of a cell; nil for null. They alias the batch.
func (c columns) data(name string, row int) (value []byte, sent bool) {
	v, null, sent := c.cell(name, row)
	if !sent || null {
		return nil, sent
	}
	if c.b.Schema.Fields[c.b.Schema.Index(name)].Kind.Width() != 0 {
		return nil, false
	}
	return v.Value(row), true
}

// takeFiles takes rows of a source of files.
func (s *Sink) takeFiles(ctx context.Context, b *record.Batch) (taken, error) {
	return s.documents(ctx, b, func(row int) change {
		cols := columns{b}
		c := change{row: row}
		if id := cols.text("path", row); id != nil {
			c.doc.ID = *id
		}
		if b.Ops[row] == record.OpDelete {
			c.deleted = true
			return c
		}
		c.doc.Title, c.doc.URI, c.doc.Mime = cols.text("title", row), cols.text("uri", row), cols.text("mime", row)
		if c.doc.Title != nil && *c.doc.Title == "" {
			c.doc.Title = nil // the one in the content stays
		}
		if c.doc.Mime != nil {
			c.mime = *c.doc.Mime
		}
		c.doc.Meta, _ = cols.data("metadata", row)
		c.sha, _ = cols.data("sha256", row)
		if v, null, sent := cols.cell("size", row); sent && !null && b.Schema.Fields[b.Schema.Index("size")].Kind == record.Int64 {
			c.size = v.Int64At(row)
		}
		body, bodySent := cols.data("body", row)
		object, objectSent := cols.data("object", row)
		switch {
		case bodySent && body != nil:
			c.body, c.hasBody = body, true
		case objectSent && len(object) > 0:
			c.object, c.hasBody = string(object), true
			if etag := cols.text("object_etag", row); etag != nil {
				c.etag = *etag
			}
		case bodySent || objectSent:
			c.gone = true
		}
		if raw, sent := cols.data("acl", row); sent {
			acl := store.ParseACL(raw, s.st.Identity)
			c.doc.ACL = &acl
		}
		return c
	})
}

// takeRecords takes rows whose text fields are documents.
func (s *Sink) takeRecords(ctx context.Context, b *record.Batch) (taken, error) {
	f := s.st.Fields
	return s.documents(ctx, b, func(row int) change {
		c := change{row: row, fields: map[string]json.RawMessage{}}
		c.doc.ID = keyText(b, row)
		if b.Ops[row] == record.OpDelete {
			c.deleted = true
			return c
		}
		spell := func(name string) json.RawMessage {
			i := b.Schema.Index(name)
			if i < 0 || b.After[i].State[row] == record.Unsent {
				return nil
			}
			return record.AppendJSON(nil, &b.Schema.Fields[i], b.After[i], row)
		}
		for _, name := range f.Text {
			if v := spell(name); v != nil {
				c.fields[name] = v
			} else if b.Schema.Index(name) < 0 {
				c.fields[name] = json.RawMessage("null") // the column is gone
			}
		}
		if f.Title != "" {
			if v := spell(f.Title); v != nil {
				title := plainText(v)
				c.doc.Title = &title
			}
		}
		meta := map[string]json.RawMessage{}
		for _, name := range f.Metadata {
			if v := spell(name); v != nil {
				meta[name] = v
			}
		}
		if raw, err := json.Marshal(meta); err == nil && len(f.Metadata) > 0 {
			c.doc.Meta = raw
		}
		if f.ACL != "" {
			if v := spell(f.ACL); v != nil {
				acl := recordACL(v, s.st.Identity)
				c.doc.ACL = &acl
			}
		}
		return c
	})
}

// keyText names a record by its key: the value itself if there is one, else a JSON array.
func keyText(b *record.Batch, row int) string {
	keys := b.Schema.Keys()
	var all []json.RawMessage
	for _, i := range keys {
		all = append(all, record.AppendJSON(nil, &b.Schema.Fields[i], b.After[i], row))
	}
	if len(all) == 1 {
		return plainText(all[0])
	}
	out, err := json.Marshal(all)
	if err != nil {
		return ""
	}
	return string(out)
}

// plainText returns the text of a JSON value: of a string what it says, of null nothing.
func plainText(raw json.RawMessage) string {
	var s string
	if json.Unmarshal(raw, &s) == nil {
		return s
	}
	if string(raw) == "null" {
		return ""
	}
	return string(raw)
}

// recordACL reads an ACL, or a list of those who are allowed.
func recordACL(raw json.RawMessage, identity string) store.ACL {
	var inner string
	if json.Unmarshal(raw, &inner) == nil { // JSON in a column of text
		raw = json.RawMessage(inner)
	}
	var list []string
	if json.Unmarshal(raw, &list) == nil && list != nil {
		wrapped, err := json.Marshal(map[string][]string{"allow": list})
		if err != nil {
			return store.ACL{}
		}
		raw = wrapped
	}
	return store.ParseACL(raw, identity)
}

// recordDocument makes a document of the text fields.
func recordDocument(title string, order []string, fields map[string]json.RawMessage) *parse.Document {
	d := &parse.Document{Format: parse.FormatText, Title: title}
	var text strings.Builder
	for _, name := range order {
		value := strings.ToValidUTF8(strings.ReplaceAll(plainText(fields[name]), "\x00", ""), "\uFFFD")
		for _, p := range strings.Split(strings.ReplaceAll(value, "\r\n", "\n"), "\n\n") {
			if strings.TrimSpace(p) == "" {
				continue
			}
			if text.Len() > 0 {
				text.WriteString("\n\n")
			}
			start := text.Len()
			text.WriteString(p)
			d.Blocks = append(d.Blocks, parse.Block{Kind: parse.Paragraph, Start: start, End: text.Len()})
		}
	}
	d.Text = text.String()
	return d
}

// fates tells what becomes of each row of a batch: delivered unless something else is said, once (invariant 5).
type fates struct {
	rejects    []record.Reject
	decided    []bool
	superseded int
}

func newFates(rows int) *fates { return &fates{decided: make([]bool, rows)} }

func (f *fates) supersede(row int) {
	if !f.decided[row] {
		f.decided[row] = true
		f.superseded++
	}
}

func (f *fates) reject(r record.Reject) {
	if !f.decided[r.Row] {
		f.decided[r.Row] = true
		f.rejects = append(f.rejects, r)
	}
}

// taken sums up; rejects are in the order of their rows.
func (f *fates) taken(b *record.Batch) taken {
	slices.SortFunc(f.rejects, func(a, b record.Reject) int { return a.Row - b.Row })
	return taken{rejects: f.rejects, superseded: f.superseded, bytes: b.Bytes()}
}

// latest keeps of each key the newest item, and says which rows that makes moot.
type latest[T any] struct {
	items []T
	rows  []int
	at    map[string]int
}

func (l *latest[T]) put(key string, row int, item T, f *fates) {
	if l.at == nil {
		l.at = map[string]int{}
	}
	if i, ok := l.at[key]; ok {
		f.supersede(l.rows[i])
		l.items[i], l.rows[i] = item, row
		return
	}
	l.at[key] = len(l.items)
	l.items, l.rows = append(l.items, item), append(l.rows, row)
}

func (l *latest[T]) settle(out []store.Outcome, f *fates) {
	for i, o := range out {
		if o == store.Stale {
			f.supersede(l.rows[i])
		}
	}
}

// takePermissions takes rows that say who may see a document.
func (s *Sink) takePermissions(ctx context.Context, b *record.Batch) (taken, error) {
	cols, f := columns{b}, newFates(b.Len())
	var l latest[store.Permission]
	for row := range b.Ops {
		id := keyText(b, row)
		p := store.Permission{Tenant: s.st.Tenant, Stream: s.st.Of, ID: id, Part: b.Partition.Partition, Version: store.VersionOf(b.Pos[row], b.Offsets[row])}
		if raw, sent := cols.data("acl", row); sent && b.Ops[row] != record.OpDelete {
			p.ACL = store.ParseACL(raw, s.st.Identity)
		}
		l.put(id, row, p, f)
	}
	out, err := s.x.store.Permit(ctx, l.items)
	l.settle(out, f)
	return f.taken(b), err
}

// takeGroups takes rows that say who is in a group.
func (s *Sink) takeGroups(ctx context.Context, b *record.Batch) (taken, error) {
	cols, f := columns{b}, newFates(b.Len())
	var l latest[store.Group]
	for row := range b.Ops {
		name := strings.TrimPrefix(keyText(b, row), "group:")
		g := store.Group{Identity: s.st.Identity, Name: name, Part: b.Partition.Partition, Version: store.VersionOf(b.Pos[row], b.Offsets[row])}
		if raw, sent := cols.data("members", row); sent && b.Ops[row] != record.OpDelete && json.Unmarshal(raw, &g.Members) != nil {
			g.Members = nil // a group that cannot be read has nobody in it
			f.reject(record.Reject{Row: row, Code: "members_invalid", Reason: "members: want a JSON array of principals"})
		}
		l.put(name, row, g, f)
	}
	out, err := s.x.store.PutGroups(ctx, l.items)
	l.settle(out, f)
	return f.taken(b), err
}
