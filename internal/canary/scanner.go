package canary

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"
)

// windowBytes is how much of a form decides whether a place is looked at.
const windowBytes = 8

// filterBits is the size of the filter before the map of windows, as a power of two.
const filterBits = 22

// Hit is a planted value that was found.
type Hit struct {
	Where string // what held it: a file and the containers in it
	Place string // where it was planted
	Form  string // how it was written
}

// String returns the hit without the value.
func (h Hit) String() string {
	return fmt.Sprintf("the value planted in %s is in %s (%s)", h.Place, h.Where, h.Form)
}

// Scanner looks for all planted values at once, in all of their forms, also
// inside what is compressed or encoded. Plant everything before the first Scan.
type Scanner struct {
	windows map[uint64][]pattern
	filter  []uint64
	hits    map[Hit]bool
	opened  map[string]int
	planted int
	bytes   int64
	err     error
}

type pattern struct{ text, place, form string }

// NewScanner returns a scanner that knows no values.
func NewScanner() *Scanner {
	return &Scanner{windows: map[uint64][]pattern{}, filter: make([]uint64, 1<<filterBits/64), hits: map[Hit]bool{}, opened: map[string]int{}}
}

// Plant has the scanner look for a text.
func (s *Scanner) Plant(place, text string) { s.plant(place, forms(text)) }

// PlantNumber has the scanner look for a whole number, as text and as it is stored.
func (s *Scanner) PlantNumber(place string, n int64) { s.plant(place, numberForms(n)) }

// PlantBytes has the scanner look for bytes.
func (s *Scanner) PlantBytes(place string, b []byte) { s.plant(place, byteForms(b)) }

func (s *Scanner) plant(place string, forms map[string]string) {
	s.planted++
	for form, text := range forms {
		if len(text) < windowBytes {
			panic(fmt.Sprintf("%s: a form of %d bytes is found anywhere", place, len(text)))
		}
		w := binary.LittleEndian.Uint64([]byte(text))
		s.windows[w] = append(s.windows[w], pattern{text, place, form})
		h := spread(w)
		s.filter[h/64] |= 1 << (h % 64)
	}
}

func spread(w uint64) uint64 { return w * 0x9E3779B97F4A7C15 >> (64 - filterBits) }

// Planted returns how many values the scanner knows.
func (s *Scanner) Planted() int { return s.planted }

// Bytes returns how many bytes were looked at, those of opened containers included.
func (s *Scanner) Bytes() int64 { return s.bytes }

// Opened returns how many containers of each kind were opened.
func (s *Scanner) Opened() map[string]int { return s.opened }

// Hits returns what was found, in order.
func (s *Scanner) Hits() []Hit {
	return slices.SortedFunc(maps.Keys(s.hits), func(a, b Hit) int { return bytes.Compare([]byte(a.String()), []byte(b.String())) })
}

// look compares every place of data with every form of every value.
func (s *Scanner) look(where string, data []byte) {
	s.bytes += int64(len(data))
	for i := 0; i+windowBytes <= len(data); i++ {
		w := binary.LittleEndian.Uint64(data[i:])
		if h := spread(w); s.filter[h/64]&(1<<(h%64)) == 0 {
			continue
		}
		for _, p := range s.windows[w] {
			if len(data)-i >= len(p.text) && string(data[i:i+len(p.text)]) == p.text {
				s.hits[Hit{where, p.place, p.form}] = true
			}
		}
	}
}
