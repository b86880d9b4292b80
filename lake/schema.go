package lake

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/iceberg-go"
	"github.com/apache/iceberg-go/catalog"
	"github.com/apache/iceberg-go/table"
	"github.com/sluice-data/sluice/record"
)

// plan is how the rows of one schema go into the table: which field into
// which column. It is made once per schema.
type plan struct {
	schema *record.Schema
	fields []int           // field of each file column; the changelog's own columns follow
	file   *iceberg.Schema // the columns of a data file, a subset of the table's
	arrow  *arrow.Schema
	check  []int // fields that can hold what no table can
	keys   []int // key fields in key order, of an upsert table
	spec   partitioner
	sort   []sortColumn
	ids    string // of the key columns: a key index of other ones is of no use
}

// change is one step that makes the table take the rows of a schema.
type change struct {
	kind   string // add, widen, aside, optional
	column string
	typ    iceberg.Type
	aside  string // new name of the old column
}

// fit finds for each field of s its column in the table's schema sc, and the
// changes that are needed first. A column is never dropped: a field that is
// gone leaves nulls in new rows. A field whose type does not go into its column
// takes the name over, and the old column becomes name__1 with its values; rows
// that still come in the old type go there.
func fit(sc *iceberg.Schema, s *record.Schema, appends bool) (columns []string, changes []change, err error) {
	present := map[string]bool{}
	names := columnNames(sc, s, appends)
	for i := range s.Fields {
		f := &s.Fields[i]
		want, err := columnType(f)
		if err != nil {
			return nil, nil, err
		}
		column, steps := fitColumn(sc, s, names[i], want)
		columns = append(columns, column)
		changes = append(changes, steps...)
		present[column] = true
	}
	if appends {
		for _, m := range metaColumns {
			if _, ok := sc.FindFieldByName(m.Name); !ok {
				changes = append(changes, change{kind: "add", column: m.Name, typ: m.Type})
			}
			present[m.Name] = true
		}
		return columns, append(changes, optional(sc, present, nil)...), nil
	}
	keys := identifierNames(s, columns)
	return columns, append(changes, optional(sc, present, keys)...), nil
}

func fitColumn(sc *iceberg.Schema, s *record.Schema, name string, want iceberg.Type) (string, []change) {
	have, ok := sc.FindFieldByName(name)
	if !ok {
		return name, []change{{kind: "add", column: name, typ: want}}
	}
	if fits(have.Type, want) {
		return name, nil
	}
	free := ""
	for n := 1; free == ""; n++ {
		aside := fmt.Sprintf("%s__%d", name, n)
		old, ok := sc.FindFieldByName(aside)
		switch {
		case s.Index(aside) >= 0: // a column of the stream that happens to be called so
		case !ok:
			free = aside
		case fits(old.Type, want):
			return aside, nil
		}
	}
	if widens(have.Type, want) {
		return name, []change{{kind: "widen", column: name, typ: want}}
	}
	return name, []change{{kind: "aside", column: name, aside: free}, {kind: "add", column: name, typ: want}}
}

// optional makes required columns optional that rows of this schema lack.
func optional(sc *iceberg.Schema, present map[string]bool, keys []string) []change {
	var steps []change
	for _, f := range sc.Fields() {
		if f.Required && (!present[f.Name] || !slices.Contains(keys, f.Name)) {
			steps = append(steps, change{kind: "optional", column: f.Name})
		}
	}
	return steps
}

// identifierNames returns the key columns if Iceberg can have them as
// identifier fields. They must be required, so they are so from the start.
func identifierNames(s *record.Schema, columns []string) []string {
	var names []string
	for _, k := range s.Keys() {
		t, err := columnType(&s.Fields[k])
		if err != nil || !identifying(t) {
			return nil
		}
		names = append(names, columns[k])
	}
	return names
}

func identifiersOf(sc *iceberg.Schema) []string {
	var names []string
	for _, id := range sc.IdentifierFieldIDs {
		if n, ok := sc.FindColumnName(id); ok {
			names = append(names, n)
		}
	}
	return names
}

// firstStep returns the changes that one commit can make: the library cannot
// rename a column and add another of the old name at once.
func firstStep(changes []change) []change {
	asides := slices.DeleteFunc(slices.Clone(changes), func(c change) bool { return c.kind != "aside" })
	if len(asides) > 0 {
		return asides
	}
	return changes
}

