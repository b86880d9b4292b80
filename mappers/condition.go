package mappers

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// A condition is what stands behind where, in the style of SQL:
//
//	condition = and {"or" and} ; and = not {"and" not} ; not = ["not"] test
//	test      = "(" condition ")" | operand | operand op operand
//	          | operand "is" ["not"] "null"
//	          | operand ["not"] "in" "(" literal {"," literal} ")"
//	          | operand ["not"] "between" operand "and" operand
//	          | operand ["not"] ("like" | "ilike") text
//	op        = "=" | "<>" | "!=" | "<" | "<=" | ">" | ">="
//	operand   = name | "quoted name" | literal
//	literal   = 12.5 | 'text' | true | false
//
// Words are read in any case, names exactly as they are. Logic is SQL's: a
// comparison with null is neither true nor false.

// syntaxError is a mistake in a condition at a byte offset.
type syntaxError struct {
	offset int
	msg    string
}

func (e *syntaxError) Error() string { return fmt.Sprintf("at %d: %s", e.offset+1, e.msg) }

type tokenKind uint8

const (
	tokEnd tokenKind = iota
	tokName
	tokQuoted // a "quoted name"
	tokNumber
	tokText
	tokSymbol
)

type token struct {
	kind   tokenKind
	text   string // of a text or quoted name: what is between the quotes
	offset int
}

// word reports whether t is the keyword w.
func (t token) word(w string) bool { return t.kind == tokName && strings.EqualFold(t.text, w) }

func (t token) symbol(s string) bool { return t.kind == tokSymbol && t.text == s }

func (t token) String() string {
	switch t.kind {
	case tokEnd:
		return "the end"
	case tokText:
		return "a text" // a literal may be a value of the data
	case tokNumber:
		return "a number"
	}
	return t.text
}

// scan splits a condition into tokens; the last one is tokEnd.
func scan(s string) ([]token, *syntaxError) {
	var tokens []token
	for i := 0; i < len(s); {
		c, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case unicode.IsSpace(c):
			i += size
		case c == '\'' || c == '"':
			text, end, ok := quoted(s, i)
			if !ok {
				return nil, &syntaxError{i, "a quote is not closed"}
			}
			kind := tokText
			if c == '"' {
				kind = tokQuoted
			}
			tokens = append(tokens, token{kind, text, i})
			i = end
		case c >= '0' && c <= '9' || c == '.' || c == '-' && numberStarts(s, i+1) && !operandEnds(tokens):
			end := i + 1
			for end < len(s) && numberGoesOn(s, i, end) {
				end++
			}
			tokens = append(tokens, token{tokNumber, s[i:end], i})
			i = end
		case c == '_' || unicode.IsLetter(c):
			end := i + size
			for end < len(s) {
				r, n := utf8.DecodeRuneInString(s[end:])
				if r != '_' && r != '$' && !unicode.IsLetter(r) && !unicode.IsDigit(r) {
					break
				}
				end += n
			}
			tokens = append(tokens, token{tokName, s[i:end], i})
			i = end
		default:
			sym := symbolAt(s[i:])
			if sym == "" {
				return nil, &syntaxError{i, fmt.Sprintf("unexpected character %q", c)}
			}
			tokens = append(tokens, token{tokSymbol, sym, i})
			i += len(sym)
		}
	}
	return append(tokens, token{tokEnd, "", len(s)}), nil
}

func symbolAt(s string) string {
	for _, sym := range []string{"<=", ">=", "<>", "!=", "==", "=", "<", ">", "(", ")", ","} {
		if strings.HasPrefix(s, sym) {
			return sym
		}
	}
	return ""
}

func numberStarts(s string, i int) bool {
	return i < len(s) && (s[i] >= '0' && s[i] <= '9' || s[i] == '.')
}

