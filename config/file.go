package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
)

// maxFileBytes bounds what is read; the largest sensible file is far smaller.
const maxFileBytes = 8 << 20

// File is a pipeline as its file describes it. It must not be copied before
// Resolve.
type File struct {
	Name    string  `yaml:"name" required:"true" doc:"prefix of topics, consumer groups and table properties"`
	Dir     string  `yaml:"dir" default:"data" doc:"the folder of everything local: embedded broker and S3, indexes, run.json; relative to this file"`
	Kafka   Kafka   `yaml:"kafka" required:"true" doc:"the brokers: {embedded: true} or {brokers: [host:9092]}"`
	Topics  Topics  `yaml:"topics" doc:"how topics are written"`
	Admin   Admin   `yaml:"admin" doc:"health, status and metrics over HTTP"`
	Sources Sources `yaml:"sources" required:"true" doc:"what is read, by name"`
	Sinks   Sinks   `yaml:"sinks" doc:"where it goes, by name"`
	Tests   []Test  `yaml:"tests" doc:"tests of the rules, for sluice test"`

	path    string
	places  map[string]Pos
	pending []pending
	secrets []string
}

// Kafka says which brokers carry the topics.
type Kafka struct {
	Embedded bool     `yaml:"embedded" oneof:"broker" doc:"run a single broker inside, below dir"`
	Brokers  []string `yaml:"brokers" oneof:"broker" doc:"addresses of the first brokers to ask, host:port"`
	TLS      *TLS     `yaml:"tls" doc:"encrypt the connections; {} uses the certificate authorities of the system"`
	SASL     *SASL    `yaml:"sasl" doc:"log in"`
}

// TLS says how connections to the brokers are encrypted.
type TLS struct {
	CA         string `yaml:"ca" doc:"file of the certificate authorities, PEM"`
	Cert       string `yaml:"cert" doc:"file of the client certificate, PEM"`
	Key        string `yaml:"key" doc:"file of the client's private key, PEM"`
	ServerName string `yaml:"server_name" doc:"name that the certificate of the broker must have"`
}

// Check reports half a client certificate.
func (t *TLS) Check(report func(field, problem string)) {
	if (t.Cert == "") != (t.Key == "") {
		report("", "cert and key go together")
	}
}

// SASL says how to log in at the brokers.
type SASL struct {
	Mechanism string `yaml:"mechanism" default:"SCRAM-SHA-512" enum:"PLAIN,SCRAM-SHA-256,SCRAM-SHA-512" doc:"how the password is proven"`
	User      string `yaml:"user" required:"true" doc:"name of the account"`
	Password  Secret `yaml:"password" required:"true" doc:"its password, as ${env:NAME} or ${file:path}"`
}

// Check reports settings that the embedded broker does not have.
func (k *Kafka) Check(report func(field, problem string)) {
	if k.Embedded && k.TLS != nil {
		report("tls", "the embedded broker listens on the loopback only and has no TLS")
	}
	if k.Embedded && k.SASL != nil {
		report("sasl", "the embedded broker listens on the loopback only and has no logins")
	}
	for i, b := range k.Brokers {
		if host, port, ok := strings.Cut(b, ":"); !strings.Contains(b, "${") && (!ok || host == "" || port == "") {
			report(fmt.Sprintf("brokers[%d]", i), "want host:port, such as kafka-1:9092")
		}
	}
}

// Topics says how topics are written.
type Topics struct {
	Format      string        `yaml:"format" default:"json" enum:"json" doc:"json: the Debezium envelope"`
	Partitions  int           `yaml:"partitions" default:"4" min:"1" max:"1000" doc:"of each topic; fixed once a topic exists"`
	Replication int           `yaml:"replication" default:"0" min:"0" max:"9" doc:"copies of each partition; 0 leaves it to the brokers"`
	Retention   time.Duration `yaml:"retention" default:"168h" min:"1m" doc:"how long records stay on the topics"`
}

// Admin is the loopback HTTP endpoint.
type Admin struct {
	Listen string `yaml:"listen" default:"127.0.0.1:0" doc:"loopback address; port 0 takes a free one, run.json says which"`
}

// Path returns the path of the file, for messages.
func (f *File) Path() string { return f.path }

// Base returns the folder of the file: relative paths start there.
func (f *File) Base() string { return filepath.Dir(f.path) }

// Local returns path, which starts at Base unless it is absolute.
func (f *File) Local(path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	abs, err := filepath.Abs(filepath.Join(f.Base(), path))
	if err != nil { // no working directory: the relative path is the best there is
		return filepath.Join(f.Base(), path)
	}
	return abs
}

