package mappers

import "github.com/sluice-data/sluice/keys"

// Phase says where a chain runs.
type Phase uint8

// The two phases.
const (
	Protect Phase = 1 + iota // in the source, before anything reaches a topic
	Shape                    // in a consumer, before its sink
)

// String returns the name of the list in the configuration: "protect" or "shape".
func (p Phase) String() string {
	if p == Protect {
		return "protect"
	}
	return "shape"
}

// Rule is one entry of a protect or shape list: exactly one field is set.
type Rule struct {
	Hash     *Hash             `yaml:"hash" doc:"Replaces a value by its digest."`
	Encrypt  *Encrypt          `yaml:"encrypt" doc:"Replaces a value by its ciphertext."`
	Mask     *Mask             `yaml:"mask" doc:"Hides most of a value and keeps a recognisable rest."`
	Redact   *Redact           `yaml:"redact" doc:"Replaces every value of some fields by a fixed text."`
	Drop     *Drop             `yaml:"drop" doc:"Removes fields."`
	Keep     *Keep             `yaml:"keep" doc:"Removes all fields but the named ones."`
	Allow    *Allow            `yaml:"allow" doc:"Lets new columns of a protected stream pass unchanged."`
	Rename   map[string]string `yaml:"rename" doc:"Gives fields new names: old name to new name, all at once."`
	Filter   *Filter           `yaml:"filter" doc:"Keeps the rows for which a condition is true."`
	Cast     *Cast             `yaml:"cast" doc:"Changes the type of a field without loss; a value that does not fit is rejected."`
	Default  *Default          `yaml:"default" doc:"Replaces null by a value."`
	Constant *Constant         `yaml:"constant" doc:"Adds a field with the same value in every row."`
	Concat   *Concat           `yaml:"concat" doc:"Adds a text field made of other fields."`
	Truncate *Truncate         `yaml:"truncate" doc:"Shortens a text, or rounds a date or time down."`
}

// Hash replaces a value by the lower-case hexadecimal digest of its canonical
// text (see AppendCanonical). Null stays null.
//
// The seven plain digests give the same bytes as Airbyte's hashing mapper for
// texts. They can be reversed by trying all values of a small domain such as
// phone numbers: prefer the keyed methods.
type Hash struct {
	Field     string   `yaml:"field" required:"true" doc:"The field to hash; the result is a text field; * stands for any characters, so that *email* means all such fields; profile.email is a field inside a json field."`
	Method    string   `yaml:"method" enum:"hmac-sha256,hmac-sha512,sha256,sha512,sha384,sha224,sha1,md5,md2" default:"hmac-sha256" doc:"The digest; the hmac methods need a key and cannot be reversed by guessing."`
	Key       keys.Ref `yaml:"key" doc:"Reference to the secret key of an hmac method, at least 16 bytes."`
	Salt      string   `yaml:"salt" doc:"Text put before every value, for example one per tenant; it is no secret."`
	Normalize string   `yaml:"normalize" enum:"none,trim-lower,email,email-google,phone" default:"none" doc:"What is done to a text before it is hashed."`
	Suffix    string   `yaml:"suffix" doc:"Appended to the field's name, for example _hashed; empty keeps the name."`
	Length    int      `yaml:"length" doc:"Hexadecimal digits to keep, 32 or more; fewer digits make two values collide more likely; 0 keeps all."`
}

// Encrypt replaces a value by a ciphertext that names its method and key, so
// that a holder of the key needs nothing else to read it.
type Encrypt struct {
	Field  string   `yaml:"field" required:"true" doc:"The field to encrypt; the result is a text field; * stands for any characters."`
	Method string   `yaml:"method" enum:"aes-gcm,aes-siv,aes-cbc,aes-ctr" default:"aes-gcm" doc:"aes-gcm gives another ciphertext every time; aes-siv gives equal values equal ciphertexts, so that they can be joined and be keys; aes-cbc and aes-ctr write what Airbyte writes, which nothing protects from changes."`
	Key    keys.Ref `yaml:"key" required:"true" doc:"Reference to the secret key: 32 bytes for aes-gcm, 32, 48 or 64 for aes-siv, 16, 24 or 32 for the others."`
	Domain string   `yaml:"domain" doc:"The place a ciphertext is bound to; the default is stream and field. Fields of one domain can be joined."`
	Suffix string   `yaml:"suffix" doc:"Appended to the field's name; empty keeps the name."`
}

// Mask hides most of a text.
type Mask struct {
	Field     string `yaml:"field" required:"true" doc:"The text field to mask; * stands for any characters."`
	Kind      string `yaml:"kind" enum:"chars,email,phone,card,ip" default:"chars" doc:"chars hides all but keep_first and keep_last characters; email keeps the first letter and the domain; phone and card keep the last digits; ip keeps the network."`
	KeepFirst int    `yaml:"keep_first" doc:"Characters kept at the start."`
	KeepLast  int    `yaml:"keep_last" doc:"Characters kept at the end; of a phone or card number its digits, 4 by default."`
	Char      string `yaml:"char" default:"*" doc:"The character that stands for a hidden one."`
}

