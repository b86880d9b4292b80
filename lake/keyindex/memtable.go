package keyindex

// memtable is an open-addressing table of the newest entries. A key's slot
// comes from the top bits of its hash, so a walk over the slots is almost in
// hash order, and sorted keys meet the table in the order of its memory.
type memtable struct {
	slots []entry // 1<<bits and a tail, so that no probe wraps around
	bits  uint
	n     int
}

const memtableTail = 64

func newMemtable() *memtable {
	m := &memtable{bits: 8}
	m.slots = make([]entry, 1<<m.bits+memtableTail)
	return m
}

// put adds e in place of an older entry of its hash.
func (m *memtable) put(e entry) {
	if m.n*10 >= 7<<m.bits {
		m.grow()
	}
	for i := int(e.h0 >> (32 - m.bits)); i < len(m.slots); i++ {
		s := &m.slots[i]
		if s.empty() {
			*s = e
			m.n++
			return
		}
		if s.sameKey(&e) {
			*s = e
			return
		}
	}
	m.slots = append(m.slots, e)
	m.n++
}

// reserve makes room for n more entries at once. Entries that come in hash
// order would otherwise all crowd at the low end of a table that is too small.
func (m *memtable) reserve(n int) {
	bits := m.bits
	for (m.n+n)*10 >= 7<<bits {
		bits++
	}
	if bits > m.bits {
		m.resize(bits)
	}
}

func (m *memtable) grow() { m.resize(m.bits + 1) }

func (m *memtable) resize(bits uint) {
	old := m.slots
	m.bits = bits
	m.n = 0
	m.slots = make([]entry, 1<<m.bits+memtableTail)
	for i := range old {
		if !old[i].empty() {
			m.put(old[i])
		}
	}
}

func (m *memtable) find(k *entry) (Location, bool) {
	for i := int(k.h0 >> (32 - m.bits)); i < len(m.slots); i++ {
		s := &m.slots[i]
		if s.sameKey(k) {
			return Location{s.file, s.pos}, true
		}
		if s.empty() {
			break
		}
	}
	return Location{}, false
}

// sorted returns a copy of the entries in hash order.
func (m *memtable) sorted() []entry {
	es := make([]entry, 0, m.n)
	for i := range m.slots {
		if !m.slots[i].empty() {
			es = append(es, m.slots[i])
		}
	}
	insertionSort(es)
	return es
}

func (m *memtable) reset() {
	clear(m.slots)
	m.n = 0
}
