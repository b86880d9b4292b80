package main

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/sluice-data/sluice/config"
	"github.com/sluice-data/sluice/ingest"
	"github.com/sluice-data/sluice/ingest/files"
	"github.com/sluice-data/sluice/ingest/files/bucket"
	"github.com/sluice-data/sluice/ingest/files/drive"
	"github.com/sluice-data/sluice/ingest/files/graph"
	"github.com/sluice-data/sluice/ingest/files/local"
	"github.com/sluice-data/sluice/ingest/files/root"
	"github.com/sluice-data/sluice/ingest/files/sftp"
	"github.com/sluice-data/sluice/ingest/files/web"
	"github.com/sluice-data/sluice/objects"
	"github.com/sluice-data/sluice/record"
)

func filesKind() sourceKind {
	return sourceKind{
		Kind: config.Kind{
			Name: "files", Doc: "reads the files of a folder, a bucket, a server or a drive",
			New:          func() any { return &filesSettings{} },
			Streams:      func(s any) []string { return files.Streams(s.(*filesSettings).Permissions) },
			StreamsField: "permissions",
		},
		open:    openFiles,
		needsS3: func(s any) bool { return s.(*filesSettings).embedded() },
	}
}

// filesSettings are the settings of a source of files.
type filesSettings struct {
	Path       string         `yaml:"path" oneof:"place" doc:"a folder of this machine, relative to this file"`
	S3         *filesBucket   `yaml:"s3" oneof:"place" doc:"a bucket, or the objects below a prefix"`
	SFTP       *sftpSettings  `yaml:"sftp" oneof:"place" doc:"a folder of an SFTP server"`
	HTTP       *indexSettings `yaml:"http" oneof:"place" doc:"a folder that an HTTP server lists"`
	Drive      *driveSettings `yaml:"google_drive" oneof:"place" doc:"a folder of Google Drive"`
	SharePoint *graphSettings `yaml:"sharepoint" oneof:"place" doc:"a SharePoint library or a OneDrive, through Microsoft Graph"`

	Include []string `yaml:"include" doc:"read only files that fit one of these patterns, such as *.pdf or reports/**"`
	Exclude []string `yaml:"exclude" doc:"leave out files that fit one of these patterns"`

	Mode   string        `yaml:"mode" default:"records" enum:"records,copy" doc:"records: bodies up to inline travel in their records; copy: every body is copied to store, and records say where"`
	Store  *filesBucket  `yaml:"store" doc:"bucket that bodies are copied to: all of them in mode copy, else the big ones that a sink could not read at their place"`
	Layout string        `yaml:"layout" default:"path" enum:"path,hash" doc:"names in store: path keeps the paths of the files, hash names objects by their content"`
	Inline config.Bytes  `yaml:"inline" default:"1MiB" min:"1KiB" max:"1MiB" doc:"bodies up to this size travel in their records"`
	Every  time.Duration `yaml:"every" default:"1m" min:"1s" max:"24h" doc:"time between two looks at the place"`
	Sweep  time.Duration `yaml:"sweep" default:"24h" min:"1m" max:"720h" doc:"time between two full listings of a place that tells its changes"`

	MaxGone float64 `yaml:"max_gone" default:"0.5" min:"0.01" max:"1" doc:"refuse a listing that lacks more than this share of the known files; 1 believes any"`
	Workers int     `yaml:"workers" default:"4" min:"1" max:"64" doc:"files read at the same time"`

	Permissions bool         `yaml:"permissions" doc:"publish the streams permissions and groups too"`
	ACLFiles    bool         `yaml:"acl_files" default:"true" doc:"read who may see the files of a folder from its .sluice-acl.yaml (path only)"`
	ACL         []filesACL   `yaml:"acl" doc:"who may see files whose place does not tell; the first pattern that fits counts"`
	Groups      []filesGroup `yaml:"groups" doc:"groups that access lists name"`
}

type filesBucket struct {
	URL        string `yaml:"url" required:"true" doc:"s3://bucket or s3://bucket/prefix"`
	s3Settings `yaml:",inline"`
}

type filesACL struct {
	Glob  string   `yaml:"glob" required:"true" doc:"pattern of the files"`
	Allow []string `yaml:"allow" doc:"who may see them: user:name, group:name or public"`
	Deny  []string `yaml:"deny" doc:"who may not, even if allowed"`
}

type filesGroup struct {
	Name    string   `yaml:"name" required:"true" doc:"the group, as group:name"`
	Members []string `yaml:"members" doc:"users and groups in it, as user:name and group:name"`
}

type sftpSettings struct {
	Host       string        `yaml:"host" required:"true" doc:"name of the server"`
	Port       int           `yaml:"port" default:"22" min:"1" max:"65535" doc:"its port"`
	User       string        `yaml:"user" required:"true" doc:"name of the account"`
	Password   config.Secret `yaml:"password" doc:"its password, as ${env:NAME} or ${file:path}"`
	Key        config.Secret `yaml:"key" doc:"private key in PEM, as ${file:path}"`
	Passphrase config.Secret `yaml:"passphrase" doc:"passphrase of key"`
	KnownHosts string        `yaml:"known_hosts" required:"true" doc:"file with the key of the server, as ssh-keyscan writes it"`
	Dir        string        `yaml:"dir" doc:"folder on the server; the account's own if empty"`
}