func numberGoesOn(s string, start, i int) bool {
	switch c := s[i]; {
	case c >= '0' && c <= '9' || c == '.' || c == 'e' || c == 'E':
		return true
	case c == '+' || c == '-':
		return i > start && (s[i-1] == 'e' || s[i-1] == 'E')
	}
	return false
}

// operandEnds reports whether a minus here would be a subtraction.
func operandEnds(tokens []token) bool {
	if len(tokens) == 0 {
		return false
	}
	t := tokens[len(tokens)-1]
	return t.kind == tokNumber || t.kind == tokText || t.kind == tokQuoted || t.symbol(")")
}

// quoted reads the quoted text at i; a doubled quote stands for one.
func quoted(s string, i int) (text string, end int, ok bool) {
	q := s[i]
	var b strings.Builder
	for j := i + 1; j < len(s); j++ {
		if s[j] != q {
			b.WriteByte(s[j])
			continue
		}
		if j+1 < len(s) && s[j+1] == q {
			b.WriteByte(q)
			j++
			continue
		}
		return b.String(), j + 1, true
	}
	return "", 0, false
}

// condition is the syntax tree of a condition.
type condition struct {
	op     string // or and not | = <> < <= > >= | is null, in, like, ilike, between | value
	args   []*condition
	value  token // of op value
	offset int
}

type parser struct {
	tokens []token
	at     int
	depth  int
}

// maxDepth bounds nesting, so that no condition can exhaust the stack.
const maxDepth = 200

// parseCondition reads a whole condition.
func parseCondition(s string) (*condition, *syntaxError) {
	if strings.TrimSpace(s) == "" {
		return nil, &syntaxError{0, "the condition is empty"}
	}
	tokens, err := scan(s)
	if err != nil {
		return nil, err
	}
	p := &parser{tokens: tokens}
	c, err := p.or()
	if err != nil {
		return nil, err
	}
	if t := p.peek(); t.kind != tokEnd {
		if t.symbol("==") {
			return nil, &syntaxError{t.offset, "unexpected ==; equality is ="}
		}
		return nil, &syntaxError{t.offset, "unexpected " + t.String()}
	}
	return c, nil
}

func (p *parser) peek() token { return p.tokens[p.at] }

func (p *parser) next() token {
	t := p.tokens[p.at]
	if t.kind != tokEnd {
		p.at++
	}
	return t
}

// take moves on if the next token is the keyword w.
func (p *parser) take(w string) bool {
	if p.peek().word(w) {
		p.at++
		return true
	}
	return false
}

func (p *parser) expect(sym string) *syntaxError {
	if t := p.next(); !t.symbol(sym) {
		return &syntaxError{t.offset, fmt.Sprintf("want %s, got %s", sym, t)}
	}
	return nil
}

func (p *parser) or() (*condition, *syntaxError) {
	if p.depth++; p.depth > maxDepth {
		return nil, &syntaxError{p.peek().offset, "the condition is nested too deeply"}
	}
	defer func() { p.depth-- }()
	return p.chain("or", p.and)
}

func (p *parser) and() (*condition, *syntaxError) { return p.chain("and", p.not) }

// chain reads one or more parts with the keyword op between them.
func (p *parser) chain(op string, part func() (*condition, *syntaxError)) (*condition, *syntaxError) {
	c, err := part()
	if err != nil {
		return nil, err
	}
	args := []*condition{c}
	for p.take(op) {
		if c, err = part(); err != nil {
			return nil, err
		}
		args = append(args, c)
	}
	if len(args) == 1 {
		return args[0], nil
	}
	return &condition{op: op, args: args, offset: args[0].offset}, nil
}

func (p *parser) not() (*condition, *syntaxError) {
	t := p.peek()
	if !p.take("not") {
		return p.test()
	}
	if p.depth++; p.depth > maxDepth {
		return nil, &syntaxError{t.offset, "the condition is nested too deeply"}
	}
	defer func() { p.depth-- }()
	c, err := p.not()
	if err != nil {
		return nil, err
	}
	return negate(c, t.offset), nil
}

