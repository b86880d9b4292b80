package canary

import (
	"bytes"
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
	_ "modernc.org/sqlite" // opens the databases that are found
)

// ScanFolder looks through every file below dir, its name and its extended
// attributes. Databases of SQLite are also read row by row, with their logs.
// A file that goes away meanwhile is none.
func (s *Scanner) ScanFolder(dir string) error {
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil {
			return gone(err)
		}
		name, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		s.look("the name "+name, []byte(name))
		s.attributes(name, path)
		if !e.Type().IsRegular() {
			return nil
		}
		data, err := os.ReadFile(path)
		if err != nil {
			return gone(err)
		}
		s.Scan(name, data)
		if bytes.HasPrefix(data, []byte("SQLite format 3\x00")) {
			s.opened["sqlite"]++
			if err := s.database(name, path); err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		return nil
	})
	return errors.Join(err, s.err)
}

func gone(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// attributes looks through what the file system keeps beside a file.
func (s *Scanner) attributes(name, path string) {
	list := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, list)
	if err != nil || n == 0 {
		return // a file system without them
	}
	value := make([]byte, 64<<10)
	for attribute := range strings.SplitSeq(strings.TrimRight(string(list[:n]), "\x00"), "\x00") {
		if n, err := unix.Lgetxattr(path, attribute, value); err == nil {
			s.Scan(name+" › attribute "+attribute, value[:n])
		}
	}
}

// database reads a copy of an SQLite database, so that its log is not touched.
func (s *Scanner) database(name, path string) error {
	dir, err := os.MkdirTemp("", "sluice-canary-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	to := filepath.Join(dir, "copy.db")
	for _, end := range []string{"", "-wal"} {
		data, err := os.ReadFile(path + end)
		if err != nil {
			if end == "" {
				return gone(err)
			}
			continue // no log
		}
		if err := os.WriteFile(to+end, data, 0o600); err != nil {
			return err
		}
	}
	db, err := sql.Open("sqlite", to)
	if err != nil {
		return err
	}
	defer func() { _ = db.Close() }()
	tables, err := texts(db, `SELECT name FROM sqlite_master WHERE type = 'table'`)
	if err != nil {
		return err
	}
	for _, table := range tables {
		rows, err := texts(db, `SELECT * FROM "`+strings.ReplaceAll(table[0], `"`, `""`)+`"`)
		if err != nil {
			return err
		}
		for _, row := range rows {
			for _, cell := range row {
				s.Scan(name+" › "+table[0], []byte(cell))
			}
		}
	}
	return nil
}

// texts returns the cells of a query.
func texts(db *sql.DB, query string) (out [][]string, err error) {
	rows, err := db.Query(query)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	names, err := rows.Columns()
	if err != nil {
		return nil, err
	}
	for rows.Next() {
		cells, into := make([]sql.RawBytes, len(names)), make([]any, len(names))
		for i := range cells {
			into[i] = &cells[i]
		}
		if err := rows.Scan(into...); err != nil {
			return nil, err
		}
		row := make([]string, len(names))
		for i := range cells {
			row[i] = string(cells[i])
		}
		out = append(out, row)
	}
	return out, rows.Err()
}
