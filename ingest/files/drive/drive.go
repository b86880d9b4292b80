// Package drive reads the files of a Google Drive folder.
package drive

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-data/sluice/ingest/files/root"
)

const (
	api        = "https://www.googleapis.com/drive/v3"
	scope      = "https://www.googleapis.com/auth/drive.readonly"
	tokenURL   = "https://oauth2.googleapis.com/token"
	folderType = "application/vnd.google-apps.folder"
	googleType = "application/vnd.google-apps."
	maxFolders = 100_000
	fileFields = "id,name,mimeType,parents,trashed,size,md5Checksum,sha256Checksum,version,modifiedTime,webViewLink,driveId," +
		"permissions(id,type,emailAddress,domain,role,deleted,allowFileDiscovery),capabilities(canDownload)"
)

// exports are the forms in which Google's own documents are read.
var exports = map[string]string{
	googleType + "document":     "application/vnd.openxmlformats-officedocument.wordprocessingml.document",
	googleType + "spreadsheet":  "application/vnd.openxmlformats-officedocument.spreadsheetml.sheet",
	googleType + "presentation": "application/vnd.openxmlformats-officedocument.presentationml.presentation",
	googleType + "drawing":      "application/pdf",
}

// Config says which folder is read and as whom.
type Config struct {
	Folder         string // id of the folder
	ServiceAccount []byte // the JSON key of a service account, or
	Subject        string // whom it acts for; empty = itself
	ClientID       string // an OAuth client with
	ClientSecret   string
	RefreshToken   string // a refresh token

	API      string // address of the API; empty = Google's
	TokenURL string // empty = Google's
	Private  bool   // the API may be at a private address: for tests and proxies
}

// Folder is the root of one folder of Google Drive.
type Folder struct {
	cfg    Config
	client *root.Client
	paths  map[string]string // of the folders of the last full listing, by id
}

// Open prepares the access to a folder; it does not connect.
func Open(cfg Config) (*Folder, error) {
	if cfg.API == "" {
		cfg.API = api
	}
	if cfg.Folder == "" {
		return nil, errors.New("google_drive: folder is missing")
	}
	tokens := &root.Tokens{URL: first(cfg.TokenURL, tokenURL)}
	switch {
	case len(cfg.ServiceAccount) > 0:
		var key struct {
			Email string `json:"client_email"`
			Key   string `json:"private_key"`
			KeyID string `json:"private_key_id"`
			URL   string `json:"token_uri"`
		}
		if json.Unmarshal(cfg.ServiceAccount, &key) != nil || key.Email == "" || key.Key == "" {
			return nil, errors.New("google_drive: service_account is no JSON key of a service account")
		}
		tokens.URL = first(cfg.TokenURL, first(key.URL, tokenURL))
		var err error
		if tokens.Form, err = root.AssertionForm(key.Email, key.KeyID, key.Key, cfg.Subject, scope, tokens.URL); err != nil {
			return nil, fmt.Errorf("google_drive: service_account: %w", err)
		}
	case cfg.RefreshToken != "":
		tokens.Form = func(time.Time) (url.Values, error) {
			return url.Values{"grant_type": {"refresh_token"}, "client_id": {cfg.ClientID}, "client_secret": {cfg.ClientSecret},
				"refresh_token": {cfg.RefreshToken}}, nil
		}
	default:
		return nil, errors.New("google_drive: give service_account, or client_id, client_secret and refresh_token")
	}
	client, err := root.NewAPI(cfg.API, tokens, cfg.Private)
	if err != nil {
		return nil, fmt.Errorf("google_drive: %w", err)
	}
	client.Code, client.Retry = errorCode, limited
	return &Folder{cfg: cfg, client: client}, nil
}

