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

	Tokenize    *Tokenize    `yaml:"tokenize" doc:"Replaces letters and digits by keyed others of the same class."`
	Pseudonym   *Pseudonym   `yaml:"pseudonym" doc:"Replaces a value by a short keyed name."`
	JSONExtract *JSONExtract `yaml:"json_extract" doc:"Copies a value out of a document into a field of its own."`
	Move        *Move        `yaml:"move" doc:"Moves a value out of a document, into one, or from one name to another."`
	Nest        *Nest        `yaml:"nest" doc:"Moves fields into one document."`
	Flatten     *Flatten     `yaml:"flatten" doc:"Moves members of a document into fields of their own."`
	Split       *Split       `yaml:"split" doc:"Cuts a text at a separator into fields or a list."`
	Lookup      *Lookup      `yaml:"lookup" doc:"Adds a field whose value a table has for another field."`
	Derive      *Derive      `yaml:"derive" doc:"Adds a field that a CEL expression computes."`
}

// Hash replaces a value by the lower-case hexadecimal digest of its canonical
// text (see AppendCanonical). Null stays null.
//
// The seven plain digests give the same bytes as Airbyte's hashing mapper for
// texts. They can be reversed by trying all values of a small domain such as
// phone numbers: prefer the keyed methods.
type Hash struct {
	Field     string   `yaml:"field" required:"true" or:"matching,type,tagged" doc:"The field to hash; the result is a text field. *email* means all fields with such a name, {type: text} all of a type, {tagged: pii} all with a tag; profile.email is inside a json field, phones[*] are the elements of a list."`
	Method    string   `yaml:"method" enum:"hmac-sha256,hmac-sha512,sha256,sha512,sha384,sha224,sha1,md5,md2" default:"hmac-sha256" doc:"The digest; the hmac methods need a key and cannot be reversed by guessing."`
	Key       keys.Ref `yaml:"key" doc:"Reference to the secret key of an hmac method, at least 16 bytes."`
	Salt      string   `yaml:"salt" doc:"Text put before every value; it is no secret."`
	SaltField string   `yaml:"salt_field" doc:"A field whose canonical text and a zero byte are put before every value, for example tenant_id: equal values of two tenants get different digests. Of a key field it must be a key field too."`
	Normalize string   `yaml:"normalize" enum:"none,trim-lower,email,email-google,phone" default:"none" doc:"What is done to a text before it is hashed."`
	Suffix    string   `yaml:"suffix" doc:"Appended to the field's name, for example _hashed; empty keeps the name."`
	Length    int      `yaml:"length" doc:"Hexadecimal digits to keep, at least 32; 0 keeps all. Of n different values two collide with a chance of about n²/2^(4·length+1): with 32 digits and ten billion values 1 in 10^19."`
}

// Encrypt replaces a value by a ciphertext that names its method and key, so
// that a holder of the key needs nothing else to read it.
type Encrypt struct {
	Field  string   `yaml:"field" required:"true" or:"matching,type,tagged" doc:"The field to encrypt, as in hash; the result is a text field."`
	Method string   `yaml:"method" enum:"aes-gcm,aes-siv,rsa-oaep,rsa-hybrid,aes-cbc,aes-ctr" default:"aes-gcm" doc:"aes-gcm gives another ciphertext every time; aes-siv gives equal values equal ciphertexts, so that they can be joined and be keys; rsa-oaep and rsa-hybrid need only a public key here, rsa-oaep for at most 190 bytes with 2048 bits, rsa-hybrid for any length; aes-cbc and aes-ctr write what Airbyte writes, which nothing protects from changes."`
	Key    keys.Ref `yaml:"key" required:"true" doc:"Reference to the secret key or key ring: 32 bytes for aes-gcm, 32, 48 or 64 for aes-siv, 16, 24 or 32 for aes-cbc and aes-ctr; for rsa-oaep and rsa-hybrid the public key as PEM or as hexadecimal DER."`
	Domain string   `yaml:"domain" doc:"The place a ciphertext is bound to; the default is stream and field. Fields of one domain can be joined."`
	Suffix string   `yaml:"suffix" doc:"Appended to the field's name; empty keeps the name."`
	Per    string   `yaml:"per" doc:"A field that names a person: each has a key of their own, which sluice erase destroys. The key of the rule then wraps those; only with aes-gcm and aes-siv."`
}

// Mask hides most of a text.
type Mask struct {
	Field     string `yaml:"field" required:"true" or:"matching,type,tagged" doc:"The text field to mask, as in hash; for the kind date a date or timestamp."`
	Kind      string `yaml:"kind" enum:"chars,email,phone,card,ip,date" default:"chars" doc:"chars hides all but keep_first and keep_last characters; email keeps the first letter and the domain; phone and card keep the last digits; ip keeps the network, 24 bits of IPv4 and 48 of IPv6; date keeps the year, or with keep: month the month, and the rest becomes the first day."`
	KeepFirst int    `yaml:"keep_first" doc:"Characters kept at the start."`
	KeepLast  int    `yaml:"keep_last" doc:"Characters kept at the end; of a phone or card number its digits, 4 by default."`
	Keep      string `yaml:"keep" enum:"year,month" doc:"What the kind date keeps; year by default."`
	Normalize string `yaml:"normalize" enum:"none,trim-lower,email,email-google,phone" default:"none" doc:"What is done to a text before it is masked; phone writes +4930123456 and refuses a number without country."`
	Char      string `yaml:"char" default:"*" doc:"The character that stands for a hidden one."`
}