func negate(c *condition, offset int) *condition {
	return &condition{op: "not", args: []*condition{c}, offset: offset}
}

func (p *parser) test() (*condition, *syntaxError) {
	if p.peek().symbol("(") {
		p.next()
		c, err := p.or()
		if err != nil {
			return nil, err
		}
		return c, p.expect(")")
	}
	left, err := p.operand()
	if err != nil {
		return nil, err
	}
	t := p.peek()
	if t.kind == tokSymbol && strings.ContainsAny(t.text, "=<>") && t.text != "==" {
		p.next()
		right, err := p.operand()
		if err != nil {
			return nil, err
		}
		op := t.text
		if op == "!=" {
			op = "<>"
		}
		return &condition{op: op, args: []*condition{left, right}, offset: t.offset}, nil
	}
	if p.take("is") {
		no := p.take("not")
		if t := p.next(); !t.word("null") {
			return nil, &syntaxError{t.offset, fmt.Sprintf("want null, got %s", t)}
		}
		return maybeNot(no, &condition{op: "is null", args: []*condition{left}, offset: t.offset}), nil
	}
	no := p.take("not")
	switch word := p.peek(); {
	case p.take("in"):
		return p.in(no, left, t.offset)
	case p.take("between"):
		return p.between(no, left, t.offset)
	case p.take("like"), p.take("ilike"):
		right, err := p.operand()
		if err != nil {
			return nil, err
		}
		return maybeNot(no, &condition{op: strings.ToLower(word.text), args: []*condition{left, right}, offset: t.offset}), nil
	}
	if no {
		return nil, &syntaxError{p.peek().offset, fmt.Sprintf("want in, between or like after not, got %s", p.peek())}
	}
	return left, nil
}

func maybeNot(no bool, c *condition) *condition {
	if no {
		return negate(c, c.offset)
	}
	return c
}

func (p *parser) in(no bool, left *condition, offset int) (*condition, *syntaxError) {
	if err := p.expect("("); err != nil {
		return nil, err
	}
	args := []*condition{left}
	for {
		v, err := p.operand()
		if err != nil {
			return nil, err
		}
		args = append(args, v)
		if !p.peek().symbol(",") {
			break
		}
		p.next()
	}
	return maybeNot(no, &condition{op: "in", args: args, offset: offset}), p.expect(")")
}

func (p *parser) between(no bool, left *condition, offset int) (*condition, *syntaxError) {
	low, err := p.operand()
	if err != nil {
		return nil, err
	}
	if !p.take("and") {
		return nil, &syntaxError{p.peek().offset, fmt.Sprintf("want and, got %s", p.peek())}
	}
	high, err := p.operand()
	if err != nil {
		return nil, err
	}
	both := &condition{op: "and", offset: offset, args: []*condition{
		{op: ">=", args: []*condition{left, low}, offset: offset},
		{op: "<=", args: []*condition{left, high}, offset: offset}}}
	return maybeNot(no, both), nil
}

// reserved words are no names unless quoted.
var reserved = []string{"and", "or", "not", "is", "in", "like", "ilike", "between"}

func (p *parser) operand() (*condition, *syntaxError) {
	t := p.next()
	switch t.kind {
	case tokQuoted, tokNumber, tokText:
		return &condition{op: "value", value: t, offset: t.offset}, nil
	case tokName:
		for _, w := range reserved {
			if t.word(w) {
				return nil, &syntaxError{t.offset, fmt.Sprintf("want a field or a value, got %s", t)}
			}
		}
		if t.word("null") {
			return nil, &syntaxError{t.offset, "nothing is equal to null; write is null or is not null"}
		}
		if p.peek().symbol("(") {
			return nil, &syntaxError{t.offset, fmt.Sprintf("there is no function %s", t.text)}
		}
		return &condition{op: "value", value: t, offset: t.offset}, nil
	}
	return nil, &syntaxError{t.offset, fmt.Sprintf("want a field or a value, got %s", t)}
}
