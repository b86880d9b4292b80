// Package graph reads the files of a SharePoint library or a OneDrive through
// Microsoft Graph.
package graph

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/sluice-data/sluice/ingest/files/root"
)

const (
	api        = "https://graph.microsoft.com/v1.0"
	login      = "https://login.microsoftonline.com/"
	scope      = "https://graph.microsoft.com/.default"
	maxFolders = 100_000
	maxPages   = 100_000
	itemFields = "id,name,size,eTag,cTag,webUrl,lastModifiedDateTime,file,folder,package,deleted,parentReference,root"
)

// Config says which drive is read and as which application.
type Config struct {
	Tenant       string // id or domain of the directory
	ClientID     string
	ClientSecret string
	Drive        string // id of the drive: of a library or a person
	Folder       string // path below the drive's root; empty = all of it

	API      string // address of the API; empty = Microsoft's
	TokenURL string // empty = Microsoft's
	Private  bool   // the API may be at a private address: for tests and proxies
}

// Drive is the root of one drive, or of a folder of it.
type Drive struct {
	cfg    Config
	client *root.Client
	top    string            // id of the folder that is the root
	paths  map[string]string // of the folders of the last full listing, by id, with a slash at the end
}

// Open prepares the access to a drive; it does not connect.
func Open(cfg Config) (*Drive, error) {
	if cfg.API == "" {
		cfg.API = api
	}
	if cfg.Drive == "" || cfg.ClientID == "" || cfg.ClientSecret == "" || cfg.Tenant == "" && cfg.TokenURL == "" {
		return nil, errors.New("sharepoint: tenant, client_id, client_secret or drive is missing")
	}
	if cfg.TokenURL == "" {
		cfg.TokenURL = login + url.PathEscape(cfg.Tenant) + "/oauth2/v2.0/token"
	}
	tokens := &root.Tokens{URL: cfg.TokenURL, Form: func(time.Time) (url.Values, error) {
		return url.Values{"grant_type": {"client_credentials"}, "client_id": {cfg.ClientID}, "client_secret": {cfg.ClientSecret}, "scope": {scope}}, nil
	}}
	client, err := root.NewAPI(cfg.API, tokens, cfg.Private)
	if err != nil {
		return nil, fmt.Errorf("sharepoint: %w", err)
	}
	client.Code = errorCode
	return &Drive{cfg: cfg, client: client}, nil
}

func errorCode(b []byte) string {
	var e struct {
		Error struct {
			Code string `json:"code"`
		} `json:"error"`
	}
	if json.Unmarshal(b, &e) != nil {
		return ""
	}
	return root.PrintableCode(e.Error.Code)
}

// item is a file or folder as the API describes it.
type item struct {
	ID       string `json:"id"`
	Name     string `json:"name"`
	Size     int64  `json:"size"`
	ETag     string `json:"eTag"`
	CTag     string `json:"cTag"` // changes with the content alone
	URL      string `json:"webUrl"`
	Modified string `json:"lastModifiedDateTime"`
	File     *struct {
		MIME string `json:"mimeType"`
	} `json:"file"`
	Folder  *struct{} `json:"folder"`
	Package *struct{} `json:"package"` // a notebook
	Deleted *struct{} `json:"deleted"`
	Root    *struct{} `json:"root"`
	Parent  struct {
		ID string `json:"id"`
	} `json:"parentReference"`
}

func (it *item) version() string {
	if it.CTag != "" {
		return it.CTag
	}
	return it.ETag
}

// page is one page of a collection.
type page[T any] struct {
	Value []T    `json:"value"`
	Next  string `json:"@odata.nextLink"`
	Delta string `json:"@odata.deltaLink"`
}

// pages asks for a collection, page by page; it returns the delta link of the last one.
func pages[T any](ctx context.Context, d *Drive, do, address string, each func([]T) error) (string, error) {
	for range maxPages {
		if !strings.HasPrefix(address, d.cfg.API+"/") {
			return "", fmt.Errorf("%s: the next page is at another server", do) // it would get our token
		}
		var p page[T]
		if err := d.client.JSON(ctx, do, address, nil, &p); err != nil {
			return "", err
		}
		if err := each(p.Value); err != nil {
			return "", err
		}
		if p.Next == "" {
			return p.Delta, nil
		}
		address = p.Next
	}
	return "", fmt.Errorf("%s: the pages do not end", do)
}

