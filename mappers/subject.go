package mappers

import (
	"encoding/base64"

	"github.com/sluice-data/sluice/keys"
	"github.com/sluice-data/sluice/record"
)

// Subjects resolves a person to their own key. Unlike Keys it may change while
// a Chain lives: a key that is erased is gone with the next row.
type Subjects interface {
	// SubjectKey returns the key of a person, given as canonical text, among
	// those that the key ref wraps; false if it was erased or never made.
	SubjectKey(ref keys.Ref, subject []byte) ([]byte, bool)
}

// maxBoxes bounds the ciphers that a run keeps ready.
const maxBoxes = 4096

// encryptPer encrypts every value with the key of the person whom another
// field of the row names. A row of a person without a key is rejected: it must
// neither pass in clear nor look like one without a value.
func (b *builder) encryptPer(e *Encrypt, m encryptMethod, i int, out record.Field, domain string) {
	switch {
	case m.tag == "" || m.rsa:
		b.fail("per", e.Per, CodeRule, "%s has no keys per person; use aes-gcm or aes-siv", e.Method)
		return
	case b.lone:
		b.fail("per", e.Per, CodeRule, "a value inside a document or list has no field beside it")
		return
	case b.scope.People == nil:
		b.fail("per", e.Per, CodeSecret, "there are no keys of persons here")
		return
	case out.Key > 0:
		b.fail("field", e.Field, CodeKeyField, "%s is part of the key, and a person whose key is erased could not be deleted any more", e.Field)
		return
	}
	s := b.find("per", e.Per)
	switch {
	case s < 0:
		return
	case b.cols[s].slot >= b.given:
		b.fail("per", e.Per, CodeRule, "%s was changed by an earlier rule; a person is named by a field as the stream has it; move this rule up", e.Per)
		return
	}
	in := []column{b.cols[i], b.cols[s]}
	people, ref := b.scope.People, e.Key
	cell := func() cellFunc {
		p := &personal{method: m, domain: domain, boxes: map[string]box{}}
		return func(dst *record.Vector, vs []*record.Vector, row int) bool {
			if vs[0].State[row] == record.Null {
				dst.AppendMissing(record.Null, 0)
				return true
			}
			var ok bool
			if vs[1].State[row] != record.Present {
				return false
			}
			if p.text, ok = AppendCanonical(p.text[:0], &in[1].field, vs[1], row); !ok {
				return false
			}
			key, ok := people.SubjectKey(ref, p.text)
			if !ok {
				return false
			}
			if p.text, ok = AppendCanonical(p.text[:0], &in[0].field, vs[0], row); !ok {
				return false
			}
			return p.seal(dst, key)
		}
	}
	b.replace(i, out, func(_, dst int) func() step {
		return func() step {
			c := newCombined(in, out, dst, cell())
			c.code, c.reason = codeNoSubject, e.Field+": the person that "+e.Per+" names has no key; it was erased, or the row names nobody"
			return c
		}
	})
	b.plan[len(b.plan)-1].read = slotsOf(in)
}

// codeNoSubject is the code of rows about a person without a key.
const codeNoSubject = "subject_without_key"

// personal seals values with many keys.
type personal struct {
	method       encryptMethod
	domain       string
	boxes        map[string]box // by key id
	text, sealed []byte
}

func (p *personal) seal(dst *record.Vector, key []byte) bool {
	id := KeyID(key)
	c := p.boxes[id]
	if c == nil {
		if len(p.boxes) >= maxBoxes {
			clear(p.boxes)
		}
		c = p.method.box(key)
		c.begin() // once: the nonces of a cipher are counted on from a random start
		p.boxes[id] = c
	}
	head := sealedVersion + "." + p.method.tag + "." + id + "."
	var ok bool
	if p.sealed, ok = c.seal(p.sealed[:0], p.text, []byte(head+p.domain)); !ok {
		return false
	}
	dst.Data = base64.RawURLEncoding.AppendEncode(append(dst.Data, head...), p.sealed)
	dst.State, dst.Offs = append(dst.State, record.Present), append(dst.Offs, int32(len(dst.Data)))
	return true
}
