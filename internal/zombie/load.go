package zombie

import (
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/sluice-data/sluice/internal/judge"
)

// Schema makes two empty tables and a log of every change to acct, which
// triggers write in the same transactions and which is not published.
const Schema = `
CREATE TABLE acct (id bigint PRIMARY KEY, v bigint NOT NULL, name text);
CREATE TABLE item (id bigint PRIMARY KEY, v bigint NOT NULL, note text);
CREATE SEQUENCE version;
CREATE TABLE audit (n bigserial PRIMARY KEY, op text NOT NULL, id bigint NOT NULL, v bigint);
CREATE FUNCTION log_acct() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF TG_OP = 'DELETE' THEN INSERT INTO audit (op, id) VALUES ('delete', OLD.id);
  ELSE INSERT INTO audit (op, id, v) VALUES ('write', NEW.id, NEW.v); END IF;
  RETURN NULL; END $$;
CREATE TRIGGER log_acct AFTER INSERT OR UPDATE OR DELETE ON acct FOR EACH ROW EXECUTE FUNCTION log_acct();
`

// Load changes acct and item until ctx ends.
func Load(ctx context.Context, address string, seed uint64) error {
	rng := rand.New(rand.NewPCG(seed, 1))
	conn, err := pgx.Connect(ctx, address)
	if err != nil {
		return fmt.Errorf("load: %w", err)
	}
	defer conn.Close(context.WithoutCancel(ctx))
	for ctx.Err() == nil {
		tx, err := conn.Begin(ctx)
		if err != nil {
			break
		}
		for range 1 + rng.IntN(10) {
			if _, err = tx.Exec(ctx, change(rng)); err != nil {
				break
			}
		}
		if err == nil {
			err = tx.Commit(ctx)
		}
		if err != nil && ctx.Err() == nil {
			return fmt.Errorf("load: %w", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(5 * time.Millisecond):
		}
	}
	return nil
}

func change(rng *rand.Rand) string {
	id := rng.IntN(500)
	switch n := rng.IntN(10); {
	case n < 6:
		return fmt.Sprintf(`INSERT INTO acct VALUES (%d, nextval('version'), 'n%d') ON CONFLICT (id) DO UPDATE SET v = excluded.v, name = excluded.name`, id, n)
	case n < 7:
		return fmt.Sprintf(`DELETE FROM acct WHERE id = %d`, id)
	default:
		return fmt.Sprintf(`INSERT INTO item VALUES (%d, nextval('version'), 'i%d') ON CONFLICT (id) DO UPDATE SET v = excluded.v`, id, n)
	}
}

// Differences compares the tables of a namespace, as DuckDB reads them, with
// the database: the upserted tables row by row, and acct_log with the audit
// log, of which it has every change exactly once. What acct_log has of the
// first load does not count. It returns what differs, at most a few of each kind.
func Differences(ctx context.Context, c judge.Catalog, namespace, address string, upserted ...string) ([]string, error) {
	wants, tables := make([]judge.Print, len(upserted)), make([]judge.Table, len(upserted))
	for i, table := range upserted {
		var err error
		if wants[i], err = judge.Postgres(ctx, address, "SELECT * FROM "+table); err != nil {
			return nil, err
		}
		tables[i] = judge.Table{Name: namespace + "." + table, Columns: wants[i].Fields()}
	}
	prints, err := judge.Tables(ctx, "duckdb", c, tables...)
	if err != nil {
		return nil, err
	}
	var found []string
	for i, table := range upserted {
		if err := judge.Equal(wants[i], prints[i]); err != nil {
			found = append(found, fmt.Sprintf("table %s: %v", table, err))
		}
	}
	wrong, err := changelog(ctx, c, namespace, address)
	return append(found, wrong...), err
}

// changelog compares acct_log with the audit log.
func changelog(ctx context.Context, c judge.Catalog, namespace, address string) ([]string, error) {
	rows, err := judge.Query(ctx, c, `SELECT CASE "_op" WHEN 'delete' THEN 'delete' ELSE 'write' END, id, CASE "_op" WHEN 'delete' THEN NULL ELSE v END
 FROM lake.`+namespace+`.acct_log WHERE "_op" IN ('insert', 'update', 'delete')`)
	if err != nil {
		return nil, err
	}
	balance := map[string]int{} // change → times in the lake minus times in the database
	for _, r := range rows {
		v := "0"
		if r[2] != nil {
			v = *r[2]
		}
		balance[*r[0]+" of "+*r[1]+" at version "+v]++
	}
	conn, err := pgx.Connect(ctx, address)
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx)
	audit, err := conn.Query(ctx, "SELECT op, id, coalesce(v, 0) FROM audit")
	if err != nil {
		return nil, err
	}
	defer audit.Close()
	changes := 0
	for audit.Next() {
		var op string
		var id, v int64
		if err := audit.Scan(&op, &id, &v); err != nil {
			return nil, err
		}
		balance[fmt.Sprintf("%s of %d at version %d", op, id, v)]--
		changes++
	}
	if err := audit.Err(); err != nil {
		return nil, err
	}
	var found []string
	for what, n := range balance {
		switch {
		case n > 0:
			found = append(found, fmt.Sprintf("%s is there %d times too often", what, n))
		case n < 0:
			found = append(found, fmt.Sprintf("%s is missing %d times", what, -n))
		}
	}
	if len(found) > 5 {
		found = append(found[:5], fmt.Sprintf("and %d more", len(found)-5))
	}
	if changes == 0 {
		found = append(found, "nothing was changed")
	}
	return found, nil
}
