package vector

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"runtime"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/sluice-data/sluice/objects"
	"github.com/sluice-data/sluice/record"
	"github.com/sluice-data/sluice/vector/chunk"
	"github.com/sluice-data/sluice/vector/parse"
	"github.com/sluice-data/sluice/vector/store"
)

// A window is what is parsed, embedded and stored together.
const (
	windowDocuments = 256
	windowBytes     = 8 << 20
)

// writeTries is how often vectors that were collected meanwhile are made anew.
const writeTries = 5

// documents takes the rows of a batch: of each document the newest state counts.
func (s *Sink) documents(ctx context.Context, b *record.Batch, read func(row int) change) (taken, error) {
	f := newFates(b.Len())
	var order []*change
	at := map[[32]byte]*change{}
	for row := range b.Ops {
		c := read(row)
		c.doc.Tenant, c.doc.Stream, c.doc.Part = s.st.Tenant, s.stream, b.Partition.Partition
		c.doc.Version = store.VersionOf(b.Pos[row], b.Offsets[row])
		if s.fixedACL != nil {
			c.doc.ACL = s.fixedACL
		}
		if c.doc.ID == "" {
			f.reject(record.Reject{Row: row, Code: "no_key", Reason: "the record does not name its document"})
			continue
		}
		c.key = store.Key(c.doc.Tenant, c.doc.Stream, c.doc.ID)
		if old := at[c.key]; old != nil {
			f.supersede(old.row)
			c.over(old)
			*old = c
			continue
		}
		next := c
		order = append(order, &next)
		at[c.key] = &next
	}
	w := &writer{s: s, f: f}
	for len(order) > 0 {
		n, size := 0, 0
		for n < len(order) && n < windowDocuments && (n == 0 || size < windowBytes) {
			size += len(order[n].body) + 2<<10
			if order[n].object != "" {
				size += int(min(max(order[n].size, 1<<20), windowBytes))
			}
			n++
		}
		if err := s.window(ctx, order[:n], w); err != nil {
			return taken{}, errors.Join(err, w.wait())
		}
		order = order[n:]
	}
	if err := w.wait(); err != nil {
		return taken{}, err
	}
	return f.taken(b), nil
}

// writer stores one window while the next one is prepared and embedded. The windows of a batch share no document.
type writer struct {
	s       *Sink
	f       *fates // only between wait and start, or by the goroutine of start
	done    chan error
	vectors map[[32]byte][]float32 // of the window that is being stored: others can use them already
}

// wait returns once the last window is stored.
func (w *writer) wait() error {
	if w.done == nil {
		return nil
	}
	err := <-w.done
	w.done, w.vectors = nil, nil
	return err
}

// start stores documents that are embedded.
func (w *writer) start(ctx context.Context, cs []*change) {
	done := make(chan error, 1)
	w.done, w.vectors = done, map[[32]byte][]float32{}
	for _, c := range cs {
		for i := range c.doc.Chunks {
			if p := &c.doc.Chunks[i]; p.Vector != nil {
				w.vectors[p.Hash] = p.Vector
			}
		}
	}
	go func() { done <- w.s.put(ctx, cs, w.f) }()
}

// over completes c by what the older change of the same document said.
func (c *change) over(old *change) {
	if c.deleted || old.deleted {
		return
	}
	keep := func(p **string, q *string) {
		if *p == nil {
			*p = q
		}
	}
	keep(&c.doc.Title, old.doc.Title)
	keep(&c.doc.URI, old.doc.URI)
	keep(&c.doc.Mime, old.doc.Mime)
	if c.doc.Meta == nil {
		c.doc.Meta = old.doc.Meta
	}
	if c.doc.ACL == nil {
		c.doc.ACL = old.doc.ACL
	}
	if !c.hasBody && !c.gone {
		c.body, c.object, c.etag, c.size, c.sha, c.mime, c.hasBody, c.gone = old.body, old.object, old.etag, old.size, old.sha, old.mime, old.hasBody, old.gone
	}
	for name, v := range old.fields {
		if c.fields[name] == nil {
			c.fields[name] = v
		}
	}
}

