package postgres

import (
	"fmt"
	"strconv"
	"strings"
)

// formatLSN writes a log address as Postgres does: 16/B374D848.
func formatLSN(lsn uint64) string { return fmt.Sprintf("%X/%X", lsn>>32, uint32(lsn)) }

// parseLSN reads what formatLSN writes.
func parseLSN(s string) (uint64, error) {
	hi, lo, ok := strings.Cut(s, "/")
	h, err1 := strconv.ParseUint(hi, 16, 32)
	l, err2 := strconv.ParseUint(lo, 16, 32)
	if !ok || err1 != nil || err2 != nil {
		return 0, fmt.Errorf("log address %q: want two hexadecimal numbers and a slash", s)
	}
	return h<<32 | l, nil
}

// lsn is a log address that reads and writes JSON as Postgres spells it.
type lsn uint64

// MarshalText writes 16/B374D848.
func (l lsn) MarshalText() ([]byte, error) { return []byte(formatLSN(uint64(l))), nil }

// UnmarshalText reads what MarshalText writes.
func (l *lsn) UnmarshalText(b []byte) error {
	v, err := parseLSN(string(b))
	*l = lsn(v)
	return err
}
