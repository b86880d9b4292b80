package vector_test

import (
	"context"
	"testing"
	"time"

	"github.com/sluice-data/sluice/vector"
)

// With row-level security a role that reads the tables themselves sees what the named users may see, no text and no
// vector more; the sink goes on writing.
func TestRowSecurity(t *testing.T) {
	url, ctx := database(t), context.Background()
	x := open(t, url)
	f := newFeed(t, x, filesSchema())
	f.write(put("public.md", "tides for everybody", everybody), put("anna.md", "tides of anna", `{"allow":["user:anna"]}`),
		put("staff.md", "tides of staff", `{"allow":["group:staff"]}`), put("unknown.md", "tides nobody knows", ""))
	for range 2 { // as at every start
		if err := x.Store().ProtectRows(ctx); err != nil {
			t.Fatal(err)
		}
	}
	g := newFeed(t, x, pairSchema("groups", "group", "members"), func(st *vector.Stream) { st.Holds, st.MaxAge = vector.Groups, time.Hour })
	g.write(row{values: map[string]any{"group": "staff", "members": `["user:anna"]`}})
	g.flush()
	conn := dial(t, url)
	name := "reader_" + conn.Config().Database
	if _, err := conn.Exec(ctx, `create role `+name+`; grant usage on schema rag to `+name+`; grant select on rag.doc, rag.chunk, rag.content, rag.emb_1 to `+name+`; set role `+name); err != nil {
		t.Fatal(err)
	}
	want := func(principals string, docs int) {
		t.Helper()
		var got [4]int
		if _, err := conn.Exec(ctx, `select set_config('sluice.principals', $1, false)`, principals); err != nil {
			t.Fatal(err)
		}
		if err := conn.QueryRow(ctx, `select (select count(*) from rag.doc), (select count(*) from rag.chunk), (select count(*) from rag.content), (select count(*) from rag.emb_1)`).
			Scan(&got[0], &got[1], &got[2], &got[3]); err != nil {
			t.Fatal(err)
		}
		if got != [4]int{docs, docs, docs, docs} {
			t.Errorf("%q sees %v, not %d of each", principals, got, docs)
		}
	}
	want("", 1)
	want("user:bob", 1)
	want("user:anna", 3)
	f.write(gone("anna.md"), put("public.md", "tides for nobody any more", `{"allow":[]}`))
	want("user:anna", 1)
	if _, err := conn.Exec(ctx, `update rag.doc set allow = '{public}'`); err == nil {
		t.Error("a reader may write")
	}
}