// window takes documents from their changes into the store.
func (s *Sink) window(ctx context.Context, cs []*change, w *writer) error {
	keys := make([][]byte, len(cs))
	for i, c := range cs {
		keys[i] = c.key[:]
	}
	known, err := s.x.store.Lookup(ctx, keys, s.st.Holds == Records)
	if err != nil {
		return err
	}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0))
	for _, c := range cs {
		c.known = known[c.key]
		if bytes.Compare(c.known.Version[:], c.doc.Version[:]) > 0 {
			c.skip = true
			continue
		}
		g.Go(func() error { return s.prepare(gctx, c) })
	}
	if err := g.Wait(); err != nil {
		return err
	}
	if err := s.x.cfg.at("prepared"); err != nil {
		return err
	}
	if err := s.embed(ctx, cs, w.vectors); err != nil {
		return err
	}
	if err := w.wait(); err != nil {
		return err
	}
	var docs []*change
	for _, c := range cs {
		switch {
		case c.skip:
			w.f.supersede(c.row)
			continue
		case c.reject != nil:
			w.f.reject(*c.reject)
		}
		docs = append(docs, c)
	}
	if err := s.x.cfg.at("embedded"); err != nil {
		return err
	}
	w.start(ctx, docs)
	return nil
}

// prepare decides what happens to a document, and reads and cuts its text if that is new.
func (s *Sink) prepare(ctx context.Context, c *change) error {
	switch {
	case c.deleted:
		c.doc.Op = store.Remove
		return nil
	case s.st.Holds == Records:
		return s.prepareRecord(c)
	case c.gone:
		c.refuse("no_body", "the source could not give the content")
		return nil
	case !c.hasBody:
		c.doc.Op = store.Touch
		return nil
	}
	chunker := s.chunkerOf(c)
	if c.unchanged(c.sha, chunker) {
		c.doc.Op = store.Touch
		return nil
	}
	body, err := s.body(ctx, c)
	if err != nil || c.skip || c.reject != nil {
		return err
	}
	defer body.Close()
	hash := sha256.New()
	in := parse.Input{Name: c.doc.ID, Mime: c.mime, Size: -1}
	if c.object == "" {
		in.Body, in.Size = bytes.NewReader(c.body), int64(len(c.body))
		hash.Write(c.body)
		if sum := hash.Sum(nil); c.unchanged(sum, chunker) {
			c.doc.Op = store.Touch
			return nil
		}
	} else {
		in.Body = io.TeeReader(body, hash)
	}
	parsed, err := s.x.engine.Parse(ctx, in, s.x.cfg.Parse)
	if reject, ok := parse.Rejected(err); ok {
		c.refuse(string(reject.Code), reject.Reason)
		if reject.Code == parse.CodeEmpty && c.known.Live { // there is nothing to find in it any more
			c.doc.Op, c.doc.ContentSHA, c.doc.Chunker = store.Replace, c.sha, chunker
		}
		return nil
	}
	if err != nil {
		return s.bodyError(c, err)
	}
	if c.object != "" {
		// The hash is of all of it, whatever the parser left unread.
		if _, err := io.Copy(hash, body); err != nil {
			return s.bodyError(c, err)
		}
	}
	if c.sha == nil {
		c.sha = hash.Sum(nil)
	}
	if c.doc.Title == nil {
		c.doc.Title = &parsed.Title
	} else {
		parsed.Title = *c.doc.Title
	}
	s.cut(c, parsed, chunker)
	return nil
}

// unchanged reports whether the stored chunks come from the same content in the same way.
func (c *change) unchanged(sha, chunker []byte) bool {
	return sha != nil && c.known.Live && !c.known.Problem && bytes.Equal(c.known.ContentSHA, sha) && bytes.Equal(c.known.Chunker, chunker)
}

