package canary

import (
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"strings"
)

// planter makes values that are nowhere else and has them looked for.
type planter struct {
	random *rand.Rand
	scan   *Scanner
}

const letters = "abcdefghijklmnopqrstuvwxyz0123456789"

func (p *planter) word(place string) string {
	b := make([]byte, 14)
	for i := range b {
		b[i] = letters[p.random.IntN(len(letters))]
	}
	p.scan.Plant(place, string(b))
	return string(b)
}

// digits returns n digits, the first of them not zero.
func (p *planter) digits(place string, n int) string {
	b := []byte{byte('1' + p.random.IntN(9))}
	for len(b) < n {
		b = append(b, byte('0'+p.random.IntN(10)))
	}
	p.scan.Plant(place, string(b))
	return string(b)
}

// field is a protected column.
type field struct {
	name, kind string                             // as SQL writes it
	rules      []string                           // %K is the folder of keys
	value      func(p *planter, at string) string // a value as an SQL literal
}

// word is a field whose values are words; form holds each of them as %s.
func word(name, form string, rules ...string) field {
	return field{name: name, kind: "text", rules: rules, value: func(p *planter, at string) string { return "'" + strings.ReplaceAll(form, "%s", p.word(at)) + "'" }}
}

// fields are the protected columns of every table, each with its rule.
var fields = []field{
	word("email", "%s@shop.example", `hash: { field: email, key: "${file:%K/hmac}", normalize: email, suffix: "" }`),
	word("sha", "%s", `hash: { field: sha, method: sha256 }`),
	word("name", "%s", `encrypt: { field: name, key: "${file:%K/aes}" }`),
	word("sealed", "%s", `encrypt: { field: sealed, method: rsa-hybrid, key: "${file:%K/public.pem}" }`),
	word("legacy", "%s", `encrypt: { field: legacy, method: aes-cbc, key: "${file:%K/cbc}" }`),
	word("ssn", "%s", `drop: { fields: [ssn] }`),
	word("iban", "DE%s51", `mask: { field: iban, keep_first: 2, keep_last: 2 }`),
	word("mailbox", "%s@shop.example", `mask: { field: mailbox, kind: email }`),
	word("note", "%s", `redact: { fields: [note] }`),
	word("token", "%s", `tokenize: { field: token, key: "${file:%K/hmac}" }`),
	word("nick", "%s", `pseudonym: { field: nick, key: "${file:%K/hmac}" }`),
	word("vat", "%s", `hash: { field: "tagged:pii", key: "${file:%K/hmac}" }`),
	word("motto", "%s", `redact: { fields: [motto] }`),
	{name: "mobile", kind: "text", rules: []string{`mask: { field: mobile, kind: phone, normalize: phone }`},
		value: func(p *planter, at string) string { return "'+49" + p.digits(at, 11) + "'" }},
	{name: "card", kind: "text", rules: []string{`mask: { field: card, kind: card }`},
		value: func(p *planter, at string) string { return "'" + p.digits(at, 16) + "'" }},
	{name: "ip", kind: "text", rules: []string{`mask: { field: ip, kind: ip }`}, value: func(p *planter, at string) string {
		groups := make([]string, 5)
		for i := range groups {
			groups[i] = fmt.Sprintf("%x", 0x1000+p.random.IntN(0xefff))
		}
		p.scan.Plant(at, strings.Join(groups, ":"))
		return "'2001:db8:1:" + strings.Join(groups, ":") + "'"
	}},
	{name: "account", kind: "bigint", rules: []string{`hash: { field: account, key: "${file:%K/hmac}" }`}, value: func(p *planter, at string) string {
		n := 1e17 + p.random.Int64N(8e17)
		p.scan.PlantNumber(at, n)
		return fmt.Sprint(n)
	}},
	{name: "salary", kind: "numeric(30,4)", rules: []string{`hash: { field: salary, method: sha512 }`},
		value: func(p *planter, at string) string { return p.digits(at, 18) + ".5" }},
	{name: "badge", kind: "uuid", rules: []string{`hash: { field: badge, method: md5 }`}, value: func(p *planter, at string) string {
		b := p.bytes(at)
		id := hex.EncodeToString(b)
		id = id[:8] + "-" + id[8:12] + "-" + id[12:16] + "-" + id[16:20] + "-" + id[20:]
		p.scan.Plant(at, id)
		return "'" + id + "'"
	}},
	{name: "photo", kind: "bytea", rules: []string{`encrypt: { field: photo, key: "${file:%K/aes}" }`},
		value: func(p *planter, at string) string { return `'\x` + hex.EncodeToString(p.bytes(at)) + "'" }},
	{name: "phones", kind: "text[]", rules: []string{`hash: { field: "phones[*]", method: sha1 }`},
		value: func(p *planter, at string) string {
			return "ARRAY['" + p.word(at) + "', NULL, '" + p.word(at) + "']"
		}},
	{name: "profile", kind: "jsonb", rules: []string{`hash: { field: profile.email, key: "${file:%K/hmac}" }`,
		`drop: { fields: ["profile.cards[*].pan"] }`, `redact: { fields: ['profile."a.b"'] }`, `encrypt: { field: profile.deep.er, key: "${file:%K/aes}" }`},
		value: func(p *planter, at string) string {
			return fmt.Sprintf(`'{"email":%q,"cards":[{"pan":%q,"till":1},{"pan":%q}],"a.b":{"x":%q},"deep":{"er":[%q]},"open":1}'`,
				p.word(at+".email"), p.word(at+".pan"), p.word(at+".pan"), p.word(at+".a.b"), p.word(at+".deep"))
		}},
	// Too long to be sent with every update: PostgreSQL keeps it outside of the row.
	{name: "dossier", kind: "text", rules: []string{`encrypt: { field: dossier, key: "${file:%K/aes}" }`}, value: func(p *planter, at string) string {
		var b strings.Builder
		b.WriteString(p.word(at))
		for b.Len() < 4000 {
			fmt.Fprintf(&b, " %x", p.random.Uint64())
		}
		return "'" + b.String() + " " + p.word(at) + "'"
	}},
}

