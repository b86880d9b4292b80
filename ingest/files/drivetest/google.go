package drivetest

import (
	"net/http"
	"strconv"
	"strings"
	"testing"
)

// Google serves the tree as Google Drive; its folder is "top".
func Google(t testing.TB) *Tree {
	return newTree(t, func(tr *Tree) http.Handler {
		mux := http.NewServeMux()
		mux.HandleFunc("GET /api/files", tr.googleList)
		mux.HandleFunc("GET /api/files/{id}", tr.googleFile)
		mux.HandleFunc("GET /api/files/{id}/export", tr.googleExport)
		mux.HandleFunc("GET /api/files/{id}/permissions", tr.googlePermissions)
		mux.HandleFunc("GET /api/changes/startPageToken", func(w http.ResponseWriter, _ *http.Request) {
			reply(w, map[string]string{"startPageToken": strconv.Itoa(len(tr.log))})
		})
		mux.HandleFunc("GET /api/changes", tr.googleChanges)
		return mux
	})
}

func refuse(w http.ResponseWriter, status int, reason string) {
	w.WriteHeader(status)
	reply(w, map[string]any{"error": map[string]any{"code": status, "errors": []map[string]string{{"reason": reason}}}})
}

func (tr *Tree) google(n *Node) map[string]any {
	m := map[string]any{"id": n.ID, "name": n.Name, "mimeType": n.MIME, "parents": []string{n.Parent}, "version": strconv.Itoa(n.Version),
		"modifiedTime": when(n.Written), "webViewLink": "https://drive.example/" + n.ID, "trashed": n.Gone}
	switch {
	case n.Folder:
		m["mimeType"] = "application/vnd.google-apps.folder"
	case n.Google:
		m["mimeType"] = "application/vnd.google-apps.document"
	default:
		m["size"], m["md5Checksum"] = strconv.Itoa(len(n.Content)), sum(n.Content)
	}
	return m
}

func (tr *Tree) googleList(w http.ResponseWriter, r *http.Request) {
	tr.Asked["list"]++
	q := r.URL.Query()
	parent, ok := strings.CutSuffix(q.Get("q"), "' in parents and trashed = false")
	if bad := only(q, "q", "pageSize", "orderBy", "fields", "includeItemsFromAllDrives", "supportsAllDrives", "pageToken"); bad != "" || !ok {
		refuse(w, http.StatusBadRequest, "invalidParameter")
		return
	}
	all := tr.children(strings.TrimPrefix(parent, "'"))
	from, to, next, ok := tr.page("list"+parent, q.Get("pageToken"), len(all))
	if !ok {
		refuse(w, http.StatusBadRequest, "invalidPageToken")
		return
	}
	files := []map[string]any{}
	for _, n := range all[from:to] {
		files = append(files, tr.google(n))
	}
	reply(w, map[string]any{"files": files, "nextPageToken": next})
}

func (tr *Tree) googleFile(w http.ResponseWriter, r *http.Request) {
	n := tr.nodes[r.PathValue("id")]
	switch bad := only(r.URL.Query(), "fields", "supportsAllDrives", "alt"); {
	case bad != "":
		refuse(w, http.StatusBadRequest, "invalidParameter")
	case n == nil || n.Gone:
		refuse(w, http.StatusNotFound, "notFound")
	case r.URL.Query().Get("alt") == "media" && n.Google:
		refuse(w, http.StatusForbidden, "fileNotDownloadable")
	case r.URL.Query().Get("alt") == "media":
		tr.Asked["download"]++
		serve(w, r, n.Content)
	default:
		reply(w, tr.google(n))
	}
}

func (tr *Tree) googleExport(w http.ResponseWriter, r *http.Request) {
	n := tr.nodes[r.PathValue("id")]
	if n == nil || !n.Google || only(r.URL.Query(), "mimeType") != "" || r.URL.Query().Get("mimeType") == "" {
		refuse(w, http.StatusBadRequest, "badRequest")
		return
	}
	tr.Asked["download"]++
	serve(w, r, n.Content)
}

func (tr *Tree) googlePermissions(w http.ResponseWriter, r *http.Request) {
	tr.Asked["permissions"]++
	n := tr.nodes[r.PathValue("id")]
	if n == nil || tr.hidden[n.ID] {
		refuse(w, http.StatusForbidden, "insufficientFilePermissions")
		return
	}
	from, to, next, ok := tr.page("permissions"+n.ID, r.URL.Query().Get("pageToken"), len(n.Readers))
	if !ok {
		refuse(w, http.StatusBadRequest, "invalidPageToken")
		return
	}
	list := []map[string]any{}
	for _, who := range n.Readers[from:to] {
		kind, name, _ := strings.Cut(who, ":")
		list = append(list, map[string]any{"id": name, "type": kind, "emailAddress": name, "role": "reader"})
	}
	reply(w, map[string]any{"permissions": list, "nextPageToken": next})
}

func (tr *Tree) googleChanges(w http.ResponseWriter, r *http.Request) {
	tr.Asked["changes"]++
	from, err := strconv.Atoi(r.URL.Query().Get("pageToken"))
	if err != nil || from < tr.forget || from > len(tr.log) {
		refuse(w, http.StatusGone, "pageTokenExpired")
		return
	}
	to := min(from+pageItems, len(tr.log))
	list := []map[string]any{}
	for _, id := range tr.log[from:to] {
		c := map[string]any{"changeType": "file", "fileId": id, "removed": tr.nodes[id].Gone}
		if !tr.nodes[id].Gone {
			c["file"] = tr.google(tr.nodes[id])
		}
		list = append(list, c)
	}
	out := map[string]any{"changes": list}
	if to < len(tr.log) {
		out["nextPageToken"] = strconv.Itoa(to)
	} else {
		out["newStartPageToken"] = strconv.Itoa(to)
	}
	reply(w, out)
}
