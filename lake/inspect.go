package lake

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/apache/iceberg-go"
	"github.com/sluice-data/sluice/record"
)

// Inspection is the state of one table as people want to see it.
type Inspection struct {
	Table       string              `json:"table"`
	Location    string              `json:"location"`
	Metadata    string              `json:"metadata_location"`
	UUID        string              `json:"uuid"`
	Format      int                 `json:"format_version"`
	Columns     []Column            `json:"columns"`
	Partition   []string            `json:"partition_by,omitempty"`
	Snapshots   []SnapshotInfo      `json:"snapshots"` // oldest first
	DataFiles   int                 `json:"data_files"`
	DataBytes   int64               `json:"data_bytes"`
	DeleteFiles int                 `json:"delete_files"`
	Rows        int64               `json:"rows"` // live ones
	Marks       map[string]MarkInfo `json:"marks"`
}

// Column is one column of a table.
type Column struct {
	ID       int    `json:"id"`
	Name     string `json:"name"`
	Type     string `json:"type"`
	Required bool   `json:"required,omitempty"`
	Key      bool   `json:"key,omitempty"`
}

// SnapshotInfo is one snapshot of a table.
type SnapshotInfo struct {
	ID        int64             `json:"id"`
	At        time.Time         `json:"at"`
	Operation string            `json:"operation"`
	Summary   map[string]string `json:"summary,omitempty"`
}

// MarkInfo is the stored mark of one topic-partition, by its property.
type MarkInfo struct {
	record.Mark
	Error string `json:"error,omitempty"`
}

// Inspect reads the state of a table. Rows counts those that no position
// delete takes away; it reads every delete file.
func (l *Lake) Inspect(ctx context.Context, name string) (Inspection, error) {
	t, err := l.Table(TableConfig{Table: name, Mode: Append, Topic: "-"})
	if err != nil {
		return Inspection{}, err
	}
	defer func() { _ = t.Close() }()
	if err := t.reload(ctx); err != nil {
		return Inspection{}, err
	}
	meta := t.tbl.Metadata()
	out := Inspection{Table: name, Location: t.tbl.Location(), Metadata: t.tbl.MetadataLocation(), UUID: meta.TableUUID().String(),
		Format: meta.Version(), Marks: map[string]MarkInfo{}}
	sc := t.tbl.Schema()
	for _, f := range sc.Fields() {
		out.Columns = append(out.Columns, Column{ID: f.ID, Name: f.Name, Type: f.Type.String(), Required: f.Required,
			Key: slices.Contains(sc.IdentifierFieldIDs, f.ID)})
	}
	spec := t.tbl.Spec()
	for _, f := range spec.Fields() {
		column, _ := sc.FindColumnName(f.SourceID())
		out.Partition = append(out.Partition, fmt.Sprintf("%s(%s)", f.Transform, column))
	}
	for _, s := range meta.Snapshots() {
		info := SnapshotInfo{ID: s.SnapshotID, At: time.UnixMilli(s.TimestampMs).UTC()}
		if s.Summary != nil {
			info.Operation, info.Summary = string(s.Summary.Operation), maps.Clone(s.Summary.Properties)
		}
		out.Snapshots = append(out.Snapshots, info)
	}
	for key, text := range t.tbl.Properties() {
		if strings.HasPrefix(key, "sluice.") && !strings.HasPrefix(key, stalePrefix) {
			m, err := parseMark(text)
			info := MarkInfo{Mark: m}
			if err != nil {
				info.Error = err.Error()
			}
			out.Marks[key] = info
		}
	}
	return out, t.countRows(ctx, &out)
}

func (t *Table) countRows(ctx context.Context, out *Inspection) error {
	set, err := t.fileSet(ctx)
	if err != nil {
		return err
	}
	dead, err := t.deletedRows(ctx, set, -1)
	if err != nil {
		return err
	}
	for path, f := range set.data {
		out.DataFiles++
		out.DataBytes += f.file.FileSizeBytes()
		out.Rows += f.file.Count()
		if bits := dead[path]; bits != nil {
			out.Rows -= int64(bits.GetCardinality())
		}
	}
	out.DeleteFiles = len(set.deletes)
	for _, d := range set.deletes {
		if d.file.ContentType() == iceberg.EntryContentEqDeletes {
			out.Rows = -1 // rows that equality deletes take away cannot be counted without reading everything
		}
	}
	return nil
}
