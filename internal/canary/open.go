package canary

import (
	"bytes"
	"compress/flate"
	"compress/gzip"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/apache/arrow-go/v18/arrow"
	"github.com/apache/arrow-go/v18/arrow/memory"
	"github.com/apache/arrow-go/v18/parquet/file"
	"github.com/apache/arrow-go/v18/parquet/pqarrow"
	"github.com/klauspost/compress/snappy"
	"github.com/klauspost/compress/zstd"
)

const (
	maxDepth  = 5         // containers in containers
	maxOpened = 256 << 20 // bytes of one opened container
	runBytes  = 24        // shorter texts of base64 or hex are what Scanner's forms find
)

var (
	gzipMagic = []byte{0x1f, 0x8b, 8}
	zstdMagic = []byte{0x28, 0xb5, 0x2f, 0xfd}
	parquet   = []byte("PAR1")
	avroMagic = []byte("Obj\x01")
	xerial    = []byte("\x82SNAPPY\x00")

	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// Scan looks through data and through everything that is packed in it. where
// names it in hits.
func (s *Scanner) Scan(where string, data []byte) { s.scan(where, data, 0) }

func (s *Scanner) scan(where string, data []byte, depth int) {
	s.look(where, data)
	if depth == maxDepth || len(data) < windowBytes {
		return
	}
	open := func(kind string, content []byte) {
		s.opened[kind]++
		s.scan(where+" › "+kind, content, depth+1)
	}
	each(data, gzipMagic, func(at int) {
		if r, err := gzip.NewReader(bytes.NewReader(data[at:])); err == nil {
			open("gzip", drain(r))
		}
	})
	each(data, zstdMagic, func(at int) {
		if r, err := zstd.NewReader(bytes.NewReader(data[at:]), zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(maxOpened)); err == nil {
			open("zstd", drain(r))
			r.Close()
		}
	})
	if bytes.HasPrefix(data, parquet) && bytes.HasSuffix(data, parquet) {
		if err := columns(data, func(b []byte) { s.look(where+" › columns", b) }); err != nil {
			s.err = errors.Join(s.err, fmt.Errorf("%s: %w", where, err))
		}
		s.opened["parquet"]++
	}
	if bytes.HasPrefix(data, avroMagic) {
		if err := blocks(data, open); err != nil {
			s.err = errors.Join(s.err, fmt.Errorf("%s: %w", where, err))
		}
	}
	recordBatches(data, open)
	s.runs(data, open)
}

// each calls do with every place of magic in data.
func each(data, magic []byte, do func(at int)) {
	for from := 0; ; {
		i := bytes.Index(data[from:], magic)
		if i < 0 {
			return
		}
		do(from + i)
		from += i + 1
	}
}

// drain reads as much of r as can be had; what follows a container is none of it.
func drain(r io.Reader) []byte {
	b, _ := io.ReadAll(io.LimitReader(r, maxOpened))
	return b
}

// runs decodes texts of base64 and of hexadecimal digits.
func (s *Scanner) runs(data []byte, open func(kind string, content []byte)) {
	for i := 0; i < len(data); {
		if !isBase64[data[i]] {
			i++
			continue
		}
		j, digits := i, true
		for ; j < len(data) && isBase64[data[j]]; j++ {
			digits = digits && isHex[data[j]]
		}
		if run := data[i:j]; len(run) >= runBytes {
			if b, err := base64.RawStdEncoding.DecodeString(string(run[:len(run)/4*4+tail(len(run)%4)])); err == nil {
				open("base64", b)
			}
			if digits {
				b := make([]byte, len(run)/2)
				if _, err := hex.Decode(b, run[:len(run)/2*2]); err == nil {
					open("hex", b)
				}
			}
		}
		i = j
	}
}

// recordBatches opens the record batches of Kafka's format 2 in data: their
// checksum tells them from anything else.
func recordBatches(data []byte, open func(kind string, content []byte)) {
	const header = 61 // up to the records
	for i := 0; i+header <= len(data); i++ {
		if data[i+16] != 2 {
			continue
		}
		end := i + 12 + int(int32(binary.BigEndian.Uint32(data[i+8:])))
		if end < i+header || end > len(data) || crc32.Checksum(data[i+21:end], castagnoli) != binary.BigEndian.Uint32(data[i+17:]) {
			continue
		}
		records := data[i+header : end]
		switch codec := data[i+22] & 7; codec {
		case 0:
			open("batch", records)
		case 2:
			if b, err := unsnap(records); err == nil {
				open("snappy batch", b)
			}
		default: // gzip and zstd are found by their magic, lz4 is not used
			open(fmt.Sprintf("batch of codec %d", codec), records)
		}
		i = end - 1
	}
}

// unsnap opens a snappy block, or the chunks that Java's library writes.
func unsnap(b []byte) ([]byte, error) {
	if !bytes.HasPrefix(b, xerial) {
		return snappy.Decode(nil, b)
	}
	var out []byte
	for rest := b[16:]; len(rest) >= 4; {
		n := int(binary.BigEndian.Uint32(rest))
		if n > len(rest)-4 {
			return nil, io.ErrUnexpectedEOF
		}
		chunk, err := snappy.Decode(nil, rest[4:4+n])
		if err != nil {
			return nil, err
		}
		out, rest = append(out, chunk...), rest[4+n:]
	}
	return out, nil
}

// columns calls do with the decoded values of every column of a Parquet file.
func columns(data []byte, do func([]byte)) error {
	r, err := file.NewParquetReader(bytes.NewReader(data))
	if err != nil {
		return err
	}
	defer func() { _ = r.Close() }()
	a, err := pqarrow.NewFileReader(r, pqarrow.ArrowReadProperties{}, memory.DefaultAllocator)
	if err != nil {
		return err
	}
	table, err := a.ReadTable(context.Background())
	if err != nil {
		return err
	}
	defer table.Release()
	for i := range int(table.NumCols()) {
		for _, chunk := range table.Column(i).Data().Chunks() {
			buffers(chunk.Data(), do)
		}
	}
	return nil
}

func buffers(d arrow.ArrayData, do func([]byte)) {
	for _, b := range d.Buffers() {
		if b != nil {
			do(b.Bytes())
		}
	}
	for _, child := range d.Children() {
		buffers(child, do)
	}
	if d.DataType().ID() == arrow.DICTIONARY {
		buffers(d.Dictionary(), do)
	}
}

// blocks opens the blocks of an Avro file.
func blocks(data []byte, open func(kind string, content []byte)) error {
	r := bytes.NewReader(data[len(avroMagic):])
	codec := ""
	for {
		n, err := binary.ReadVarint(r)
		if err != nil {
			return err
		}
		if n == 0 {
			break
		}
		if n < 0 { // a count below zero is followed by the size
			if _, err := binary.ReadVarint(r); err != nil {
				return err
			}
			n = -n
		}
		for range n {
			key, err := sized(r)
			if err != nil {
				return err
			}
			value, err := sized(r)
			if err != nil {
				return err
			}
			if string(key) == "avro.codec" {
				codec = string(value)
			}
		}
	}
	sync := make([]byte, 16)
	if _, err := io.ReadFull(r, sync); err != nil {
		return err
	}
	for r.Len() > 0 {
		if _, err := binary.ReadVarint(r); err != nil {
			return err
		}
		block, err := sized(r)
		if err != nil {
			return err
		}
		switch codec {
		case "deflate":
			if block, err = io.ReadAll(io.LimitReader(flate.NewReader(bytes.NewReader(block)), maxOpened)); err != nil {
				return err
			}
		case "snappy":
			if block, err = snappy.Decode(nil, block[:max(0, len(block)-4)]); err != nil {
				return err
			}
		case "", "null", "zstandard": // the last is found by its magic
		default:
			return fmt.Errorf("codec %s of Avro is not known here", codec)
		}
		open("avro", block)
		if _, err := io.ReadFull(r, sync); err != nil {
			return err
		}
	}
	return nil
}

func sized(r *bytes.Reader) ([]byte, error) {
	n, err := binary.ReadVarint(r)
	if err != nil {
		return nil, err
	}
	if n < 0 || n > int64(r.Len()) {
		return nil, io.ErrUnexpectedEOF
	}
	b := make([]byte, n)
	_, err = io.ReadFull(r, b)
	return b, err
}

var isBase64, isHex = func() (b, h [256]bool) {
	for c := range 256 {
		digit, low, high := c >= '0' && c <= '9', c >= 'a' && c <= 'z', c >= 'A' && c <= 'Z'
		b[c] = digit || low || high || c == '+' || c == '/'
		h[c] = digit || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
	}
	return b, h
}()

// tail is how many characters of an incomplete group of base64 mean something.
func tail(rest int) int {
	if rest == 1 {
		return 0
	}
	return rest
}
