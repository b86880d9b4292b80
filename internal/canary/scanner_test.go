package canary

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"database/sql"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/array"
	"github.com/apache/arrow-go/v18/arrow/memory"
	parquetfile "github.com/apache/arrow-go/v18/parquet"
	"github.com/apache/arrow-go/v18/parquet/compress"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
)

const bird = "q7r2m9xk4vbt1w"

// wrap writes a value down in every way that the scanner is to see through.
var wrap = map[string]func(text string) []byte{
	"plain":     func(s string) []byte { return []byte(s) },
	"capitals":  func(s string) []byte { return []byte(strings.ToUpper(s)) },
	"reversed":  func(s string) []byte { return []byte(reversed(s)) },
	"utf-16le":  func(s string) []byte { return []byte(wide(s, binary.LittleEndian)) },
	"utf-16be":  func(s string) []byte { return []byte(wide(s, binary.BigEndian)) },
	"escaped":   func(s string) []byte { return []byte(escaped(s, `\u%04x`)) },
	"percent":   func(s string) []byte { return []byte(escaped(s, "%%%02x")) },
	"base64":    func(s string) []byte { return []byte(base64.StdEncoding.EncodeToString([]byte(s))) },
	"base64+1":  func(s string) []byte { return []byte("xxxxx" + base64.StdEncoding.EncodeToString([]byte("a"+s+"b"))) },
	"base64+2":  func(s string) []byte { return []byte("xxx" + base64.StdEncoding.EncodeToString([]byte("ab"+s+"c"))) },
	"base64url": func(s string) []byte { return []byte(base64.URLEncoding.EncodeToString([]byte("\xfb\xff" + s))) },
	"hex":       func(s string) []byte { return []byte("0" + hex.EncodeToString([]byte(s))) },
	"Hex":       func(s string) []byte { return []byte(strings.ToUpper(hex.EncodeToString([]byte(s)))) },
	"twice": func(s string) []byte {
		inner := base64.StdEncoding.EncodeToString([]byte(`{"value":"` + s + `"}`))
		return []byte(`{"body":"` + base64.StdEncoding.EncodeToString([]byte(`{"photo":"`+inner+`"}`)) + `"}`)
	},
	"gzip": func(s string) []byte {
		var b bytes.Buffer
		w := gzip.NewWriter(&b)
		_, _ = w.Write([]byte("xx" + s + s))
		_ = w.Close()
		return b.Bytes()
	},
	"zstd": func(s string) []byte {
		w, _ := zstd.NewWriter(nil)
		return w.EncodeAll([]byte(strings.Repeat(" ", 99)+s), []byte("a header"))
	},
	"batch": func(s string) []byte {
		return batch(2, snappy.Encode(nil, []byte(strings.Repeat("\x00", 50)+s[:7]+s[7:])))
	},
	"batch, xerial": func(s string) []byte { return batch(2, inXerial(s)) },
	"parquet":       func(s string) []byte { return parquetOf(s) },
	"avro":          func(s string) []byte { return avro("deflate", s) },
}

// TestFinds hides a value in every way, between other bytes where that is possible.
func TestFinds(t *testing.T) {
	for name, do := range wrap {
		data := do(bird)
		if name != "parquet" && name != "avro" {
			data = append(append([]byte("some bytes before \x00"), data...), "\x00 and behind"...)
		}
		s := NewScanner()
		s.Plant("field", bird)
		s.Scan("here", data)
		if len(s.Hits()) == 0 || s.err != nil {
			t.Errorf("%s: not found, %v", name, s.err)
		}
		s = NewScanner()
		s.Plant("field", "z"+bird[1:])
		s.Scan("here", data)
		if hits := s.Hits(); len(hits) > 0 {
			t.Errorf("%s: what is not there: %v", name, hits)
		}
	}
}

