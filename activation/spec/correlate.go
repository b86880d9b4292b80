package spec

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/sluice-data/sluice/activation/delivery"
)

// mark is what the rows of an answer say of one record.
type mark struct {
	named int // how many rows name it
	row   any
}

// mark finds which records the rows at r name.
func (b *batch) mark(a *answer, r *Rows) []mark {
	marks := make([]mark, len(b.entries))
	list, ok := find(a.doc, r.Path, "").([]any)
	if !ok || r.By == "order" && len(list) != len(b.entries) {
		return marks // by order a missing row would shift all others
	}
	for i, row := range list {
		if r.when != nil && !r.when.holds(&facts{status: a.status, operation: b.op.String(), item: row}) {
			continue
		}
		at := b.locate(r, row, i)
		if at < 0 && r.Else != nil {
			at = b.locate(r.Else, row, i)
		}
		if at < 0 {
			continue
		}
		marks[at].named++
		marks[at].row = row
	}
	return marks
}

// locate returns the record that a row speaks of, or -1.
func (b *batch) locate(r *Rows, row any, position int) int {
	if r.By == "order" {
		return position
	}
	for _, path := range r.At {
		for i, e := range b.entries {
			if i > 0 && r.By != "key_value" {
				break
			}
			v := joined(row, path, e.change.Match.Name)
			if r.pattern != nil {
				m := r.pattern.FindStringSubmatch(v)
				if m == nil {
					continue
				}
				v = m[1]
			}
			if v == "" {
				continue
			}
			if r.By == "key_value" {
				if b.object.folded(v) == b.object.folded(scalarText(e.change.Match.Value)) || v == e.change.ID {
					return i
				}
				continue
			}
			if n, err := strconv.Atoi(v); err == nil && n >= 0 && n < len(b.entries) {
				return n
			}
		}
	}
	return -1
}

// joined returns the text at path; of a path a+b both texts, with > between.
func joined(row any, path, match string) string {
	first, second, both := strings.Cut(path, "+")
	if !both {
		return text(find(row, path, match))
	}
	a, b := text(find(row, first, match)), text(find(row, second, match))
	if a == "" || b == "" {
		return ""
	}
	return a + ">" + b
}

// correlate settles every entry by what a successful answer says of it. What
// is named twice, in contradiction or not at all is Unknown.
func (b *batch) correlate(a *answer) {
	r := &b.action.Response
	unnamed := delivery.Result{Status: a.status, RequestID: a.request, Message: "the answer does not name the record"}
	if r.Unnamed == "applied" && (a.doc != nil || len(a.body) == 0) {
		unnamed.Outcome, unnamed.Message = delivery.Applied, ""
	}
	if r.Counts != nil {
		b.count(a, unnamed)
		return
	}
	applied, rejected := make([]mark, len(b.entries)), make([]mark, len(b.entries))
	if r.Applied != nil && (len(r.Applied.Status) == 0 || slices.Contains(r.Applied.Status, a.status)) {
		applied = b.mark(a, r.Applied)
	}
	if r.Rejected != nil && (len(r.Rejected.Status) == 0 || slices.Contains(r.Rejected.Status, a.status)) {
		rejected = b.mark(a, r.Rejected)
	}
	for i, e := range b.entries {
		switch yes, no := applied[i].named, rejected[i].named; {
		case yes == 1 && no == 0:
			row := applied[i].row
			e.settle(delivery.Result{Outcome: delivery.Applied, Status: a.status, RequestID: a.request,
				ID: b.knownID(e, text(find(row, r.Applied.ID, ""))), Created: b.op == delivery.Insert || r.Applied.Created != "" && text(find(row, r.Applied.Created, "")) == "true"})
		case yes == 0 && no >= 1:
			e.settle(b.refusedRow(a, r.Rejected, rejected[i], e))
		case yes == 0 && no == 0:
			e.settle(unnamed)
			if unnamed.Outcome == delivery.Applied {
				e.result.ID = e.change.ID
			}
		default:
			e.settle(delivery.Result{Status: a.status, RequestID: a.request, Message: "the answer contradicts itself about the record"})
		}
	}
}

func (b *batch) knownID(e *entry, id string) string {
	if id == "" {
		return e.change.ID
	}
	return id
}

// refusedRow describes the refusal of one record.
func (b *batch) refusedRow(a *answer, r *Rows, m mark, e *entry) delivery.Result {
	code, message := cleanCode(text(find(m.row, r.Code, ""))), text(find(m.row, r.Message, ""))
	v := b.d.spec.judgeRow(a.status, b.op, code, message, m.row)
	out := delivery.Result{Outcome: v.outcome(b.op), Status: a.status, RequestID: a.request, RetryAfter: v.wait,
		VendorCode: code, Message: scrub(message, []*delivery.Change{&e.change})}
	if out.Outcome == delivery.Applied {
		out.ID = e.change.ID
	}
	return out
}

// count settles a batch whose answer holds numbers only: what is not all is
// Unknown, for nobody can say which.
func (b *batch) count(a *answer, unnamed delivery.Result) {
	c := b.action.Response.Counts
	yes, ok := number(find(a.doc, c.Applied, ""))
	no, failed := number(find(a.doc, c.Failed, ""))
	r := unnamed
	r.Outcome = delivery.Unknown
	r.Message = fmt.Sprintf("the answer counts %d of %d records as taken", yes, len(b.entries))
	switch {
	case ok && yes == len(b.entries) && no == 0:
		r.Outcome, r.Message = delivery.Applied, ""
	case ok && failed && yes == 0 && no == len(b.entries):
		r.Outcome, r.WholeBatch = delivery.Rejected, len(b.entries) > 1
	}
	for _, e := range b.entries {
		e.settle(r)
		if r.Outcome == delivery.Applied {
			e.result.ID = e.change.ID
		}
	}
}
