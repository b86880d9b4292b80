package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/url"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/sluice-data/sluice/activation"
	"github.com/sluice-data/sluice/activation/delivery"
	"github.com/sluice-data/sluice/activation/limit"
	"github.com/sluice-data/sluice/activation/spec"
	"github.com/sluice-data/sluice/activation/state"
	"github.com/sluice-data/sluice/config"
	"github.com/sluice-data/sluice/progress"
	"github.com/sluice-data/sluice/record"
	"github.com/sluice-data/sluice/topic"
)

// shareEvery is how often the processes that use one account hear of each other.
const shareEvery = 5 * time.Second

// saasKinds are the sinks whose destinations come with the program, and http
// for an API of one's own.
func saasKinds() []sinkKind {
	var out []sinkKind
	add := func(name, doc string, settings func() any) {
		out = append(out, sinkKind{
			Kind: config.Kind{Name: name, Doc: doc, New: settings, NewStream: func() any { return &saasStream{} },
				Target:  func(s any) string { return s.(*saasStream).Object },
				Outlets: outlets},
			open:  openSaas,
			check: checkSaas,
		})
	}
	for _, name := range spec.Names() {
		label := name
		if s, err := spec.Load(name); err == nil && s.Label != "" {
			label = s.Label
		}
		add(name, "keeps records of "+label+" equal to rows", func() any { return &saasSettings{} })
	}
	add("http", "sends changes to an HTTP API of your own", func() any { return &httpSettings{} })
	return out
}

// outlets returns the streams that a sink publishes.
func outlets(settings any) []string {
	s, _ := accountOf(&config.Sink{Settings: settings})
	if !s.Outcomes {
		return nil
	}
	return []string{outcomesName}
}

// saasSettings are the settings of an account of a SaaS.
type saasSettings struct {
	accountSettings `yaml:",inline"`

	URL string `yaml:"url" doc:"address of the API in place of the vendor's, such as that of sluice simulate"`
}

// accountSettings are those of any account.
type accountSettings struct {
	Account    string         `yaml:"account" doc:"name of the account: sinks with the same one share its quota; the kind's name if empty"`
	Auth       authSettings   `yaml:"auth" doc:"how to log in"`
	AllowLocal bool           `yaml:"allow_private" doc:"the address may be private or loopback"`
	Share      float64        `yaml:"share" default:"0.7" min:"0.01" max:"1" doc:"of the account's quota that is ours; other integrations need the rest"`
	Parallel   int            `yaml:"parallel" default:"4" min:"1" max:"64" doc:"requests at once"`
	State      config.Secret  `yaml:"state" secret:"url" doc:"where it is remembered what the destination has: sqlite:path or, for several processes, postgres://…; a file below dir if empty"`
	BulkAbove  int            `yaml:"bulk_above" default:"1000" min:"0" doc:"changed rows of a backfill that are handed to a bulk job of the vendor when so many wait, where it has such; 0 = never"`
	Commit     commitSettings `yaml:"commit" doc:"when changes are settled and their offsets stored"`
	Outcomes   bool           `yaml:"outcomes" default:"true" doc:"write the outcome of every record to the topic <name>.<sink>.outcomes"`
}

// httpSettings are those of an API of one's own.
type httpSettings struct {
	accountSettings `yaml:",inline"`

	API  spec.HTTP       `yaml:",inline"`
	Sign []config.Secret `yaml:"sign" doc:"secrets of the Standard Webhooks signature, whsec_ and base64; two while the receiver changes over"`
}

// Check compiles what the API is told, as far as that works without the
// references of the file.
func (s *httpSettings) Check(report func(field, problem string)) {
	api := s.API
	if strings.Contains(api.URL, "${") {
		if len(api.Operations) > 0 {
			return // their addresses are compared with it
		}
		api.URL = "https://unresolved.invalid/"
	}
	if _, err := api.Spec(); err != nil {
		report("", err.Error())
	}
}