// Check reports an account without a way to log in.
func (s *sftpSettings) Check(report func(field, problem string)) {
	if s.Password.IsZero() && s.Key.IsZero() {
		report("", "give password or key")
	}
}

type indexSettings struct {
	URL          string        `yaml:"url" required:"true" doc:"address of the folder, with a slash at its end"`
	User         string        `yaml:"user" doc:"user of HTTP Basic"`
	Password     config.Secret `yaml:"password" doc:"its password"`
	Token        config.Secret `yaml:"token" doc:"a bearer token instead of a user"`
	AllowPrivate bool          `yaml:"allow_private" doc:"the server may be on this machine or in a private network"`
}

type driveSettings struct {
	Folder         string        `yaml:"folder" required:"true" doc:"id of the folder: the last part of its address"`
	ServiceAccount config.Secret `yaml:"service_account" doc:"JSON key of a service account, as ${file:path}"`
	Subject        string        `yaml:"subject" doc:"whom the service account acts for; itself if empty"`
	ClientID       string        `yaml:"client_id" doc:"an OAuth client instead of a service account"`
	ClientSecret   config.Secret `yaml:"client_secret" doc:"its secret"`
	RefreshToken   config.Secret `yaml:"refresh_token" doc:"refresh token of the account that reads"`
	API            string        `yaml:"api" doc:"address of the API if it is not Google's"`
	TokenURL       string        `yaml:"token_url" doc:"token endpoint if it is not Google's"`
	AllowPrivate   bool          `yaml:"allow_private" doc:"api may be on this machine or in a private network"`
}

// Check reports an account without a way to log in.
func (s *driveSettings) Check(report func(field, problem string)) {
	if s.ServiceAccount.IsZero() == s.RefreshToken.IsZero() {
		report("", "give either service_account, or client_id, client_secret and refresh_token")
	}
}

type graphSettings struct {
	Tenant       string        `yaml:"tenant" required:"true" doc:"id or domain of the directory"`
	ClientID     string        `yaml:"client_id" required:"true" doc:"id of the application, which needs Files.Read.All"`
	ClientSecret config.Secret `yaml:"client_secret" required:"true" doc:"its secret"`
	Drive        string        `yaml:"drive" required:"true" doc:"id of the drive of a library or a person"`
	Folder       string        `yaml:"folder" doc:"path below the drive's root"`
	API          string        `yaml:"api" doc:"address of the API if it is not Microsoft's"`
	TokenURL     string        `yaml:"token_url" doc:"token endpoint if it is not Microsoft's"`
	AllowPrivate bool          `yaml:"allow_private" doc:"api may be on this machine or in a private network"`
}

// Check reports what no place can be read with.
func (s *filesSettings) Check(report func(field, problem string)) {
	for name, list := range map[string][]string{"include": s.Include, "exclude": s.Exclude} {
		if _, err := globs(list); err != nil {
			report(name, err.Error())
		}
	}
	for i, a := range s.ACL {
		if _, err := files.ParseGlob(a.Glob); err != nil {
			report("acl["+strconv.Itoa(i)+"].glob", err.Error())
		}
	}
	for name, b := range map[string]*filesBucket{"s3": s.S3, "store": s.Store} {
		if b == nil {
			continue
		}
		if _, _, err := b.place(); err != nil && !strings.Contains(b.URL, "${") {
			report(name+".url", err.Error())
		}
	}
	if s.Mode == "copy" && s.Store == nil {
		report("store", "mode copy needs the bucket that files are copied to")
	}
	if s.HTTP != nil && !strings.Contains(s.HTTP.URL, "${") {
		if _, err := web.Open(web.Config{URL: s.HTTP.URL}); err != nil {
			report("http.url", err.Error())
		}
	}
}

func (s *filesSettings) embedded() bool {
	return s.S3 != nil && s.S3.Embedded || s.Store != nil && s.Store.Embedded
}

// bodyFolder is where the file: claims of the records are.
func (s *filesSettings) bodyFolder(f *config.File) string {
	if s.Path == "" {
		return ""
	}
	return f.Local(s.Path)
}

// place returns bucket and prefix; the prefix is empty or ends with a slash.
func (b *filesBucket) place() (bucketName, prefix string, err error) {
	rest, ok := strings.CutPrefix(b.URL, "s3://")
	bucketName, prefix, _ = strings.Cut(rest, "/")
	if !ok || bucketName == "" {
		return "", "", fmt.Errorf("want s3://bucket or s3://bucket/prefix, got %q", b.URL)
	}
	if prefix = strings.Trim(prefix, "/"); prefix != "" {
		prefix += "/"
	}
	return bucketName, prefix, nil
}