// TestFindsStored looks for numbers and bytes in the forms of files.
func TestFindsStored(t *testing.T) {
	const n = 812_345_678_901_234_567
	s := NewScanner()
	s.PlantNumber("number", n)
	s.PlantBytes("bytes", []byte("\x01\x02\x03\xff\xfe\xfd\x00\x10\x20"))
	for _, data := range []string{
		string(binary.LittleEndian.AppendUint64([]byte("x"), n)), string(binary.BigEndian.AppendUint64([]byte("xy"), n)),
		string(binary.AppendVarint([]byte("x"), n)), `{"a":812345678901234567}`, `\x010203fffefd001020`, "-AQID__79ABAg-",
	} {
		before := len(s.Hits())
		s.Scan(data, []byte(data))
		if len(s.Hits()) == before {
			t.Errorf("%q: not found", data)
		}
	}
}

// TestFolder finds a value in a name, in a file and in a database's log.
func TestFolder(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "of "+bird), []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	db, err := sql.Open("sqlite", filepath.Join(dir, "a.db"))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(`PRAGMA journal_mode = wal; CREATE TABLE t (a, b); INSERT INTO t VALUES (1, 'x` + bird + `')`); err != nil {
		t.Fatal(err)
	}
	s := NewScanner()
	s.Plant("field", bird)
	if err := s.ScanFolder(dir); err != nil {
		t.Fatal(err)
	}
	found := ""
	for _, h := range s.Hits() {
		found += h.String() + "\n"
		if strings.Contains(h.Form, bird) {
			t.Error("a hit names the value")
		}
	}
	for _, want := range []string{"the name of", "a.db › t ", "a.db-wal"} {
		if !strings.Contains(found, want) {
			t.Errorf("not found in %s:\n%s", want, found)
		}
	}
}

// FuzzScan opens arbitrary bytes: whatever they pretend to be, the scanner goes on.
func FuzzScan(f *testing.F) {
	for _, do := range wrap {
		f.Add(do(bird))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		s := NewScanner()
		s.Plant("field", bird)
		s.Scan("here", data)
		if bytes.Contains(data, []byte(bird)) && len(s.Hits()) == 0 {
			t.Error("not found")
		}
	})
}

func batch(codec byte, records []byte) []byte {
	b := make([]byte, 61, 61+len(records))
	b[16], b[22] = 2, codec
	b = append(b, records...)
	binary.BigEndian.PutUint32(b[8:], uint32(len(b)-12))
	binary.BigEndian.PutUint32(b[17:], crc32.Checksum(b[21:], castagnoli))
	return b
}

func inXerial(s string) []byte {
	chunk := snappy.Encode(nil, []byte(s))
	b := append(append([]byte{}, xerial...), 0, 0, 0, 1, 0, 0, 0, 1)
	return append(binary.BigEndian.AppendUint32(b, uint32(len(chunk))), chunk...)
}

// parquetOf is a Parquet file whose column shares prefixes between its values.
func parquetOf(s string) []byte {
	schema := arrow.NewSchema([]arrow.Field{{Name: "a", Type: arrow.BinaryTypes.String}}, nil)
	b := array.NewRecordBuilder(memory.DefaultAllocator, schema)
	defer b.Release()
	for _, v := range []string{s[:9] + "aa", s, s[:5] + "bb"} {
		b.Field(0).(*array.StringBuilder).Append(v)
	}
	rows := b.NewRecordBatch()
	defer rows.Release()
	var out bytes.Buffer
	w, err := pqarrow.NewFileWriter(schema, &out, parquetfile.NewWriterProperties(parquetfile.WithCompression(compress.Codecs.Snappy),
		parquetfile.WithDictionaryDefault(false), parquetfile.WithStats(false), parquetfile.WithEncoding(parquetfile.Encodings.DeltaByteArray)), pqarrow.NewArrowWriterProperties())
	if err == nil {
		err = w.Write(rows)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		panic(err)
	}
	return out.Bytes()
}

// avro is a file of Avro with one block.
func avro(codec, s string) []byte {
	text := func(b []byte, s string) []byte { return append(binary.AppendVarint(b, int64(len(s))), s...) }
	b := binary.AppendVarint(bytes.Clone(avroMagic), 1)
	b = append(text(text(b, "avro.codec"), codec), 0)
	mark := "0123456789abcdef"
	var block bytes.Buffer
	w, _ := flate.NewWriter(&block, 9)
	_, _ = w.Write([]byte("\x02" + s))
	_ = w.Close()
	return append(text(binary.AppendVarint(append(b, mark...), 1), block.String()), mark...)
}