type authSettings struct {
	Type         string        `yaml:"type" enum:"bearer,header,basic,oauth2_refresh,oauth2_client,jwt_bearer,none" doc:"what the rest fits if empty"`
	Token        config.Secret `yaml:"token" doc:"of bearer and header"`
	Header       string        `yaml:"header" doc:"of header: its name"`
	User         string        `yaml:"user" doc:"of basic and jwt_bearer"`
	Password     config.Secret `yaml:"password" doc:"of basic"`
	ClientID     string        `yaml:"client_id" doc:"of OAuth2"`
	ClientSecret config.Secret `yaml:"client_secret" doc:"of OAuth2"`
	RefreshToken config.Secret `yaml:"refresh_token" doc:"the first one; rotated ones are kept below dir, sealed"`
	PrivateKey   config.Secret `yaml:"private_key" doc:"of jwt_bearer: PEM"`
	TokenURL     string        `yaml:"token_url" doc:"where tokens come from if the vendor's is not meant"`
}

// saasStream are the settings of one stream into an object.
type saasStream struct {
	Object     string              `yaml:"object" required:"true" doc:"kind of record, such as contacts"`
	Operation  string              `yaml:"operation" default:"upsert" enum:"insert,update,upsert,mirror,append" doc:"mirror: upsert, and delete with the row what we created"`
	Match      string              `yaml:"match" doc:"field of the object by which records are found; it is mapped as the others"`
	Fields     map[string]string   `yaml:"fields" doc:"field of the object: field of the stream"`
	Constants  map[string]string   `yaml:"constants" doc:"field of the object: text that is the same for all"`
	Nulls      string              `yaml:"nulls" default:"omit" enum:"omit,send,clear" doc:"what a null does: leave the field, send null, empty the field"`
	FieldNulls map[string]string   `yaml:"field_nulls" doc:"the same for one field"`
	OnDelete   string              `yaml:"on_delete" enum:"ignore,delete,archive" doc:"what a deleted row does to a record that we created; mirror: archive, else ignore"`
	Conflict   string              `yaml:"conflict" default:"reject" enum:"reject,latest_wins" doc:"two rows with one match value: reject the second, or let the newest have the record"`
	Consent    string              `yaml:"consent" doc:"bool field that must be true for a row to leave"`
	References []referenceSettings `yaml:"references" doc:"records of other streams that the record is tied to"`
	Whole      bool                `yaml:"send_all" doc:"send all fields of a changed row, not only the changed ones"`
	Guards     guardSettings       `yaml:"guards" doc:"what stops the stream before harm is done; 1 switches one off"`
}

type referenceSettings struct {
	Type    string `yaml:"type" required:"true" doc:"of the association, as the destination spells it"`
	Object  string `yaml:"object" required:"true" doc:"of the other record"`
	From    string `yaml:"from" required:"true" doc:"field with the other row's key"`
	To      string `yaml:"to" required:"true" doc:"stream of this sink that delivers the other row"`
	Missing string `yaml:"missing" default:"wait" enum:"wait,omit" doc:"while the other record is not there"`
}

type guardSettings struct {
	DeleteRatio float64 `yaml:"delete_ratio" default:"0.2" min:"0" max:"1" doc:"of the known records may be deleted in an hour"`
	DeleteRows  int     `yaml:"delete_rows" default:"100" min:"1" doc:"deletes that never stop it"`
	RejectRatio float64 `yaml:"reject_ratio" default:"0.5" min:"0" max:"1" doc:"of the newest records may be refused"`
	RejectRows  int     `yaml:"reject_rows" default:"200" min:"1" max:"1000" doc:"records before the ratio counts"`
	ShrinkRatio float64 `yaml:"shrink_ratio" default:"0.5" min:"0" max:"1" doc:"of the known records may be missing from a backfill"`
}

// Check reports a field that is set twice and what an operation lacks.
func (s *saasStream) Check(report func(field, problem string)) {
	if s.Operation != "append" && s.Match == "" {
		report("match", "name the field by which records are found")
	}
	for f := range s.Constants {
		if _, twice := s.Fields[f]; twice {
			report("constants", f+" is mapped already")
		}
	}
	for f, n := range s.FieldNulls {
		if _, ok := nullPolicies[n]; !ok {
			report("field_nulls", fmt.Sprintf("%s: want omit, send or clear, got %q", f, n))
		}
	}
}