// Redact replaces every value by one text. Null stays null.
type Redact struct {
	Fields []string `yaml:"fields" required:"true" or:"matching,type,tagged" doc:"The fields, as in hash; each becomes a text field."`
	With   string   `yaml:"with" default:"[redacted]" doc:"The text that replaces every value."`
}

// Drop removes fields.
type Drop struct {
	Fields []string `yaml:"fields" required:"true" or:"matching,type,tagged" doc:"The fields to remove, as in hash, but no key fields."`
}

// Keep removes all other fields.
type Keep struct {
	Fields []string `yaml:"fields" required:"true" or:"matching,type,tagged" doc:"The fields that stay, every key field among them; * stands for any characters."`
}

// Allow names columns that may pass although they came after the protect rules were written, or will come.
type Allow struct {
	Fields []string `yaml:"fields" required:"true" or:"matching,type,tagged" doc:"Columns that may reach the topics as they are."`
}

// Filter keeps rows. A row that stops matching is deleted at the sink, one
// that starts to match is inserted.
type Filter struct {
	Where string `yaml:"where" oneof:"condition" doc:"A condition in the style of SQL: status = 'paid' and amount > 10."`
	CEL   string `yaml:"cel" oneof:"condition" doc:"Instead of where, a condition in the Common Expression Language, as in derive: status == 'paid' && amount > 10."`
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

// Tokenize replaces every letter and digit by another of its class. Equal
// values get equal tokens, but a token is not reversible and two values can get
// the same one: it is a mask that looks like data, not encryption.
type Tokenize struct {
	Field  string   `yaml:"field" required:"true" or:"matching,type,tagged" doc:"The text field, as in hash, but no key field: two values can get one token."`
	Key    keys.Ref `yaml:"key" required:"true" doc:"Reference to the secret key, at least 16 bytes."`
	Domain string   `yaml:"domain" doc:"Fields of one domain give equal values equal tokens; the default is stream and field."`
	Keep   int      `yaml:"keep_last" doc:"Letters and digits at the end that stay as they are."`
}

// Pseudonym replaces a value by a prefix and 26 letters and digits, 128 bits of
// a keyed digest.
type Pseudonym struct {
	Field  string   `yaml:"field" required:"true" or:"matching,type,tagged" doc:"The field, as in hash; the result is a text field."`
	Key    keys.Ref `yaml:"key" required:"true" doc:"Reference to the secret key, at least 16 bytes."`
	Domain string   `yaml:"domain" doc:"Fields of one domain give equal values equal pseudonyms, so that tables can be joined; the default is stream and field."`
	Prefix string   `yaml:"prefix" doc:"Text in front of every pseudonym, such as person_."`
	Suffix string   `yaml:"suffix" doc:"Appended to the field's name; empty keeps the name."`
}

// JSONExtract copies a value out of a document.
type JSONExtract struct {
	From  string `yaml:"from" required:"true" doc:"The path of the value: profile.address.city or items[0].sku."`
	Field string `yaml:"field" required:"true" doc:"The name of the new field."`
	Type  string `yaml:"type" default:"text" doc:"Its type, as in cast. A document without the path gives null, a value that does not fit is refused."`
}

// Move changes the place of a value.
type Move struct {
	From string `yaml:"from" required:"true" doc:"A field or a path into a json field."`
	To   string `yaml:"to" required:"true" doc:"A new field, or a path into a json field, whose missing objects are made."`
	Type string `yaml:"type" default:"text" doc:"The type of a value that leaves a document, as in cast."`
}

// Nest moves fields into a document.
type Nest struct {
	Field  string   `yaml:"field" required:"true" doc:"The name of the new json field."`
	Fields []string `yaml:"fields" required:"true" or:"matching,type,tagged" doc:"The fields that become its members, as in hash, but no key fields."`
}

// Flatten moves members of a document into fields.
type Flatten struct {
	Field  string            `yaml:"field" required:"true" doc:"The json field."`
	Fields map[string]string `yaml:"fields" required:"true" doc:"The path of each member in the document, and its type as in cast."`
	Prefix string            `yaml:"prefix" doc:"Put before the name of every new field, in which _ stands for the dots of its path."`
	Keep   bool              `yaml:"keep" doc:"Keep the document too."`
}

// Split cuts a text.
type Split struct {
	Field     string   `yaml:"field" required:"true" doc:"The text field to cut."`
	Separator string   `yaml:"separator" required:"true" doc:"Where it is cut."`
	Into      []string `yaml:"into" doc:"The names of new text fields: the last takes the rest, those without a part are null. Without into the field becomes a list."`
	Keep      bool     `yaml:"keep" doc:"With into: keep the field too."`
}

// Lookup adds a field from a table.
type Lookup struct {
	Field   string `yaml:"field" required:"true" doc:"The name of the new text field."`
	From    string `yaml:"from" required:"true" doc:"The field whose canonical text is looked up."`
	File    string `yaml:"file" required:"true" doc:"A CSV file with a header line; relative paths start at the configuration's folder."`
	Key     string `yaml:"key" required:"true" doc:"The column of the file to look in; every value in it is there once."`
	Value   string `yaml:"value" required:"true" doc:"The column of the file to take the value from."`
	Missing string `yaml:"missing" enum:"null,reject,default" default:"null" doc:"What becomes of a value that the file does not have."`
	Default string `yaml:"default" doc:"The value for missing: default."`
}

// Derive adds a computed field.
type Derive struct {
	Field string `yaml:"field" required:"true" doc:"The name of the new field; its type is that of the expression."`
	CEL   string `yaml:"cel" required:"true" doc:"An expression in the Common Expression Language over the fields: price * quantity. Null in gives null out, as in SQL; x == null tests for it."`
}
