package chaos

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"

	"github.com/jackc/pgx/v5"
)

// schemaSQL makes two tables and a log of every change to them. The log is
// written by triggers in the same transactions, and is not published.
// acct.big is stored out of line, so that updates of other columns leave it unsent.
const schemaSQL = `
CREATE TABLE acct (
  id bigint PRIMARY KEY, v bigint NOT NULL, name text, big text, amount numeric(18,4), at timestamptz DEFAULT clock_timestamp());
ALTER TABLE acct ALTER COLUMN big SET STORAGE EXTERNAL;
CREATE TABLE item (a int NOT NULL, b text NOT NULL, v bigint NOT NULL, note text, PRIMARY KEY (a, b));
CREATE TABLE cased (id int PRIMARY KEY, note text, "Note" text, "NOTE" text);
CREATE SEQUENCE version;
CREATE TABLE audit (n bigserial PRIMARY KEY, tbl text NOT NULL, op text NOT NULL, key text, v bigint);
CREATE FUNCTION log_acct() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  IF TG_OP = 'DELETE' THEN INSERT INTO audit (tbl, op, key) VALUES ('acct', 'd', OLD.id);
  ELSIF TG_OP = 'UPDATE' AND OLD.id <> NEW.id THEN
    INSERT INTO audit (tbl, op, key) VALUES ('acct', 'd', OLD.id);
    INSERT INTO audit (tbl, op, key, v) VALUES ('acct', 'w', NEW.id, NEW.v);
  ELSE INSERT INTO audit (tbl, op, key, v) VALUES ('acct', 'w', NEW.id, NEW.v); END IF;
  RETURN NULL; END $$;
CREATE TRIGGER log_acct AFTER INSERT OR UPDATE OR DELETE ON acct FOR EACH ROW EXECUTE FUNCTION log_acct();
`

// load changes acct and item until ctx ends; equal seeds make equal changes.
type load struct {
	url   string
	rng   *rand.Rand
	txns  int
	pause func() // called between transactions; waits while the load is held
}

// fill inserts the rows that a first load finds.
func fill(ctx context.Context, url string, rows int) error {
	conn, err := pgx.Connect(ctx, url)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	if _, err := conn.Exec(ctx, schemaSQL); err != nil {
		return err
	}
	_, err = conn.Exec(ctx, `
INSERT INTO acct SELECT i, nextval('version'), 'name ' || i, repeat(md5(i::text), CASE WHEN i % 3 = 0 THEN 100 ELSE 1 END), i * 1.0001
  FROM generate_series(1, $1) i`, rows)
	if err != nil {
		return err
	}
	if _, err = conn.Exec(ctx, `INSERT INTO cased SELECT i, 'a' || i, 'b' || i, 'c' || i FROM generate_series(1, 100) i`); err != nil {
		return err
	}
	_, err = conn.Exec(ctx, `
INSERT INTO item SELECT i, 'k' || (i % 7), nextval('version'), md5(i::text) FROM generate_series(1, $1) i`, rows/4)
	return err
}

// run makes transactions until ctx ends. A connection that the server drops is
// opened again: its transaction either happened or it did not.
func (l *load) run(ctx context.Context) error {
	for ctx.Err() == nil {
		conn, err := pgx.Connect(ctx, l.url)
		if err != nil {
			if !wait(ctx, 100) {
				return nil
			}
			continue
		}
		err = l.work(ctx, conn)
		_ = conn.Close(context.WithoutCancel(ctx))
		if err != nil && ctx.Err() == nil && !lost(err) {
			return err
		}
	}
	return nil
}

// lost reports whether err is of a server that went away.
func lost(err error) bool {
	s := err.Error()
	for _, sign := range []string{"57P01", "57P02", "57P03", "unexpected EOF", "connection reset", "broken pipe", "conn closed", "connection refused", "failed to connect"} {
		if strings.Contains(s, sign) {
			return true
		}
	}
	return false
}

func (l *load) work(ctx context.Context, conn *pgx.Conn) error {
	for ctx.Err() == nil {
		l.pause()
		if ctx.Err() != nil {
			return nil
		}
		tx, err := conn.Begin(ctx)
		if err != nil {
			return err
		}
		for range 1 + l.rng.IntN(20) {
			if _, err := tx.Exec(ctx, l.change()); err != nil {
				return err
			}
		}
		end := tx.Commit
		if l.rng.IntN(20) == 0 {
			end = tx.Rollback
		}
		if err := end(ctx); err != nil {
			return err
		}
		l.txns++
	}
	return nil
}

// change returns the next statement.
func (l *load) change() string {
	id := 1 + l.rng.IntN(4000)
	fresh := 4000 + l.rng.IntN(1_000_000)
	switch n := l.rng.IntN(1000); {
	case n < 2:
		return "TRUNCATE item"
	case n < 250:
		return fmt.Sprintf(`INSERT INTO acct VALUES (%d, nextval('version'), 'n%d', repeat('x%d', %d), %d.25)
 ON CONFLICT (id) DO UPDATE SET v = nextval('version'), big = excluded.big`, fresh, n, n, l.rng.IntN(1200), n)
	case n < 500:
		return fmt.Sprintf(`UPDATE acct SET v = nextval('version'), name = 'u%d' WHERE id = %d`, n, id) // big stays unsent
	case n < 600:
		return fmt.Sprintf(`UPDATE acct SET v = nextval('version'), big = repeat('y', %d), amount = NULL WHERE id = %d`, l.rng.IntN(5000), id)
	case n < 680:
		return fmt.Sprintf(`DELETE FROM acct WHERE id = %d`, id)
	case n < 720: // the key changes while big stays unsent
		return fmt.Sprintf(`UPDATE acct SET id = %d, v = nextval('version') WHERE id = %d AND NOT EXISTS (SELECT 1 FROM acct WHERE id = %d)`, fresh, id, fresh)
	case n < 900:
		return fmt.Sprintf(`INSERT INTO item VALUES (%d, 'k%d', nextval('version'), 'i%d') ON CONFLICT (a, b) DO UPDATE SET v = excluded.v, note = excluded.note`, id, n%7, n)
	case n < 920:
		return fmt.Sprintf(`UPDATE cased SET "Note" = 'n%d' WHERE id = %d`, n, id%100)
	default:
		return fmt.Sprintf(`DELETE FROM item WHERE a = %d`, id)
	}
}