func (b *filesBucket) client(f *config.File, embedded string) (*objects.Client, error) {
	c, err := b.config(f, embedded)
	if err != nil {
		return nil, err
	}
	return objects.New(context.Background(), c)
}

func globs(list []string) ([]files.Glob, error) {
	var parsed []files.Glob
	for _, s := range list {
		g, err := files.ParseGlob(s)
		if err != nil {
			return nil, err
		}
		parsed = append(parsed, g)
	}
	return parsed, nil
}

func openFiles(p *pipeline, s *config.Source) (ingest.Source, record.Origin, error) {
	settings := s.Settings.(*filesSettings)
	origin := record.Origin{Connector: "files", Name: p.file.Name + "." + s.Name}
	c := files.Config{Name: s.Name, Dir: filepath.Join(p.file.Local(p.file.Dir), "files", s.Name), CopyAll: settings.Mode == "copy",
		Inline: int(settings.Inline), Every: settings.Every, Sweep: settings.Sweep, MaxGone: settings.MaxGone, Permissions: settings.Permissions,
		Workers: settings.Workers, UntilCaughtUp: p.untilCaughtUp, Board: p.board, Logger: p.log}
	var err error
	if c.Include, err = globs(settings.Include); err == nil {
		c.Exclude, err = globs(settings.Exclude)
	}
	if err != nil {
		return nil, origin, err
	}
	for _, a := range settings.ACL {
		g, err := files.ParseGlob(a.Glob)
		if err != nil {
			return nil, origin, err
		}
		c.Rules = append(c.Rules, files.Rule{Glob: g, ACL: root.ACL{Allow: a.Allow, Deny: a.Deny}})
	}
	for _, g := range settings.Groups {
		c.Groups = append(c.Groups, root.Group{Name: g.Name, Members: g.Members})
	}
	if settings.Store != nil {
		if c.Store, err = settings.store(p); err != nil {
			return nil, origin, err
		}
	}
	c.Open = func(ctx context.Context) (files.Root, error) {
		if settings.Store != nil && settings.Store.Embedded {
			if err := c.Store.Client.EnsureBucket(ctx, c.Store.Bucket); err != nil {
				return nil, err
			}
		}
		return settings.open(ctx, p)
	}
	source, err := files.New(c)
	if err != nil {
		return nil, origin, err
	}
	return filesSource{source}, origin, nil
}

func (s *filesSettings) store(p *pipeline) (*files.Store, error) {
	name, prefix, err := s.Store.place()
	if err != nil {
		return nil, err
	}
	client, err := s.Store.client(p.file, p.s3)
	if err != nil {
		return nil, err
	}
	return &files.Store{Client: client, Bucket: name, Prefix: prefix, ByHash: s.Layout == "hash"}, nil
}

// open opens the place; no typed nil: it would look like a place.
func (s *filesSettings) open(ctx context.Context, p *pipeline) (files.Root, error) {
	var place files.Root
	var err error
	switch {
	case s.S3 != nil:
		var name, prefix string
		var client *objects.Client
		if name, prefix, err = s.S3.place(); err != nil {
			return nil, err
		}
		if client, err = s.S3.client(p.file, p.s3); err != nil {
			return nil, err
		}
		place, err = bucket.Open(client, name, prefix)
	case s.SFTP != nil:
		c := s.SFTP
		place, err = sftp.Open(ctx, sftp.Config{Address: net.JoinHostPort(c.Host, strconv.Itoa(c.Port)), User: c.User,
			Password: c.Password.Value(), Key: []byte(c.Key.Value()), Passphrase: c.Passphrase.Value(),
			KnownHosts: p.file.Local(c.KnownHosts), Dir: c.Dir})
	case s.HTTP != nil:
		c := s.HTTP
		place, err = web.Open(web.Config{URL: c.URL, User: c.User, Password: c.Password.Value(), Token: c.Token.Value(), Private: c.AllowPrivate})
	case s.Drive != nil:
		c := s.Drive
		place, err = drive.Open(drive.Config{Folder: c.Folder, ServiceAccount: []byte(c.ServiceAccount.Value()), Subject: c.Subject,
			ClientID: c.ClientID, ClientSecret: c.ClientSecret.Value(), RefreshToken: c.RefreshToken.Value(),
			API: c.API, TokenURL: c.TokenURL, Private: c.AllowPrivate})
	case s.SharePoint != nil:
		c := s.SharePoint
		place, err = graph.Open(graph.Config{Tenant: c.Tenant, ClientID: c.ClientID, ClientSecret: c.ClientSecret.Value(), Drive: c.Drive,
			Folder: c.Folder, API: c.API, TokenURL: c.TokenURL, Private: c.AllowPrivate})
	default:
		place, err = local.Open(p.file.Local(s.Path), s.ACLFiles)
	}
	if err != nil {
		return nil, err
	}
	return place, nil
}

// filesSource gives the source of files the ingest room's type of output.
type filesSource struct{ *files.Source }

// Run reads until ctx ends.
func (s filesSource) Run(ctx context.Context, out ingest.Output) error {
	return s.Source.Run(ctx, out)
}
