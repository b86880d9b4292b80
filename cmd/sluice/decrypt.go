package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sluice-data/sluice/keys"
	"github.com/sluice-data/sluice/mappers"
)

// maxDecryptLine bounds a line of decrypt; topics take no larger record.
const maxDecryptLine = 16 << 20

// decrypter is one call of decrypt.
type decrypter struct {
	*app
	in                  io.Reader
	key, domain, method string
	stream, field       string
	ring                *keys.Ring
	alone               bool           // the key is one without versions, such as a private key
	persons             *keys.Subjects // of a rule with a key per person
}

// decrypted is the result of decrypt.
type decrypted struct {
	Opened  int      `json:"opened"`
	Refused int      `json:"refused"`
	Values  []string `json:"values,omitempty"` // with --json
}

func (a *app) decryptCommand() *cobra.Command {
	d := &decrypter{app: a, in: os.Stdin}
	cmd := &cobra.Command{
		Use:   "decrypt",
		Short: "Open what an encrypt rule has made, for holders of its key",
		Long: "decrypt reads ciphertexts from standard input, one a line, and writes their values.\n" +
			"With --field it reads JSON lines and opens that field of each; dots reach into objects.\n" +
			"--stream and --field find key and place in the rules of the file; --key and --domain name them without a file.\n" +
			"A text that does not open is refused with the number of its line, and the exit code is 1.",
		Example: "  sluice decrypt --stream shop-db.public.customers --field email < rows.jsonl\n" +
			"  sluice decrypt --key '${ring:keys/email.ring}' --domain shop-db.public.customers.email < texts",
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error { return d.run() },
	}
	f := cmd.Flags()
	f.StringVar(&d.key, "key", "", "the key: ${env:NAME}, ${file:path}, ${ring:path}, ${aws-kms:path} or ${vault:path}")
	f.StringVar(&d.domain, "domain", "", "the place that the texts are bound to: source.schema.table.field, or the domain of the rule")
	f.StringVar(&d.stream, "stream", "", "the stream whose rules say key and place")
	f.StringVar(&d.field, "field", "", "open this field of JSON lines instead of whole lines")
	f.StringVar(&d.method, "method", "", "of texts that do not say it themselves: aes-cbc, aes-ctr or aes-ecb")
	return cmd
}

func (d *decrypter) run() error {
	if err := d.resolve(); err != nil {
		return err
	}
	result := decrypted{}
	lines := bufio.NewScanner(d.in)
	lines.Buffer(make([]byte, 64<<10), maxDecryptLine)
	out := bufio.NewWriter(d.stdout)
	for n := 1; lines.Scan(); n++ {
		text, err := d.line(lines.Bytes())
		if err != nil {
			result.Refused++
			fmt.Fprintf(d.stderr, "line %d: %s\n", n, err) // invariant 7: never the line itself
			continue
		}
		result.Opened++
		if d.json {
			result.Values = append(result.Values, string(text))
			continue
		}
		if _, err := out.Write(append(text, '\n')); err != nil {
			return fmt.Errorf("write values: %w", err)
		}
	}
	d.result = result
	if err := errors.Join(out.Flush(), lines.Err()); err != nil {
		return fmt.Errorf("read standard input: %w", err)
	}
	if result.Refused > 0 {
		return fmt.Errorf("%s of %d did not open", count(result.Refused, "line"), result.Refused+result.Opened)
	}
	return nil
}

// resolve finds the key and the place.
func (d *decrypter) resolve() error {
	base, ref, dir := ".", keys.Ref{}, ""
	if d.stream != "" {
		f, err := d.load()
		if err != nil {
			return err
		}
		base = f.Base()
		if d.key == "" || d.domain == "" {
			e, err := encryptRule(f, d.stream, d.field)
			if err != nil {
				return invalid(err)
			}
			ref = e.Key
			if e.Per != "" {
				dir = f.Local(f.Dir)
			}
			if d.domain == "" {
				if d.domain = e.Domain; d.domain == "" {
					d.domain = d.stream + "." + e.Field
				}
			}
			if d.method == "" && (e.Method == "aes-cbc" || e.Method == "aes-ctr") {
				d.method = e.Method
			}
		}
	}
	if d.key != "" {
		var err error
		if ref, err = keys.ParseRef(d.key); err != nil {
			return invalid(fmt.Errorf("--key: %w", err))
		}
	}
	switch {
	case ref.IsZero():
		return invalid(errors.New("name the key with --key, or the rule with --stream and --field"))
	case d.domain == "" && d.method == "":
		return invalid(errors.New("name the place that the texts are bound to with --domain, or the rule with --stream and --field"))
	}
	ctx, stop := untilTerminated()
	defer stop()
	s := keys.Open(ctx, []keys.Ref{ref}, base, keys.NewServices(os.Getenv))
	if err := s.Err(ref); err != nil {
		return environment(err)
	}
	d.ring, _ = s.Ring(ref)
	d.alone = !ref.Scheme.IsRing()
	if dir != "" {
		var err error
		if d.persons, err = keys.OpenSubjects(subjectsPath(dir, ref), d.ring); err != nil {
			return environment(err)
		}
	}
	return nil
}

// line opens one line.
func (d *decrypter) line(line []byte) ([]byte, error) {
	if d.field == "" {
		return d.open(strings.TrimSpace(string(line)))
	}
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.UseNumber()
	row := map[string]any{}
	if dec.Decode(&row) != nil {
		return nil, errors.New("no JSON object")
	}
	place, name := row, d.field
	for {
		if _, ok := place[name]; ok {
			break
		}
		head, rest, dotted := strings.Cut(name, ".")
		inner, ok := place[head].(map[string]any)
		if !dotted || !ok {
			return nil, fmt.Errorf("there is no field %s", d.field)
		}
		place, name = inner, rest
	}
	switch v := place[name].(type) {
	case nil: // null stays null
	case string:
		text, err := d.open(v)
		if err != nil {
			return nil, err
		}
		place[name] = string(text)
	default:
		return nil, fmt.Errorf("field %s is no text", d.field)
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(row); err != nil {
		return nil, errors.New("the opened value makes no JSON")
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}

func (d *decrypter) open(sealed string) ([]byte, error) {
	if d.method != "" {
		var err error
		for _, v := range d.ring.Versions() {
			var text []byte
			if text, err = mappers.DecryptLegacy(d.method, sealed, v.Value()); err == nil {
				return text, nil
			}
		}
		return nil, err
	}
	id, ok := mappers.SealedKeyID(sealed)
	if !ok {
		return nil, errors.New("no ciphertext of an encrypt rule")
	}
	if d.persons != nil {
		key, ok := d.persons.ByID(id)
		if !ok {
			return nil, errors.New("the person it is about has no key any more")
		}
		return mappers.Decrypt(sealed, key, d.domain)
	}
	if _, have := d.ring.Key(id); !have && !d.alone {
		return nil, fmt.Errorf("it was made with key %s, which the ring does not have or has disabled", id)
	}
	return mappers.Open(sealed, d.domain, opener{d.ring, d.alone})
}

// opener gives the only key there is for every id: a private key does not
// have the id of its public half.
type opener struct {
	ring  *keys.Ring
	alone bool
}

// Key returns the key with this id.
func (o opener) Key(id string) ([]byte, bool) {
	if key, ok := o.ring.Key(id); ok || !o.alone {
		return key, ok
	}
	return o.ring.Primary().Value(), true
}