var nullPolicies = map[string]activation.Nulls{"omit": activation.OmitNull, "send": activation.SendNull, "clear": activation.ClearNull}

// config returns the connection of a stream, without its references.
func (s *saasStream) config(sink, from string) (activation.Config, error) {
	name, err := record.ParseStreamName(from)
	if err != nil {
		return activation.Config{}, err
	}
	c := activation.Config{Name: sink + "/" + name.String(), Stream: name, Object: s.Object, Operation: delivery.Upsert, Whole: s.Whole,
		Consent: activation.Consent{Field: s.Consent}, Guards: activation.Guards(s.Guards)}
	onDelete := s.OnDelete
	switch s.Operation {
	case "insert":
		c.Operation = delivery.Insert
	case "update":
		c.Operation = delivery.Update
	case "append":
		c.Operation = delivery.Append
	case "mirror":
		if onDelete == "" {
			onDelete = "archive"
		}
	}
	c.OnDelete = map[string]activation.OnDelete{"delete": activation.DeleteRecord, "archive": activation.ArchiveRecord}[onDelete]
	if s.Conflict == "latest_wins" {
		c.Conflict = activation.LatestWins
	}
	if s.Match != "" {
		c.Match = activation.Field{Name: s.Match, From: s.Match}
		if f := s.Fields[s.Match]; f != "" {
			c.Match.From = f
		}
	}
	nulls := func(f string) activation.Nulls {
		if n := s.FieldNulls[f]; n != "" {
			return nullPolicies[n]
		}
		return nullPolicies[s.Nulls]
	}
	for _, f := range slices.Sorted(maps.Keys(s.Fields)) { // in one order, always: it is part of the hashes
		if f != s.Match {
			c.Fields = append(c.Fields, activation.Field{Name: f, From: s.Fields[f], Nulls: nulls(f)})
		}
	}
	for _, f := range slices.Sorted(maps.Keys(s.Constants)) {
		text, err := json.Marshal(s.Constants[f])
		if err != nil {
			return c, err
		}
		c.Fields = append(c.Fields, activation.Field{Name: f, Constant: text})
	}
	return c, c.Validate()
}

// checkSaas finds, offline, what is wrong with one stream.
func checkSaas(_ *config.File, stream *config.Stream) error {
	settings, ok := stream.Settings.(*saasStream)
	if !ok {
		return fmt.Errorf("stream %s is of no destination", stream.From)
	}
	_, err := settings.config("sink", stream.From)
	return err
}

// account is one account of a vendor while a pipeline runs.
type account struct {
	dest  *spec.Destination
	limit *limit.Account
	store *state.Store
	stop  context.CancelFunc
	done  sync.WaitGroup
	log   *outcomeLog
}

// accountOf returns the settings of the account of a sink; own is nil unless
// the API is one's own.
func accountOf(s *config.Sink) (settings *accountSettings, own *httpSettings) {
	if own, ok := s.Settings.(*httpSettings); ok {
		return &own.accountSettings, own
	}
	return &s.Settings.(*saasSettings).accountSettings, nil
}

// openSaas prepares the streams into an account.
func openSaas(ctx context.Context, p *pipeline, s *config.Sink) (openSink, error) {
	settings, own := accountOf(s)
	opened := openSink{every: settings.Commit.Every, bytes: int(min(settings.Commit.Bytes, 8<<20))}
	a := &account{}
	opened.close = a.close
	if err := a.open(ctx, p, s, settings, own); err != nil {
		return opened, err
	}
	if err := a.checkMappings(ctx, p, s); err != nil {
		return opened, err
	}
	for _, stream := range s.Streams {
		c, err := a.connection(ctx, p, s, stream, settings)
		if err != nil {
			return opened, fmt.Errorf("stream %s: %w", stream.From, err)
		}
		opened.streams = append(opened.streams, func(ctx context.Context) (topic.Sink, error) {
			sink, err := c.Sink(ctx)
			if err != nil {
				return nil, err // no typed nil: it would look like a sink
			}
			return sink, nil
		})
	}
	return opened, nil
}