// refuse rejects the document's new content. Its old chunks stay, with the reason beside them.
func (c *change) refuse(code, reason string) {
	c.reject = &record.Reject{Row: c.row, Code: code, Reason: reason}
	c.doc.Op, c.doc.Problem, c.doc.Chunks = store.Touch, code, nil
}

// chunkerOf identifies how a document is parsed and cut, and what of it but its content goes into its chunks.
func (s *Sink) chunkerOf(c *change) []byte {
	h := sha256.New()
	h.Write(s.x.cut)
	title := ""
	if c.doc.Title != nil {
		title = *c.doc.Title
	}
	_, ext, _ := strings.Cut(c.doc.ID[strings.LastIndexByte(c.doc.ID, '/')+1:], ".")
	fmt.Fprintf(h, "%q %q %q", title, c.mime, ext)
	return h.Sum(nil)
}

// body opens the content of a document. The one that its record speaks of may be gone: then a newer record
// is on its way, and this one is superseded.
func (s *Sink) body(ctx context.Context, c *change) (io.ReadCloser, error) {
	if c.object == "" {
		return io.NopCloser(bytes.NewReader(c.body)), nil
	}
	if s.st.Bodies == nil {
		c.refuse("no_store", "the content is in a store that this sink does not know")
		return nil, nil
	}
	body, err := s.st.Bodies.Open(ctx, c.object, c.etag)
	if err != nil {
		return nil, s.bodyError(c, err)
	}
	return body, nil
}

func (s *Sink) bodyError(c *change, err error) error {
	if errors.Is(err, objects.ErrChanged) || errors.Is(err, fs.ErrNotExist) {
		c.skip = true
		return nil
	}
	return fmt.Errorf("read the content of a document of %s: %w", s.stream, err)
}

// prepareRecord makes the document of a record; fields that were not sent are as they were.
func (s *Sink) prepareRecord(c *change) error {
	var stored map[string]json.RawMessage
	if len(c.known.Fields) > 0 && c.known.Live {
		if err := json.Unmarshal(c.known.Fields, &stored); err != nil {
			return fmt.Errorf("read the stored fields of a document of %s: %w", s.stream, err)
		}
	}
	for _, name := range s.st.Fields.Text {
		if c.fields[name] != nil {
			continue
		}
		if c.fields[name] = stored[name]; c.fields[name] == nil {
			c.refuse("unsent_field", name+": the source did not send it, and no earlier value is known")
			return nil
		}
	}
	raw, err := json.Marshal(c.fields)
	if err != nil {
		return fmt.Errorf("encode the fields of a document of %s: %w", s.stream, err)
	}
	title := ""
	if c.doc.Title != nil {
		title = *c.doc.Title
	}
	c.doc.Fields = raw
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %s", title, s.st.Fields.Text, raw))
	c.sha = sum[:]
	chunker := s.chunkerOf(c)
	if c.unchanged(c.sha, chunker) {
		c.doc.Op = store.Touch
		return nil
	}
	s.cut(c, recordDocument(title, s.st.Fields.Text, c.fields), chunker)
	return nil
}

// cut makes the chunks of a document.
func (s *Sink) cut(c *change, parsed *parse.Document, chunker []byte) {
	c.doc.Op, c.doc.ContentSHA, c.doc.Chunker = store.Replace, c.sha, chunker
	for _, piece := range chunk.Split(parsed, s.x.cfg.Chunk) {
		if strings.TrimSpace(piece.EmbedText) == "" {
			continue
		}
		p := store.Chunk{Body: piece.Text, Tokens: piece.Tokens, Page: piece.Page, Start: piece.Start, End: piece.End, Heading: piece.Heading}
		if head, ok := strings.CutSuffix(piece.EmbedText, piece.Text); ok {
			p.Head = head
		} else {
			p.Whole = piece.EmbedText
		}
		p.Hash = store.ContentHash(c.doc.Tenant, p.Head, p.Body, p.Whole)
		c.doc.Chunks = append(c.doc.Chunks, p)
	}
}

