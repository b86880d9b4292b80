package state

import (
	"context"
	"database/sql"
	"fmt"
	"time"
)

// Busy returns for how long another process may still write the connection's
// partitions; 0 if nobody does. One that was killed holds them until its lease
// has ended.
func (c *Connection) Busy(ctx context.Context) (time.Duration, error) {
	var left sql.NullInt64
	err := c.s.db.QueryRowContext(ctx, c.s.query(`SELECT max(until - now()) FROM activation_part WHERE conn = ? AND owner <> ''`), c.id).Scan(&left)
	if err != nil {
		return 0, fmt.Errorf("who holds %s: %w", c.name, err)
	}
	return max(0, time.Duration(left.Int64)*time.Microsecond), nil
}