// open connects an account with its quota and its state.
func (a *account) open(ctx context.Context, p *pipeline, s *config.Sink, settings *accountSettings, own *httpSettings) error {
	err := a.remember(ctx, p, s, settings)
	if err != nil {
		return err
	}
	if err := a.reach(p, s, settings, own); err != nil {
		return err
	}
	if settings.Outcomes {
		a.log = &outcomeLog{kafka: p.kafka, sink: s.Name, pipeline: p.file.Name}
	}
	shared, stop := context.WithCancel(context.WithoutCancel(ctx))
	a.stop = stop
	a.done.Go(func() { a.share(shared, settings.name(s), p.instance+"."+s.Name) })
	return nil
}

// activationDir is where the sinks of the file keep what is theirs.
func activationDir(f *config.File) string { return filepath.Join(f.Local(f.Dir), "activation") }

// remember opens the state.
func (a *account) remember(ctx context.Context, p *pipeline, s *config.Sink, settings *accountSettings) (err error) {
	address := settings.State.Value()
	if path, ok := strings.CutPrefix(address, "sqlite:"); ok {
		address = "sqlite:" + p.file.Local(path)
	} else if address == "" {
		address = "sqlite:" + filepath.Join(activationDir(p.file), url.PathEscape(s.Name)+".db")
	}
	a.store, err = state.Open(ctx, address)
	return err
}

// reach prepares the destination and its quota. It makes no call.
func (a *account) reach(p *pipeline, s *config.Sink, settings *accountSettings, own *httpSettings) (err error) {
	sp, o := (*spec.Spec)(nil), settings.options(s, activationDir(p.file))
	if own != nil {
		sp, err = own.API.Spec()
		for _, secret := range own.Sign {
			o.Sign = append(o.Sign, secret.Value())
		}
	} else {
		o.BaseURL = s.Settings.(*saasSettings).URL
		sp, err = spec.Load(s.Kind)
	}
	if err != nil {
		return err
	}
	for _, line := range sp.Warnings(time.Now()) {
		p.log.Warn(line, "sink", s.Name)
	}
	lc := limit.Config{Account: o.Account, Share: settings.Share, Endpoints: map[string][]delivery.Quota{}}
	endpoints := endpointsOf(sp)
	for _, q := range sp.Quotas() {
		if endpoints[q.Name] {
			lc.Endpoints[q.Name] = append(lc.Endpoints[q.Name], q)
		} else {
			lc.Quotas = append(lc.Quotas, q)
		}
	}
	if a.limit, err = p.accounts.budget(lc); err != nil {
		return err
	}
	o.Budget = a.limit
	for _, stream := range s.Streams {
		if object := stream.Settings.(*saasStream).Object; !slices.Contains(o.Objects, object) {
			o.Objects = append(o.Objects, object)
		}
	}
	a.dest, err = spec.Open(sp, o)
	return err
}

// name returns the name of the account: sinks with the same one share its quota.
func (s *accountSettings) name(sink *config.Sink) string {
	if s.Account == "" {
		return sink.Kind
	}
	return s.Account
}

// options returns how the destination is reached.
func (s *accountSettings) options(sink *config.Sink, dir string) spec.Options {
	a := &s.Auth
	return spec.Options{Account: s.name(sink), AllowPrivate: s.AllowLocal, Tokens: spec.FileTokens{Dir: filepath.Join(dir, "tokens")},
		Credentials: spec.Credentials{Type: a.Type, Token: a.Token.Value(), Header: a.Header, User: a.User, Password: a.Password.Value(),
			ClientID: a.ClientID, ClientSecret: a.ClientSecret.Value(), RefreshToken: a.RefreshToken.Value(), PrivateKey: a.PrivateKey.Value(), TokenURL: a.TokenURL}}
}

// endpointsOf returns the names of the endpoints that a spec's calls use: a
// quota of such a name is of these calls only.
func endpointsOf(s *spec.Spec) map[string]bool {
	names := map[string]bool{}
	for _, o := range s.Objects {
		for _, actions := range o.Operations {
			for _, a := range actions {
				names[a.Endpoint] = true
			}
		}
		for _, a := range o.Bulk {
			names[a.Endpoint] = true
		}
		for _, l := range o.Lookups {
			names[l.Endpoint] = true
		}
	}
	delete(names, "")
	return names
}