func (d *Drive) address(path string) string {
	return d.cfg.API + "/drives/" + url.PathEscape(d.cfg.Drive) + path
}

func (d *Drive) itemAddress(id, path string) string {
	return d.address("/items/" + url.PathEscape(id) + path)
}

var errStop = errors.New("stop")

// List yields every file below the folder.
func (d *Drive) List(ctx context.Context) iter.Seq2[root.Entry, error] {
	return func(yield func(root.Entry, error) bool) {
		if err := d.list(ctx, yield); err != nil && !errors.Is(err, errStop) {
			yield(root.Entry{}, err)
		}
	}
}

func (d *Drive) list(ctx context.Context, yield func(root.Entry, error) bool) error {
	var top item
	where := "/root"
	if f := strings.Trim(d.cfg.Folder, "/"); f != "" {
		parts := strings.Split(f, "/")
		for i := range parts {
			parts[i] = url.PathEscape(parts[i])
		}
		where += ":/" + strings.Join(parts, "/") + ":"
	}
	if err := d.client.JSON(ctx, "look at the drive", d.address(where), nil, &top); err != nil {
		return err
	}
	if top.ID == "" {
		return errors.New("look at the drive: the answer has no id")
	}
	d.top, d.paths = top.ID, map[string]string{top.ID: ""}
	queue := []string{top.ID}
	for len(queue) > 0 {
		id := queue[0]
		queue = queue[1:]
		_, err := pages(ctx, d, "list a folder of the drive", d.itemAddress(id, "/children?$top=200&$select="+itemFields), func(items []item) error {
			for i := range items {
				it := &items[i]
				if it.Folder != nil {
					if _, known := d.paths[it.ID]; !known {
						d.paths[it.ID] = d.paths[id] + it.Name + "/"
						queue = append(queue, it.ID)
					}
					continue
				}
				e, err := d.entry(ctx, d.paths[id]+it.Name, it)
				if err != nil {
					return err
				}
				if !yield(e, nil) {
					return errStop
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
		if len(d.paths) > maxFolders {
			return fmt.Errorf("list the drive: more than %d folders", maxFolders)
		}
	}
	return nil
}

func (d *Drive) entry(ctx context.Context, p string, it *item) (root.Entry, error) {
	e := root.Entry{Path: p, ID: it.ID, ETag: it.version(), Size: it.Size, Title: it.Name, URI: it.URL}
	e.Modified, _ = time.Parse(time.RFC3339, it.Modified)
	switch bad := root.CheckPath(p); {
	case bad != nil:
		e.Path, e.Skip = root.Printable(p), bad
		return e, nil
	case it.File == nil || it.Package != nil:
		e.Skip = &root.Reason{Code: "no_content", Text: "a notebook or another item without content is not read"}
		return e, nil
	}
	e.MIME = root.BareType(it.File.MIME)
	var err error
	e.ACL, err = d.access(ctx, it.ID)
	return e, err
}

// identity is somebody whom a permission is for.
type identity struct {
	ID    string `json:"id"`
	Email string `json:"email"`
	Login string `json:"loginName"`
}

func (i *identity) name() string {
	if i.Email != "" {
		return strings.ToLower(i.Email)
	}
	return i.ID
}

type identities struct {
	User      *identity `json:"user"`
	Group     *identity `json:"group"`
	SiteUser  *identity `json:"siteUser"`
	SiteGroup *identity `json:"siteGroup"`
}

func (i identities) principal() string {
	switch {
	case i.User != nil && i.User.name() != "":
		return "user:" + i.User.name()
	case i.Group != nil && i.Group.name() != "":
		return "group:" + i.Group.name()
	case i.SiteGroup != nil && i.SiteGroup.ID != "":
		return "group:site:" + i.SiteGroup.ID
	case i.SiteUser != nil && i.SiteUser.Email != "":
		return "user:" + i.SiteUser.name()
	}
	return ""
}

type permission struct {
	To      identities   `json:"grantedToV2"`
	All     []identities `json:"grantedToIdentitiesV2"`
	Expires string       `json:"expirationDateTime"`
	Link    *struct {
		Scope string `json:"scope"`
	} `json:"link"`
}

// access asks who may see an item; nil if that may not be known.
func (d *Drive) access(ctx context.Context, id string) (*root.ACL, error) {
	var a root.ACL
	_, err := pages(ctx, d, "list permissions of a file", d.itemAddress(id, "/permissions"), func(list []permission) error {
		for _, p := range list {
			if until, err := time.Parse(time.RFC3339, p.Expires); p.Expires != "" && (err != nil || until.Before(time.Now())) {
				continue
			}
			if p.Link != nil && p.Link.Scope == "anonymous" {
				a.Allow = append(a.Allow, "public")
			}
			if p.Link != nil && p.Link.Scope == "organization" {
				a.Allow = append(a.Allow, "group:organization")
			}
			for _, i := range append(p.All, p.To) {
				if name := i.principal(); name != "" {
					a.Allow = append(a.Allow, name)
				}
			}
		}
		return nil
	})
	if err = root.OpenError(err); errors.Is(err, root.ErrUnreadable) || errors.Is(err, root.ErrChanged) {
		return nil, nil // fail closed: unknown
	}
	if err != nil {
		return nil, err
	}
	a = a.Normal()
	return &a, nil
}

// Token returns the place in the log of changes: a link.
func (d *Drive) Token(ctx context.Context) (string, error) {
	link, err := pages(ctx, d, "ask for the token of changes", d.address("/root/delta?token=latest"), func([]item) error { return nil })
	if err == nil && link == "" {
		err = errors.New("ask for the token of changes: there is none in the answer")
	}
	return link, err
}

// Changes returns what has changed since token. A folder that came, went or
// moved takes files along that are not told: everything is listed again.
func (d *Drive) Changes(ctx context.Context, token string) (changed []root.Entry, gone []string, next string, relist bool, err error) {
	if d.paths == nil {
		return nil, nil, "", true, nil // the paths of the folders are of the last listing of this process
	}
	latest := map[string]item{}
	var order []string
	next, err = pages(ctx, d, "list the changes of the drive", token, func(items []item) error {
		for _, it := range items {
			if _, seen := latest[it.ID]; !seen {
				order = append(order, it.ID)
			}
			latest[it.ID] = it // the last word counts
		}
		return nil
	})
	var s *root.StatusError
	if errors.As(err, &s) && s.Status == http.StatusGone {
		return nil, nil, "", false, root.ErrExpired
	}
	if err != nil {
		return nil, nil, "", false, err
	}
	for _, id := range order {
		it := latest[id]
		path, wasFolder := d.paths[id]
		dir, inside := d.paths[it.Parent.ID]
		switch {
		case it.Root != nil || id == d.top:
		case wasFolder && it.Deleted == nil && inside && dir+it.Name+"/" == path: // something in it has changed
		case wasFolder, it.Folder != nil && inside:
			return nil, nil, "", true, nil
		case it.Folder != nil:
		case it.Deleted != nil || !inside:
			gone = append(gone, id)
		default:
			e, err := d.entry(ctx, dir+it.Name, &it)
			if err != nil {
				return nil, nil, "", false, err
			}
			changed = append(changed, e)
		}
	}
	return changed, gone, next, next == "", nil
}

// Open reads the listed version of a file from offset on. The API redirects to
// an address of its own right, which gets no token.
func (d *Drive) Open(ctx context.Context, e root.Entry, offset int64) (io.ReadCloser, error) {
	var now item
	if err := d.client.JSON(ctx, "look at a file of the drive", d.itemAddress(e.ID, "?$select="+itemFields), nil, &now); err != nil {
		return nil, root.OpenError(err)
	}
	if now.version() != e.ETag || now.Deleted != nil {
		return nil, root.ErrChanged
	}
	return d.client.Body(ctx, "read a file of the drive", d.itemAddress(e.ID, "/content"), offset)
}