// Problem returns a mistake at path, found by somebody who knows more than
// this package, such as the compiler of a rule.
func (f *File) Problem(path, message string) Problem {
	d := decoder{file: f}
	d.reportAt(path, "%s", message)
	return d.problems[0]
}

// Load reads and checks the file at path. References stay unresolved: it
// works offline and without any secret.
func (r *Registry) Load(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read configuration: %w", err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		return nil, fmt.Errorf("read configuration %s: %w", path, err)
	}
	return r.Parse(path, data)
}

// Parse checks the text of a file. path is its name in messages and the start
// of its relative paths. The error is Problems.
func (r *Registry) Parse(path string, data []byte) (*File, error) {
	d := &decoder{reg: r, file: &File{path: path, places: map[string]Pos{}}, open: map[*yaml.Node]bool{}}
	root, ok := d.root(data)
	if ok {
		d.value(root, "", reflect.ValueOf(d.file).Elem(), fieldTag{})
		if len(d.problems) == 0 || d.file.Sources != nil {
			d.check()
		}
	}
	if len(d.problems) > 0 {
		d.problems.sort()
		return nil, d.problems
	}
	return d.file, nil
}

func (d *decoder) root(data []byte) (*yaml.Node, bool) {
	whole := &yaml.Node{Line: 1, Column: 1}
	if len(data) > maxFileBytes {
		d.report(whole, "", "the file is larger than %d MiB", maxFileBytes>>20)
		return nil, false
	}
	dec := yaml.NewDecoder(bytes.NewReader(data))
	var doc yaml.Node
	switch err := dec.Decode(&doc); {
	case errors.Is(err, io.EOF):
		d.report(whole, "", "the file is empty; `sluice schema` describes what belongs into it")
		return nil, false
	case err != nil:
		d.syntax(data, err)
		return nil, false
	}
	var more yaml.Node
	switch err := dec.Decode(&more); {
	case errors.Is(err, io.EOF):
	case err != nil:
		d.syntax(data, err)
		return nil, false
	default:
		d.report(&more, "", "a second document begins here; one file is one pipeline")
		return nil, false
	}
	if len(doc.Content) != 1 || isNull(doc.Content[0]) {
		d.report(whole, "", "the file is empty; `sluice schema` describes what belongs into it")
		return nil, false
	}
	return doc.Content[0], true
}

var yamlLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?(.*)$`)

// syntax reports text that is no YAML, with the usual reason in front.
func (d *decoder) syntax(data []byte, err error) {
	at, message := &yaml.Node{Line: 1, Column: 1}, err.Error()
	lines := strings.Split(string(data), "\n")
	if m := yamlLine.FindStringSubmatch(message); m != nil {
		message = m[2]
		if n, err := strconv.Atoi(m[1]); err == nil {
			at.Line = n
		}
		// The parser counts the lines of these from 0.
		if m[1] != "" && strings.HasPrefix(message, "did not find expected") {
			at.Line++
		}
	}
	if name, ok := strings.CutPrefix(message, "unknown anchor '"); ok {
		name, _, _ = strings.Cut(name, "'")
		message = fmt.Sprintf("alias *%s has no anchor &%s above it", name, name)
		for i, l := range lines {
			if c := strings.Index(l, "*"+name); c >= 0 {
				at.Line, at.Column = i+1, c+1
				d.report(at, "", "%s", message)
				return
			}
		}
	}
	if message == "found unexpected end of stream" {
		message = "the file ends inside quotes; a \" or ' is not closed"
	}
	// The parser notices some mistakes a line late.
	for _, n := range []int{at.Line, at.Line + 1, at.Line - 1} {
		if n < 1 || n > len(lines) {
			continue
		}
		line := strings.TrimRight(lines[n-1], "\r")
		text := strings.TrimLeft(line, " \t")
		if tab := strings.IndexByte(line[:len(line)-len(text)], '\t'); tab >= 0 {
			at.Line, at.Column = n, tab+1
			d.report(at, "", "a tab in the indentation; YAML wants spaces")
			return
		}
	}
	if at.Line <= len(lines) {
		line := lines[at.Line-1]
		at.Column = len(line) - len(strings.TrimLeft(line, " ")) + 1
		if strings.Contains(line, "${") && !strings.Contains(line, `"${`) {
			d.report(at, "", "not YAML: %s; inside { } a reference needs quotes: \"${env:NAME}\"", message)
			return
		}
	}
	d.report(at, "", "not YAML: %s", message)
}