// put stores the documents; what is embedded was embedded outside of any transaction.
func (s *Sink) put(ctx context.Context, cs []*change, f *fates) error {
	for try := 1; len(cs) > 0; try++ {
		if try > 1 {
			if err := s.embed(ctx, cs, nil); err != nil {
				return err
			}
			for _, c := range cs {
				if c.reject != nil {
					f.reject(*c.reject)
				}
			}
		}
		docs := make([]*store.Document, len(cs))
		for i, c := range cs {
			docs[i] = &c.doc
		}
		out, err := s.x.store.Write(ctx, docs)
		if err != nil {
			return err
		}
		var again []*change
		for i, o := range out {
			switch o {
			case store.Stale:
				f.supersede(cs[i].row)
			case store.Unstorable:
				f.reject(record.Reject{Row: cs[i].row, Code: "unstorable", Reason: "Postgres cannot store a value of the document"})
			case store.NoVector:
				again = append(again, cs[i])
			}
		}
		if cs = again; len(cs) > 0 && try == writeTries {
			return fmt.Errorf("vectors of %d documents of %s are deleted as fast as they are made", len(cs), s.stream)
		}
	}
	return nil
}

// embed gives each chunk whose text has no vector one. Equal texts cost one call, in all documents; flying are
// vectors that are on their way into the store.
func (s *Sink) embed(ctx context.Context, cs []*change, flying map[[32]byte][]float32) error {
	places := map[[32]byte][]*store.Chunk{}
	var hashes [][]byte
	var total int64
	for _, c := range cs {
		for i := range c.doc.Chunks {
			p := &c.doc.Chunks[i]
			if places[p.Hash] == nil {
				hashes = append(hashes, p.Hash[:])
			}
			places[p.Hash] = append(places[p.Hash], p)
			p.Vector = nil
			total++
		}
	}
	if len(hashes) == 0 {
		return nil
	}
	have, err := s.x.store.Embedded(ctx, hashes)
	if err != nil {
		return err
	}
	var texts []string
	var missing [][32]byte
	for _, h := range hashes {
		if hash := [32]byte(h); flying[hash] != nil {
			for _, p := range places[hash] {
				p.Vector = flying[hash]
			}
		} else if !have[hash] {
			p := places[hash][0]
			text := p.Whole
			if text == "" {
				text = p.Head + p.Body
			}
			texts, missing = append(texts, text), append(missing, hash)
		}
	}
	s.mu.Lock()
	s.spent.Reused += total - int64(len(missing))
	s.mu.Unlock()
	if len(texts) == 0 {
		return nil
	}
	before := s.x.client.Usage()
	vs, err := s.x.client.Documents(ctx, texts)
	if err != nil {
		return fmt.Errorf("embed %d texts of %s: %w", len(texts), s.stream, err)
	}
	after := s.x.client.Usage()
	s.mu.Lock()
	s.spent.Calls += after.Calls - before.Calls
	s.spent.Inputs += after.Inputs - before.Inputs
	s.spent.Tokens += after.Tokens - before.Tokens
	s.mu.Unlock()
	refused := map[[32]byte]error{}
	for i, h := range missing {
		if vs.Errs[i] != nil {
			refused[h] = vs.Errs[i]
			continue
		}
		for _, p := range places[h] {
			p.Vector = vs.Of[i]
		}
	}
	if len(refused) > 0 {
		for _, c := range cs {
			for i := range c.doc.Chunks {
				if err := refused[c.doc.Chunks[i].Hash]; err != nil {
					c.refuse("embed_refused", err.Error())
					break
				}
			}
		}
	}
	return nil
}
