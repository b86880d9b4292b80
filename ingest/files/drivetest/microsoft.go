package drivetest

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
)

// Microsoft serves the tree as the drive "lib" of Microsoft Graph.
func Microsoft(t testing.TB) *Tree {
	return newTree(t, func(tr *Tree) http.Handler {
		mux := http.NewServeMux()
		mux.HandleFunc("GET /api/drives/lib/root", func(w http.ResponseWriter, _ *http.Request) { reply(w, tr.graph(tr.nodes["top"])) })
		mux.HandleFunc("GET /api/drives/lib/root/delta", tr.graphDelta)
		mux.HandleFunc("GET /api/drives/lib/items/{id}", tr.graphItem)
		mux.HandleFunc("GET /api/drives/lib/items/{id}/children", tr.graphChildren)
		mux.HandleFunc("GET /api/drives/lib/items/{id}/permissions", tr.graphPermissions)
		mux.HandleFunc("GET /api/drives/lib/items/{id}/content", func(w http.ResponseWriter, r *http.Request) {
			tr.Asked["download"]++
			http.Redirect(w, r, tr.files.URL+"/file?id="+r.PathValue("id")+"&signature=xyz", http.StatusFound)
		})
		return mux
	})
}

func refuseGraph(w http.ResponseWriter, status int, code string) {
	w.WriteHeader(status)
	reply(w, map[string]any{"error": map[string]string{"code": code, "message": "…"}})
}

func (tr *Tree) graph(n *Node) map[string]any {
	if n.Gone {
		return map[string]any{"id": n.ID, "deleted": map[string]string{"state": "deleted"}, "parentReference": map[string]string{"id": n.Parent}}
	}
	m := map[string]any{"id": n.ID, "name": n.Name, "eTag": fmt.Sprintf("%s,%d", n.ID, n.Version), "cTag": fmt.Sprintf("c:%s,%d", n.ID, n.Written),
		"size": len(n.Content), "webUrl": "https://share.example/" + n.ID, "lastModifiedDateTime": when(n.Written), "parentReference": map[string]string{"id": n.Parent}}
	switch {
	case n.ID == "top":
		m["root"], m["folder"] = map[string]any{}, map[string]any{}
	case n.Folder:
		m["folder"] = map[string]any{}
	default:
		m["file"] = map[string]any{"mimeType": n.MIME}
	}
	return m
}

func (tr *Tree) graphItem(w http.ResponseWriter, r *http.Request) {
	n := tr.nodes[r.PathValue("id")]
	switch {
	case n == nil || n.Gone:
		refuseGraph(w, http.StatusNotFound, "itemNotFound")
	case only(r.URL.Query(), "$select") != "":
		refuseGraph(w, http.StatusBadRequest, "invalidRequest")
	default:
		reply(w, tr.graph(n))
	}
}

func (tr *Tree) graphChildren(w http.ResponseWriter, r *http.Request) {
	tr.Asked["list"]++
	all := tr.children(r.PathValue("id"))
	tr.graphPage(w, r, len(all), func(i int) any { return tr.graph(all[i]) })
}

func (tr *Tree) graphPermissions(w http.ResponseWriter, r *http.Request) {
	tr.Asked["permissions"]++
	n := tr.nodes[r.PathValue("id")]
	if n == nil || tr.hidden[n.ID] {
		refuseGraph(w, http.StatusForbidden, "accessDenied")
		return
	}
	tr.graphPage(w, r, len(n.Readers), func(i int) any {
		kind, name, _ := strings.Cut(n.Readers[i], ":")
		if kind == "anyone" {
			return map[string]any{"link": map[string]string{"scope": "anonymous"}}
		}
		return map[string]any{"grantedToV2": map[string]any{kind: map[string]string{"id": "id-of-" + name, "email": name}}, "roles": []string{"read"}}
	})
}

func (tr *Tree) graphPage(w http.ResponseWriter, r *http.Request, n int, item func(int) any) {
	from, to, next, ok := tr.page(r.URL.Path, r.URL.Query().Get("$skiptoken"), n)
	if bad := only(r.URL.Query(), "$top", "$select", "$skiptoken"); bad != "" || !ok {
		refuseGraph(w, http.StatusBadRequest, "invalidRequest")
		return
	}
	list := []any{}
	for i := from; i < to; i++ {
		list = append(list, item(i))
	}
	out := map[string]any{"value": list}
	if next != "" {
		out["@odata.nextLink"] = tr.server.URL + r.URL.Path + "?$skiptoken=" + next
	}
	reply(w, out)
}

func (tr *Tree) graphDelta(w http.ResponseWriter, r *http.Request) {
	tr.Asked["changes"]++
	q := r.URL.Query()
	link := func(n int) string { return tr.server.URL + r.URL.Path + "?token=" + strconv.Itoa(n) }
	if q.Get("token") == "latest" {
		reply(w, map[string]any{"value": []any{}, "@odata.deltaLink": link(len(tr.log))})
		return
	}
	from, err := strconv.Atoi(q.Get("token"))
	if err != nil || only(q, "token") != "" || from < tr.forget || from > len(tr.log) {
		refuseGraph(w, http.StatusGone, "resyncRequired")
		return
	}
	to := min(from+pageItems, len(tr.log))
	list := []any{tr.graph(tr.nodes["top"])} // the root is told with every change
	for _, id := range tr.log[from:to] {
		if p := tr.nodes[tr.nodes[id].Parent]; p != nil && p.ID != "top" {
			list = append(list, tr.graph(p)) // and so are the folders above
		}
		list = append(list, tr.graph(tr.nodes[id]))
	}
	out := map[string]any{"value": list}
	if to < len(tr.log) {
		out["@odata.nextLink"] = link(to)
	} else {
		out["@odata.deltaLink"] = link(to)
	}
	reply(w, out)
}