func (p *planter) bytes(place string) []byte {
	b := make([]byte, 16)
	for i := range b {
		b[i] = byte(p.random.Uint32())
	}
	p.scan.PlantBytes(place, b)
	return b
}

// table is a table with all protected fields, and some that are not.
type table struct {
	name, key, identity string   // key: "" for a table without one
	rule                string   // of the key's field
	more                []string // further rules
	next                int      // id of the next row
}

var tables = []*table{
	{name: "people", key: "PRIMARY KEY (tenant, code)", identity: "DEFAULT", rule: `encrypt: { field: code, method: aes-siv, key: "${file:%K/siv}" }`},
	{name: "clients", key: "PRIMARY KEY (code)", identity: "FULL", rule: `hash: { field: code, key: "${file:%K/hmac}" }`},
	{name: "visits", key: "", identity: "FULL", rule: `pseudonym: { field: code, key: "${file:%K/hmac}" }`},
}

// create returns the SQL that makes t; defaults, comments and labels are planted too.
func (t *table) create(p *planter) string {
	var b strings.Builder
	label := p.word(t.name + ".level, label")
	fmt.Fprintf(&b, "CREATE TYPE %[1]s_level AS ENUM ('%[2]s', '%[3]s');\nCREATE TABLE %[1]s (id bigint NOT NULL, tenant int NOT NULL DEFAULT 7, code text NOT NULL, stage text NOT NULL DEFAULT 'lead', at timestamptz NOT NULL DEFAULT now(), readers jsonb NOT NULL DEFAULT '[\"public\"]', level %[1]s_level DEFAULT '%[2]s'",
		t.name, label, p.word(t.name+".level, label"))
	for _, f := range fields {
		fmt.Fprintf(&b, ", %s %s DEFAULT %s", f.name, f.kind, f.value(p, t.name+"."+f.name+", default"))
	}
	if t.key != "" {
		b.WriteString(", " + t.key)
	}
	fmt.Fprintf(&b, ");\nALTER TABLE %[1]s REPLICA IDENTITY %[2]s;\nALTER TABLE %[1]s ALTER dossier SET STORAGE EXTERNAL;\nCOMMENT ON COLUMN %[1]s.note IS '%[3]s';\n", t.name, t.identity, p.word(t.name+".note, comment"))
	return b.String()
}

// insert returns the SQL of n more rows; set changes values of them.
func (t *table) insert(p *planter, n int, set map[string]string) string {
	names := []string{"id", "code"}
	for _, f := range fields {
		names = append(names, f.name)
	}
	for name := range set {
		if !strings.Contains(","+strings.Join(names, ",")+",", ","+name+",") {
			names = append(names, name)
		}
	}
	rows := make([]string, n)
	for i := range rows {
		t.next++
		values := make([]string, len(names))
		for j, name := range names {
			values[j] = t.value(p, name, "insert", set)
		}
		rows[i] = "(" + strings.Join(values, ", ") + ")"
	}
	return fmt.Sprintf("INSERT INTO %s (%s) VALUES %s;\n", t.name, strings.Join(names, ", "), strings.Join(rows, ",\n"))
}

func (t *table) value(p *planter, name, how string, set map[string]string) string {
	if v, ok := set[name]; ok {
		return v
	}
	if name == "id" {
		return fmt.Sprint(t.next)
	}
	place := t.name + "." + name + ", " + how
	for _, f := range fields {
		if f.name == name {
			return f.value(p, place)
		}
	}
	return "'" + p.word(place) + "'"
}

// update returns the SQL that gives the row id new values in some fields.
func (t *table) update(p *planter, id int, names ...string) string {
	set := make([]string, len(names))
	for i, name := range names {
		set[i] = name + " = " + t.value(p, name, "update", nil)
	}
	return fmt.Sprintf("UPDATE %s SET %s WHERE id = %d;\n", t.name, strings.Join(set, ", "), id)
}

// changes returns inserts, updates, deletes and changes of keys.
func (t *table) changes(p *planter) string {
	var b strings.Builder
	b.WriteString(t.insert(p, 5, nil))
	all := []string{"stage"}
	for _, f := range fields {
		b.WriteString(t.update(p, 1+p.random.IntN(t.next), f.name))
		all = append(all, f.name)
	}
	b.WriteString(t.update(p, 2+p.random.IntN(t.next), all[1:]...))
	fmt.Fprintf(&b, "UPDATE %s SET stage = 'customer' WHERE id %% 5 = 1;\n", t.name)
	b.WriteString(t.update(p, 3, "code") + t.update(p, 4, "code", "email") + t.update(p, t.next, "code", "dossier"))
	fmt.Fprintf(&b, "DELETE FROM %s WHERE id IN (%d, %d);\n", t.name, t.next-1, t.next-3)
	return b.String()
}