// Redact replaces every value by one text. Null stays null.
type Redact struct {
	Fields []string `yaml:"fields" required:"true" doc:"The fields, each of which becomes a text field; * stands for any characters."`
	With   string   `yaml:"with" default:"[redacted]" doc:"The text that replaces every value."`
}

// Drop removes fields.
type Drop struct {
	Fields []string `yaml:"fields" required:"true" doc:"The fields to remove, but no key fields; * stands for any characters."`
}

// Keep removes all other fields.
type Keep struct {
	Fields []string `yaml:"fields" required:"true" doc:"The fields that stay, every key field among them; * stands for any characters."`
}

// Allow names columns that may pass although they came after the protect rules were written.
type Allow struct {
	Fields []string `yaml:"fields" required:"true" doc:"Columns that may reach the topics as they are."`
}

// Filter keeps rows. A row that stops matching is deleted at the sink, one
// that starts to match is inserted.
type Filter struct {
	Where string `yaml:"where" required:"true" doc:"A condition in the style of SQL: status = 'paid' and amount > 10."`
}

// Cast changes a field's type.
type Cast struct {
	Field string `yaml:"field" required:"true" doc:"The field to cast."`
	To    string `yaml:"to" required:"true" doc:"The new type: text, bool, int16, int32, int64, float64, decimal(p,s), date, timestamp, timestamptz, uuid, json or bytes."`
}

// Default replaces null.
type Default struct {
	Field string `yaml:"field" required:"true" doc:"The field whose nulls are replaced."`
	Value string `yaml:"value" required:"true" doc:"The value, written as text in the form the field's type has."`
}

// Constant adds a field.
type Constant struct {
	Field string `yaml:"field" required:"true" doc:"The name of the new field."`
	Value string `yaml:"value" doc:"Its value, written as text."`
	Type  string `yaml:"type" default:"text" doc:"Its type, as in cast."`
}

// Concat adds a text field.
type Concat struct {
	Field     string   `yaml:"field" required:"true" doc:"The name of the new field."`
	Fields    []string `yaml:"fields" required:"true" doc:"The fields whose canonical texts are joined; nulls are left out."`
	Separator string   `yaml:"separator" doc:"The text between two values."`
}

// Truncate shortens a text or rounds a point in time down.
type Truncate struct {
	Field string `yaml:"field" required:"true" doc:"The field to shorten."`
	Chars int    `yaml:"chars" doc:"Characters of a text to keep."`
	To    string `yaml:"to" enum:"second,minute,hour,day,month,year" doc:"The unit a date, time or timestamp is rounded down to."`
}

// Kind returns the name of the rule that is set, such as "hash"; "" if none or several are.
func (r *Rule) Kind() string {
	kind := ""
	for _, k := range []struct {
		set  bool
		name string
	}{
		{r.Hash != nil, "hash"}, {r.Encrypt != nil, "encrypt"}, {r.Mask != nil, "mask"}, {r.Redact != nil, "redact"},
		{r.Drop != nil, "drop"}, {r.Keep != nil, "keep"}, {r.Allow != nil, "allow"}, {r.Rename != nil, "rename"},
		{r.Filter != nil, "filter"}, {r.Cast != nil, "cast"}, {r.Default != nil, "default"},
		{r.Constant != nil, "constant"}, {r.Concat != nil, "concat"}, {r.Truncate != nil, "truncate"},
	} {
		if k.set && kind != "" {
			return ""
		}
		if k.set {
			kind = k.name
		}
	}
	return kind
}

// Names returns the fields of the incoming stream that r speaks of.
func (r *Rule) Names() []string {
	switch {
	case r.Hash != nil:
		return []string{r.Hash.Field}
	case r.Encrypt != nil:
		return []string{r.Encrypt.Field}
	case r.Mask != nil:
		return []string{r.Mask.Field}
	case r.Redact != nil:
		return r.Redact.Fields
	case r.Drop != nil:
		return r.Drop.Fields
	case r.Keep != nil:
		return r.Keep.Fields
	case r.Allow != nil:
		return r.Allow.Fields
	case r.Rename != nil:
		return sortedKeys(r.Rename)
	case r.Cast != nil:
		return []string{r.Cast.Field}
	case r.Default != nil:
		return []string{r.Default.Field}
	case r.Concat != nil:
		return r.Concat.Fields
	case r.Truncate != nil:
		return []string{r.Truncate.Field}
	}
	return nil
}

// takesPatterns reports whether the names of r may hold *.
func (r *Rule) takesPatterns() bool {
	return r.protects() || r.Drop != nil || r.Keep != nil || r.Allow != nil
}

// protects reports whether r hides the values of its fields.
func (r *Rule) protects() bool {
	return r.Hash != nil || r.Encrypt != nil || r.Mask != nil || r.Redact != nil
}