// connection returns the connection of one stream.
func (a *account) connection(ctx context.Context, p *pipeline, s *config.Sink, stream *config.Stream, settings *accountSettings) (*activation.Connection, error) {
	ss := stream.Settings.(*saasStream)
	c, err := ss.config(s.Name, stream.From)
	if err != nil {
		return nil, err
	}
	c.Concurrency = settings.Parallel
	for _, r := range ss.References {
		name, err := record.ParseStreamName(r.To)
		if err != nil {
			return nil, err
		}
		if !slices.ContainsFunc(s.Streams, func(x *config.Stream) bool { return x.From == r.To }) {
			return nil, fmt.Errorf("reference %s: sink %s has no stream %s", r.Type, s.Name, r.To)
		}
		to, err := a.store.Connection(ctx, s.Name+"/"+name.String())
		if err != nil {
			return nil, err
		}
		ref := activation.Reference{Type: r.Type, Object: r.Object, From: r.From, To: to}
		if r.Missing == "omit" {
			ref.Missing = activation.OmitReference
		}
		c.References = append(c.References, ref)
	}
	c.BulkAbove = settings.BulkAbove
	c.BatchItems, c.BatchBytes = a.batch(ss.Object, c.Operation)
	st, err := a.store.Connection(ctx, c.Name)
	if err != nil {
		return nil, err
	}
	o := activation.Options{Logger: p.log, Stats: p.board.Stream(progress.Sink, s.Name, c.Stream.String()), Hook: p.hook,
		Bury: func(ctx context.Context, letters []activation.Letter) error {
			refused := make([]topic.Refused, len(letters))
			for i, l := range letters {
				refused[i] = topic.Refused{Partition: l.Partition, Offset: l.Offset, Code: l.Code, Reason: l.Reason}
			}
			return p.kafka.Refuse(ctx, s.Name, c.Stream, refused)
		}}
	if a.log != nil {
		o.Log = a.log.write
	}
	return activation.New(c, a.dest, st, o)
}

// batch returns how much of an object a request holds.
func (a *account) batch(object string, op delivery.Operation) (items, bytes int) {
	items = 1
	if o := a.dest.Spec().Object(object); o != nil {
		for _, action := range o.Operations[op.String()] {
			items, bytes = max(items, action.Batch.Items), max(bytes, action.Batch.Bytes)
		}
	}
	return items, bytes
}

// share tells the other processes of the account of us, and of its pauses.
func (a *account) share(ctx context.Context, name, owner string) {
	tick := time.NewTicker(shareEvery)
	defer tick.Stop()
	for {
		if n, paused, err := a.store.Meet(ctx, name, owner, 3*shareEvery, a.limit.Paused()); err == nil {
			a.limit.Share(n, paused)
		}
		select {
		case <-ctx.Done():
			leave, cancel := context.WithTimeout(context.WithoutCancel(ctx), shareEvery)
			defer cancel()
			_ = a.store.Part(leave, name, owner) // else they notice after a while
			return
		case <-tick.C:
		}
	}
}

func (a *account) close() error {
	if a.stop != nil {
		a.stop()
	}
	a.done.Wait()
	var errs []error
	if a.log != nil {
		a.log.close()
	}
	if a.dest != nil {
		errs = append(errs, a.dest.Close())
	}
	if a.store != nil {
		errs = append(errs, a.store.Close())
	}
	return errors.Join(errs...)
}

// budgets are the budgets of the accounts of a process, by name.
type budgets struct {
	mu     sync.Mutex
	byName map[string]*limit.Account
}

// budget returns the budget of an account; the first sink that names it
// declares it.
func (b *budgets) budget(c limit.Config) (*limit.Account, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if a := b.byName[c.Account]; a != nil {
		return a, nil
	}
	a, err := limit.NewAccount(c)
	if err != nil {
		return nil, err
	}
	if b.byName == nil {
		b.byName = map[string]*limit.Account{}
	}
	b.byName[c.Account] = a
	return a, nil
}
