package config

import (
	"reflect"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// Test is a test of rules: rows that go in, and what must come out.
type Test struct {
	Name     string       `yaml:"name" required:"true" doc:"what is tested, in one sentence"`
	Stream   string       `yaml:"stream" required:"true" doc:"the stream whose protect rules run: source.schema.table"`
	Sink     string       `yaml:"sink" doc:"the sink whose shape rules run behind them; none if empty"`
	Columns  Row          `yaml:"columns" required:"true" doc:"the columns of the table and their types, in order: {id: int64, price: \"decimal(10,2)\", tags: \"text[]\"}"`
	Key      []string     `yaml:"key" doc:"the columns of the primary key"`
	Rows     []Row        `yaml:"rows" doc:"the rows that go in; _op says insert, update, delete or read, _before holds the old row"`
	Want     []Row        `yaml:"want" doc:"the rows that must come out, each with all its fields; {matches: regexp} stands for a text that matches"`
	Filtered int          `yaml:"filtered" min:"0" doc:"how many rows a filter must take out"`
	Rejects  []TestReject `yaml:"rejects" doc:"the rows that must be refused"`
	Parked   string       `yaml:"parked" doc:"a part of the message with which the stream must be parked"`
}

// TestReject is a row that a test wants refused.
type TestReject struct {
	Row  int    `yaml:"row" required:"true" min:"1" doc:"its place in rows, from 1"`
	Code string `yaml:"code" required:"true" doc:"the code of the reason, such as value_out_of_range"`
}

// Row holds the cells of a row in the order of the file.
type Row []Cell

// Cell is one named value.
type Cell struct {
	Name  string
	Value Value
	Pos   Pos
}

// Value is a value as the file spells it; nothing is lost to a number's form.
type Value struct {
	Kind   ValueKind
	Text   string // of Scalar and Quoted
	List   []Value
	Fields Row // of Map
}

// ValueKind tells the forms of a Value apart.
type ValueKind uint8

// The forms of a Value.
const (
	Null   ValueKind = iota
	Scalar           // a number, true, a date: written without quotes
	Quoted           // a text
	List
	Map
)

// Get returns the value called name and whether there is one.
func (r Row) Get(name string) (Value, bool) {
	for _, c := range r {
		if c.Name == name {
			return c.Value, true
		}
	}
	return Value{}, false
}

var rowType = reflect.TypeFor[Row]()

func (r *Row) decodeNode(d *decoder, n *yaml.Node, path string) {
	pairs, ok := d.mapping(n, path, "a row as a mapping of columns to values")
	if !ok {
		return
	}
	for _, p := range pairs {
		at := join(path, p.key)
		*r = append(*r, Cell{p.key, d.plain(p.value, at), Pos{p.at.Line, p.at.Column}})
	}
}

// plain reads a value as it stands; references are no more than text in it.
func (d *decoder) plain(n *yaml.Node, path string) Value {
	n, leave := d.enter(n, path)
	defer leave()
	if n == nil {
		return Value{}
	}
	switch {
	case isNull(n):
		return Value{}
	case n.Kind == yaml.SequenceNode:
		v := Value{Kind: List}
		for i, e := range n.Content {
			v.List = append(v.List, d.plain(e, path+"["+strconv.Itoa(i)+"]"))
		}
		return v
	case n.Kind == yaml.MappingNode:
		v := Value{Kind: Map}
		v.Fields.decodeNode(d, n, path)
		return v
	case n.Tag == "!!str":
		return Value{Kind: Quoted, Text: n.Value}
	}
	return Value{Kind: Scalar, Text: n.Value}
}

// checkTests looks at what the tests name.
func (d *decoder) checkTests() {
	seen := map[string]bool{}
	for i := range d.file.Tests {
		t := &d.file.Tests[i]
		at := "tests[" + strconv.Itoa(i) + "]"
		if seen[t.Name] && t.Name != "" {
			d.reportAt(at+".name", "another test has this name")
		}
		seen[t.Name] = true
		s := &Stream{}
		s.From = t.Stream
		if d.checkFrom(at+".stream", &Sink{}, s) {
			t.Stream = s.Source + "." + s.Local
		}
		if t.Sink == "" || s.Source == "" {
			continue
		}
		var names []string
		found := false
		for _, sink := range d.file.Sinks {
			names = append(names, sink.Name)
			for _, have := range sink.Streams {
				found = found || sink.Name == t.Sink && have.Source == s.Source && have.Local == s.Local
			}
		}
		if !found {
			d.reportAt(at+".sink", "no sink %q reads %s%s", t.Sink, t.Stream, suggest(t.Sink, names))
		}
	}
}