func first(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// errorCode reads the reason of an error of the API.
func errorCode(b []byte) string {
	var e struct {
		Error struct {
			Errors []struct {
				Reason string `json:"reason"`
			} `json:"errors"`
		} `json:"error"`
	}
	if json.Unmarshal(b, &e) != nil || len(e.Error.Errors) == 0 {
		return ""
	}
	return root.PrintableCode(e.Error.Errors[0].Reason)
}

// limited: Drive says 403 also for too many requests.
func limited(status int, code string) bool {
	return status == http.StatusForbidden && (code == "userRateLimitExceeded" || code == "rateLimitExceeded" || code == "sharingRateLimitExceeded")
}

func (f *Folder) get(ctx context.Context, do, path string, q url.Values, out any) error {
	q.Set("supportsAllDrives", "true")
	return f.client.JSON(ctx, do, f.cfg.API+path+"?"+q.Encode(), nil, out)
}

// file is a file or folder as the API describes it.
type file struct {
	ID          string       `json:"id"`
	Name        string       `json:"name"`
	MIME        string       `json:"mimeType"`
	Parents     []string     `json:"parents"`
	Trashed     bool         `json:"trashed"`
	Size        string       `json:"size"`
	MD5         string       `json:"md5Checksum"`
	Version     string       `json:"version"`
	Modified    string       `json:"modifiedTime"`
	Link        string       `json:"webViewLink"`
	DriveID     string       `json:"driveId"`
	Permissions []permission `json:"permissions"`
	Can         *struct {
		Download bool `json:"canDownload"`
	} `json:"capabilities"`
}

type permission struct {
	Type    string `json:"type"`
	Email   string `json:"emailAddress"`
	Domain  string `json:"domain"`
	Deleted bool   `json:"deleted"`
}

// List yields every file below the folder. Two files of one name in a folder,
// which Drive allows, are told apart by their id.
func (f *Folder) List(ctx context.Context) iter.Seq2[root.Entry, error] {
	return func(yield func(root.Entry, error) bool) {
		var top file
		if err := f.get(ctx, "look at the Drive folder", "/files/"+url.PathEscape(f.cfg.Folder), url.Values{"fields": {"id,mimeType,driveId"}}, &top); err != nil {
			yield(root.Entry{}, err)
			return
		}
		f.paths = map[string]string{f.cfg.Folder: ""}
		queue := []string{f.cfg.Folder}
		for len(queue) > 0 {
			id := queue[0]
			queue = queue[1:]
			folders, more := f.folder(ctx, id, yield)
			if !more {
				return
			}
			queue = append(queue, folders...)
			if len(f.paths) > maxFolders {
				yield(root.Entry{}, fmt.Errorf("list Drive folder: more than %d folders", maxFolders))
				return
			}
		}
	}
}

// folder lists one folder, all pages of it.
func (f *Folder) folder(ctx context.Context, id string, yield func(root.Entry, error) bool) (folders []string, more bool) {
	seen := map[string]bool{}
	q := url.Values{"q": {"'" + strings.ReplaceAll(id, "'", "") + "' in parents and trashed = false"}, "pageSize": {"1000"}, "orderBy": {"name,createdTime"},
		"fields": {"nextPageToken,incompleteSearch,files(" + fileFields + ")"}, "includeItemsFromAllDrives": {"true"}}
	for {
		var page struct {
			Next       string `json:"nextPageToken"`
			Incomplete bool   `json:"incompleteSearch"`
			Files      []file `json:"files"`
		}
		if err := f.get(ctx, "list Drive folder", "/files", q, &page); err != nil {
			yield(root.Entry{}, err)
			return nil, false
		}
		if page.Incomplete {
			yield(root.Entry{}, errors.New("list Drive folder: the answer is incomplete; it is tried again"))
			return nil, false
		}
		for i := range page.Files {
			it := &page.Files[i]
			p := f.paths[id] + segment(it.Name)
			if it.MIME == folderType {
				if _, known := f.paths[it.ID]; !known {
					if seen[p] {
						p += " (" + it.ID + ")"
					}
					seen[p] = true
					f.paths[it.ID] = p + "/"
					folders = append(folders, it.ID)
				}
				continue
			}
			if seen[p] {
				p = distinct(p, it.ID)
			}
			seen[p] = true
			e, err := f.entry(ctx, p, it)
			if !yield(e, err) || err != nil {
				return nil, false
			}
		}
		if page.Next == "" {
			return folders, true
		}
		q.Set("pageToken", page.Next)
	}
}

// segment returns a name as one part of a path: Drive allows any text.
func segment(name string) string {
	name = strings.NewReplacer("/", "∕", "\x00", "", `\`, "⧵").Replace(name)
	if name == "" || name == "." || name == ".." {
		return "_" + name
	}
	return name
}

// distinct puts the id of a file before the ending of its name.
func distinct(p, id string) string {
	dot := strings.LastIndexByte(p, '.')
	if slash := strings.LastIndexByte(p, '/'); dot <= slash+1 {
		return p + " (" + id + ")"
	}
	return p[:dot] + " (" + id + ")" + p[dot:]
}

func (f *Folder) entry(ctx context.Context, p string, it *file) (root.Entry, error) {
	e := root.Entry{Path: p, ID: it.ID, ETag: first(it.MD5, "v"+it.Version), Size: -1, MIME: root.BareType(it.MIME), Title: it.Name, URI: it.Link}
	e.Modified, _ = time.Parse(time.RFC3339, it.Modified)
	if bad := root.CheckPath(p); bad != nil {
		e.Path, e.Skip = root.Printable(p), bad
		return e, nil
	}
	if n, err := strconv.ParseInt(it.Size, 10, 64); err == nil {
		e.Size = n
	}
	switch export, has := exports[it.MIME]; {
	case has:
		// Its version also counts changes of permissions; the time is of the content.
		e.Ref, e.MIME, e.Size, e.ETag = export, export, -1, "m"+it.Modified
	case strings.HasPrefix(it.MIME, googleType):
		e.Skip = &root.Reason{Code: "no_content", Text: "this kind of Google document cannot be read as a file"}
		return e, nil
	}
	if it.Can != nil && !it.Can.Download {
		e.Skip = root.Forbidden
	}
	list := it.Permissions
	if list == nil { // files of shared drives do not come with them
		var err error
		if list, err = f.permissions(ctx, it.ID); err != nil {
			return e, err
		}
	}
	e.ACL = access(list)
	return e, nil
}

// permissions asks who may see a file; nil if that may not be known.
func (f *Folder) permissions(ctx context.Context, id string) ([]permission, error) {
	var all []permission
	q := url.Values{"pageSize": {"100"}, "fields": {"nextPageToken,permissions(id,type,emailAddress,domain,role,deleted)"}}
	for {
		var page struct {
			Next        string       `json:"nextPageToken"`
			Permissions []permission `json:"permissions"`
		}
		err := f.get(ctx, "list permissions of a Drive file", "/files/"+url.PathEscape(id)+"/permissions", q, &page)
		if err = root.OpenError(err); errors.Is(err, root.ErrUnreadable) || errors.Is(err, root.ErrChanged) {
			return nil, nil // fail closed: unknown
		}
		if err != nil {
			return nil, err
		}
		all = append(all, page.Permissions...)
		if all == nil {
			all = []permission{}
		}
		if page.Next == "" {
			return all, nil
		}
		q.Set("pageToken", page.Next)
	}
}

// access turns permissions into an access list, nil if they are unknown.
func access(list []permission) *root.ACL {
	if list == nil {
		return nil
	}
	var a root.ACL
	for _, p := range list {
		switch {
		case p.Deleted:
		case p.Type == "anyone":
			a.Allow = append(a.Allow, "public")
		case p.Type == "user" && p.Email != "":
			a.Allow = append(a.Allow, "user:"+strings.ToLower(p.Email))
		case p.Type == "group" && p.Email != "":
			a.Allow = append(a.Allow, "group:"+strings.ToLower(p.Email))
		case p.Type == "domain" && p.Domain != "":
			a.Allow = append(a.Allow, "group:domain:"+strings.ToLower(p.Domain))
		}
	}
	a = a.Normal()
	return &a
}

// Token returns the place in the log of changes.
func (f *Folder) Token(ctx context.Context) (string, error) {
	var out struct {
		Token string `json:"startPageToken"`
	}
	err := f.get(ctx, "ask for the token of changes", "/changes/startPageToken", url.Values{}, &out)
	if err == nil && out.Token == "" {
		err = errors.New("ask for the token of changes: there is none in the answer")
	}
	return out.Token, err
}

// Changes returns what has changed since token. A folder that came, went or
// changed its name moves files that are not told: everything is listed again.
func (f *Folder) Changes(ctx context.Context, token string) (changed []root.Entry, gone []string, next string, relist bool, err error) {
	if f.paths == nil {
		return nil, nil, "", true, nil // the paths of the folders are of the last listing of this process
	}
	q := url.Values{"pageToken": {token}, "pageSize": {"1000"}, "includeRemoved": {"true"}, "includeItemsFromAllDrives": {"true"},
		"fields": {"nextPageToken,newStartPageToken,changes(changeType,removed,fileId,file(" + fileFields + "))"}}
	latest := map[string]root.Entry{}
	for {
		var page struct {
			Next    string `json:"nextPageToken"`
			Start   string `json:"newStartPageToken"`
			Changes []struct {
				Type    string `json:"changeType"`
				Removed bool   `json:"removed"`
				FileID  string `json:"fileId"`
				File    *file  `json:"file"`
			} `json:"changes"`
		}
		if err := f.get(ctx, "list the changes of Drive", "/changes", q, &page); err != nil {
			var s *root.StatusError
			if errors.As(err, &s) && (s.Status == http.StatusGone || s.Status == http.StatusNotFound || s.Status == http.StatusBadRequest) {
				err = root.ErrExpired
			}
			return nil, nil, "", false, err
		}
		for _, c := range page.Changes {
			switch _, folder := f.paths[c.FileID]; {
			case c.Type != "" && c.Type != "file":
			case folder, c.File != nil && c.File.MIME == folderType && f.inside(c.File):
				return nil, nil, "", true, nil
			case c.Removed || c.File == nil || c.File.Trashed || !f.inside(c.File):
				delete(latest, c.FileID)
				gone = append(gone, c.FileID)
			default:
				p := f.paths[c.File.Parents[slices.IndexFunc(c.File.Parents, f.known)]] + segment(c.File.Name)
				e, err := f.entry(ctx, p, c.File)
				if err != nil {
					return nil, nil, "", false, err
				}
				latest[c.FileID] = e
			}
		}
		if page.Next == "" {
			next = page.Start
			break
		}
		q.Set("pageToken", page.Next)
	}
	taken := map[string]bool{}
	for id, e := range latest {
		if taken[e.Path] {
			return nil, nil, "", true, nil // two of one name: the listing tells them apart
		}
		taken[e.Path] = true
		gone = slices.DeleteFunc(gone, func(g string) bool { return g == id })
		changed = append(changed, e)
	}
	return changed, gone, next, false, nil
}

func (f *Folder) known(id string) bool { _, ok := f.paths[id]; return ok }

func (f *Folder) inside(it *file) bool { return slices.ContainsFunc(it.Parents, f.known) }

// Open reads a file, or Google's own document in its exported form.
func (f *Folder) Open(ctx context.Context, e root.Entry, offset int64) (io.ReadCloser, error) {
	var now file
	err := f.get(ctx, "look at a Drive file", "/files/"+url.PathEscape(e.ID), url.Values{"fields": {"id,mimeType,md5Checksum,version,modifiedTime,trashed"}}, &now)
	if err != nil {
		return nil, root.OpenError(err)
	}
	etag := first(now.MD5, "v"+now.Version)
	if e.Ref != "" {
		etag = "m" + now.Modified
	}
	if etag != e.ETag || now.Trashed {
		return nil, root.ErrChanged
	}
	address := f.cfg.API + "/files/" + url.PathEscape(e.ID) + "?alt=media&supportsAllDrives=true"
	if e.Ref != "" {
		address = f.cfg.API + "/files/" + url.PathEscape(e.ID) + "/export?mimeType=" + url.QueryEscape(e.Ref)
	}
	return f.client.Body(ctx, "read a Drive file", address, offset)
}