// applyChanges stages the changes in tx.
func applyChanges(tx *table.Transaction, sc *iceberg.Schema, changes []change) error {
	identifiers := identifiersOf(sc)
	notIdentifier := func(column string) {
		identifiers = slices.DeleteFunc(identifiers, func(n string) bool { return n == column })
	}
	u := tx.UpdateSchema(true, true)
	for _, c := range changes {
		path := []string{c.column}
		switch c.kind {
		case "aside":
			u.UpdateColumn(path, table.ColumnUpdate{Name: some(c.aside), Required: some(false)})
			notIdentifier(c.column)
		case "add":
			u.AddColumn(path, c.typ, "", false, nil)
		case "widen":
			u.UpdateColumn(path, table.ColumnUpdate{FieldType: some(c.typ)})
		case "optional":
			u.UpdateColumn(path, table.ColumnUpdate{Required: some(false)})
			notIdentifier(c.column)
		}
	}
	// A key column that came later is null in old rows, and Iceberg wants
	// identifier fields required: only those that are remain.
	paths := make([][]string, len(identifiers))
	for i, n := range identifiers {
		paths[i] = []string{n}
	}
	u.SetIdentifierField(paths)
	if err := u.Commit(); err != nil {
		return fmt.Errorf("change the schema: %w", err)
	}
	return nil
}

func some[T any](v T) iceberg.Optional[T] { return iceberg.Optional[T]{Val: v, Valid: true} }

// planFor returns the plan of s, after changing the table's schema if it must.
func (t *Table) planFor(ctx context.Context, s *record.Schema) (*plan, error) {
	if p := t.plans[s.ID]; p != nil {
		return p, nil
	}
	if t.tbl == nil {
		if err := t.create(ctx, s); err != nil {
			return nil, err
		}
	}
	columns, err := t.evolve(ctx, s)
	if err != nil {
		return nil, err
	}
	p, err := t.newPlan(s, columns)
	if err != nil {
		return nil, err
	}
	t.plans[s.ID] = p
	return p, nil
}

// evolve changes the table's schema until it takes rows of s. It is a commit
// of its own before the data: doing it again finds nothing to do, so a crash
// in between costs nothing.
func (t *Table) evolve(ctx context.Context, s *record.Schema) ([]string, error) {
	var last error
	for try := range commitTries {
		if err := t.pause(ctx, try); err != nil {
			return nil, errors.Join(last, err)
		}
		if try > 0 {
			if last = t.reload(ctx); hopeless(last) {
				break
			} else if last != nil {
				continue
			}
			if err := t.checkMarks(maps.Keys(t.parts)); err != nil {
				return nil, err
			}
		}
		columns, changes, err := fit(t.tbl.Schema(), s, t.appends())
		if err != nil {
			return nil, err
		}
		if len(changes) == 0 {
			return columns, nil
		}
		changes = firstStep(changes)
		tx := t.tbl.NewTransaction()
		// Invariant 11: a writer that lost its partitions changes no schema either.
		if last = tx.AssertRefSnapshotID(""); last != nil {
			continue
		}
		if last = applyChanges(tx, t.tbl.Schema(), changes); last != nil {
			return nil, fmt.Errorf("%s: %w", t.cfg.Table, last)
		}
		if _, last = tx.Commit(ctx); last == nil {
			last = t.reload(ctx)
			t.plans = map[string]*plan{}
			t.log.Info("the table's schema changed", "changes", describe(changes))
		}
		if hopeless(last) {
			break
		}
	}
	return nil, fmt.Errorf("change the schema of %s: %w", t.cfg.Table, last)
}

func describe(changes []change) string {
	var b strings.Builder
	for i, c := range changes {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%s %s", c.kind, c.column)
		if c.typ != nil {
			fmt.Fprintf(&b, " %s", c.typ)
		}
	}
	return b.String()
}

// create makes the table from the first schema seen, or takes the one that
// another process has made meanwhile.
func (t *Table) create(ctx context.Context, s *record.Schema) error {
	sc, err := newSchema(s, t.appends())
	if err != nil {
		return fmt.Errorf("create table %s: %w", t.cfg.Table, err)
	}
	spec, err := parsePartitionBy(t.cfg.PartitionBy, sc)
	if err != nil {
		return fmt.Errorf("create table %s: %w", t.cfg.Table, err)
	}
	order, err := parseSortBy(t.cfg.SortBy, sc)
	if err != nil {
		return fmt.Errorf("create table %s: %w", t.cfg.Table, err)
	}
	var last error
	for try := range commitTries {
		if err := t.pause(ctx, try); err != nil {
			return errors.Join(last, err)
		}
		if last = t.tryCreate(ctx, sc, &spec, order); last == nil {
			return nil
		}
		if hopeless(last) {
			break
		}
	}
	return fmt.Errorf("create table %s: %w", t.cfg.Table, last)
}

