package state

import (
	"context"
	"database/sql"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"time"

	"github.com/sluice-data/sluice/record"
)

// Job is a bulk job of the vendor that may be under way. It is written down
// before anything of it is uploaded, and struck out when its results are stored.
type Job struct {
	Name   string    // ours
	Vendor string    // the vendor's id; empty until it is known
	At     time.Time // when it was written down
	Rows   []JobRow  // in the order of the upload
}

// JobRow is one record of a job: what its key will be known by once the job is
// done. It holds no value.
type JobRow struct {
	Key, Match Key
	Row        uint64
	Fields     Hashes
	Part       int32
	Offset     int64
	Pos        record.Position
}

// OpenJob writes a job down. An error that is record.ErrFenced says that
// another process has taken over a partition.
func (c *Lease) OpenJob(ctx context.Context, j Job) error {
	err := c.s.tx(ctx, func(tx *sql.Tx) error {
		if err := c.fence(ctx, tx, nil, partsOf(j.Rows), nil); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, c.s.query(`INSERT INTO activation_job (conn, name, vendor, at, manifest) VALUES (?, ?, '', now(), ?)`), c.id, j.Name, appendRows(nil, j.Rows))
		return err
	})
	if err != nil {
		return fmt.Errorf("write down a job of %s: %w", c.name, err)
	}
	return nil
}

// NameJob notes the vendor's id of a job, before the upload where there is one.
// It is refused to an owner that has lost a partition of the job: that must
// upload nothing any more (invariant 11).
func (c *Lease) NameJob(ctx context.Context, j Job, vendor string) error {
	err := c.s.tx(ctx, func(tx *sql.Tx) error {
		if err := c.fence(ctx, tx, nil, partsOf(j.Rows), nil); err != nil {
			return err
		}
		_, err := tx.ExecContext(ctx, c.s.query(`UPDATE activation_job SET vendor = ? WHERE conn = ? AND name = ?`), vendor, c.id, j.Name)
		return err
	})
	if err != nil {
		return fmt.Errorf("name a job of %s: %w", c.name, err)
	}
	return nil
}

// CloseJob strikes a job out.
func (c *Lease) CloseJob(ctx context.Context, name string) error {
	if _, err := c.s.writer.ExecContext(ctx, c.s.query(`DELETE FROM activation_job WHERE conn = ? AND name = ?`), c.id, name); err != nil {
		return fmt.Errorf("strike out a job of %s: %w", c.name, err)
	}
	return nil
}

// Jobs returns the jobs that are written down, oldest first.
func (c *Lease) Jobs(ctx context.Context) (jobs []Job, err error) {
	rows, err := c.s.db.QueryContext(ctx, c.s.query(`SELECT name, vendor, at, manifest FROM activation_job WHERE conn = ? ORDER BY at, name`), c.id)
	if err != nil {
		return nil, fmt.Errorf("read the jobs of %s: %w", c.name, err)
	}
	defer rows.Close()
	for rows.Next() {
		var j Job
		var at int64
		var manifest []byte
		if err := rows.Scan(&j.Name, &j.Vendor, &at, &manifest); err != nil {
			return nil, fmt.Errorf("read the jobs of %s: %w", c.name, err)
		}
		j.At = fromMicro(at)
		if j.Rows, err = readRowsOf(manifest); err != nil {
			return nil, fmt.Errorf("job %s of %s: %w", hex.EncodeToString([]byte(j.Name)), c.name, err)
		}
		jobs = append(jobs, j)
	}
	return jobs, rows.Err()
}

// partsOf returns the partitions of rows.
func partsOf(rows []JobRow) map[int32]Mark {
	parts := map[int32]Mark{}
	for i := range rows {
		parts[rows[i].Part] = Mark{}
	}
	return parts
}

// jobRowBytes are the bytes of a row in a manifest, before its fields.
const jobRowBytes = 16 + 16 + 8 + 4 + 8 + 3*8 + 4

// appendRows appends the manifest of a job.
func appendRows(b []byte, rows []JobRow) []byte {
	le := binary.LittleEndian
	for i := range rows {
		r := &rows[i]
		b = append(append(b, r.Key[:]...), r.Match[:]...)
		b = le.AppendUint32(le.AppendUint64(b, r.Row), uint32(r.Part))
		b = le.AppendUint64(b, uint64(r.Offset))
		for _, n := range []uint64{r.Pos.Epoch, r.Pos.LSN, r.Pos.Seq} {
			b = le.AppendUint64(b, n)
		}
		b = append(le.AppendUint32(b, uint32(len(r.Fields))), r.Fields...)
	}
	return b
}

// readRowsOf reads a manifest.
func readRowsOf(b []byte) (rows []JobRow, err error) {
	le := binary.LittleEndian
	for len(b) > 0 {
		if len(b) < jobRowBytes || uint64(len(b)-jobRowBytes) < uint64(le.Uint32(b[jobRowBytes-4:])) {
			return nil, errors.New("its manifest is cut off")
		}
		r := JobRow{Key: Key(b[:16]), Match: Key(b[16:32]), Row: le.Uint64(b[32:]), Part: int32(le.Uint32(b[40:])), Offset: int64(le.Uint64(b[44:])),
			Pos: record.Position{Epoch: le.Uint64(b[52:]), LSN: le.Uint64(b[60:]), Seq: le.Uint64(b[68:])}}
		end := jobRowBytes + int(le.Uint32(b[jobRowBytes-4:]))
		r.Fields = Hashes(b[jobRowBytes:end:end])
		rows, b = append(rows, r), b[end:]
	}
	return rows, nil
}