func (t *Table) tryCreate(ctx context.Context, sc *iceberg.Schema, spec *iceberg.PartitionSpec, order table.SortOrder) error {
	cat, err := t.lake.cat.get(ctx)
	if err != nil {
		return err
	}
	namespace := t.id[:len(t.id)-1]
	for i := range namespace {
		err := cat.CreateNamespace(ctx, slices.Clone(namespace[:i+1]), nil)
		if err != nil && !errors.Is(err, catalog.ErrNamespaceAlreadyExists) {
			return err
		}
	}
	_, err = cat.CreateTable(ctx, t.id, sc, catalog.WithPartitionSpec(spec), catalog.WithSortOrder(order),
		catalog.WithProperties(tableProperties()))
	if err != nil && !errors.Is(err, catalog.ErrTableAlreadyExists) {
		return err
	}
	return t.reload(ctx)
}

// tableProperties bound what a table's metadata grows to.
func tableProperties() iceberg.Properties {
	return iceberg.Properties{
		table.PropertyFormatVersion:                  "2",
		"write.metadata.delete-after-commit.enabled": "true",
		"write.metadata.previous-versions-max":       "20",
		"write.metadata.compression-codec":           "gzip",
		"write.parquet.compression-codec":            "zstd",
		"history.expire.min-snapshots-to-keep":       "10",
	}
}

// newSchema is the schema of a new table. Only key columns of an upsert table
// are required: the source may loosen any other constraint one day.
func newSchema(s *record.Schema, appends bool) (*iceberg.Schema, error) {
	id := 0
	next := func() int { id++; return id }
	var fields []iceberg.NestedField
	columns := columnNames(nil, s, appends)
	for i := range s.Fields {
		f := &s.Fields[i]
		typ, err := columnType(f)
		if err != nil {
			return nil, err
		}
		fields = append(fields, iceberg.NestedField{ID: next(), Name: columns[i], Type: typ, Doc: f.SourceType})
	}
	if appends {
		for _, m := range metaColumns {
			m.ID = next()
			fields = append(fields, m)
		}
	}
	var identifiers []int
	if !appends {
		for _, name := range identifierNames(s, columns) {
			i := slices.Index(columns, name)
			fields[i].Required = true
			identifiers = append(identifiers, fields[i].ID)
		}
	}
	for i := range fields {
		for list, ok := fields[i].Type.(*iceberg.ListType); ok; list, ok = list.Element.(*iceberg.ListType) {
			list.ElementID = next()
		}
	}
	return iceberg.NewSchemaWithIdentifiers(0, identifiers, fields...), nil
}

// newPlan lays out the data files for rows of s.
func (t *Table) newPlan(s *record.Schema, columns []string) (*plan, error) {
	p := &plan{schema: s}
	sc := t.tbl.Schema()
	var fields []iceberg.NestedField
	var arrowFields []arrow.Field
	add := func(name string) error {
		f, ok := sc.FindFieldByName(name)
		if !ok {
			return fmt.Errorf("%s: column %s is gone", t.cfg.Table, name)
		}
		dt, err := arrowType(f.Type)
		if err != nil {
			return fmt.Errorf("%s: column %s: %w", t.cfg.Table, name, err)
		}
		fields = append(fields, f)
		arrowFields = append(arrowFields, arrowField(f.Name, dt, !f.Required, f.ID))
		return nil
	}
	for i, name := range columns {
		if err := add(name); err != nil {
			return nil, err
		}
		p.fields = append(p.fields, i)
		if mayUnfit(&s.Fields[i]) {
			p.check = append(p.check, i)
		}
	}
	if t.appends() {
		for _, m := range metaColumns {
			if err := add(m.Name); err != nil {
				return nil, err
			}
		}
	} else {
		p.keys = s.Keys()
		if len(p.keys) == 0 {
			return nil, fmt.Errorf("stream %s has no primary key: use mode: append for table %s", s.Stream, t.cfg.Table)
		}
		for _, k := range p.keys {
			p.ids += fmt.Sprintf("%d ", fields[k].ID)
		}
	}
	p.file = iceberg.NewSchema(sc.ID, fields...)
	p.arrow = arrow.NewSchema(arrowFields, nil)
	var err error
	if p.spec, err = newPartitioner(t.tbl.Spec(), p); err != nil {
		return nil, fmt.Errorf("%s: %w", t.cfg.Table, err)
	}
	p.sort = sortColumns(t.cfg.SortBy, p)
	return p, nil
}
