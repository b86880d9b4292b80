package keys

import (
	"bufio"
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// Subjects is a file of keys, one for each person that data is about. Who
// loses their key loses everything that was encrypted with it, wherever copies
// of it are: Erase is how a right to erasure reaches a log that cannot be
// rewritten.
//
// The file has no name of a subject, only a keyed digest, and the keys are
// wrapped by the primary version of a ring. Several processes may use one
// file; an Erase is seen by the others with their next Ensure.
type Subjects struct {
	path string
	ring *Ring
	now  func() time.Time

	mu     sync.Mutex
	seen   fs.FileInfo // the file as it was read last; nil = not there
	read   int64       // how much of it
	byName map[string]*subject
	byID   map[string]*subject
}

type subject struct {
	id     string
	key    []byte
	erased bool
	locked string // the version that has wrapped the key, where the ring does not have it
}

// subjectLine is one line of the file.
type subjectLine struct {
	Name   string     `json:"s"`            // keyed digest of the subject
	By     string     `json:"by,omitempty"` // the ring's version that has wrapped the key
	Key    string     `json:"k,omitempty"`
	Erased *time.Time `json:"erased,omitempty"`
}

// OpenSubjects reads the file at path, which need not be there yet.
func OpenSubjects(path string, ring *Ring) (*Subjects, error) {
	if ring.versions[0].value == nil {
		return nil, fmt.Errorf("version %s of the ring is disabled, and the digests of subjects are made with it; enable it", ring.versions[0].ID)
	}
	s := &Subjects{path: path, ring: ring, now: time.Now, byName: map[string]*subject{}, byID: map[string]*subject{}}
	s.mu.Lock()
	defer s.mu.Unlock()
	return s, s.refresh()
}

// name returns the digest that stands for a subject in the file.
func (s *Subjects) name(text []byte) string {
	m := hmac.New(sha256.New, s.ring.versions[0].value) // the oldest: no rotation changes names
	m.Write([]byte("sluice subject\x00"))
	m.Write(text)
	return hex.EncodeToString(m.Sum(nil)[:16])
}

// Ensure makes keys for the subjects that have none, durably and before they
// are used. A subject that was erased gets none again.
func (s *Subjects) Ensure(subjects [][]byte) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.refresh(); err != nil {
		return err
	}
	var missing []string
	seen := map[string]bool{}
	for _, text := range subjects {
		name := s.name(text)
		switch got := s.byName[name]; {
		case got == nil:
			if !seen[name] {
				seen[name], missing = true, append(missing, name)
			}
		case got.locked != "":
			return fmt.Errorf("a person's key was wrapped with version %s, which the ring does not have or has disabled", got.locked)
		}
	}
	if len(missing) == 0 {
		return nil
	}
	return s.locked(func() error {
		if err := s.refresh(); err != nil { // somebody may have made them meanwhile
			return err
		}
		return s.add(missing)
	})
}

// add appends keys for the names that still have none. The file is locked.
func (s *Subjects) add(names []string) error {
	aead, err := wrapAEAD(s.ring.Primary())
	if err != nil {
		return err
	}
	var text []byte
	for _, name := range names {
		if s.byName[name] != nil {
			continue
		}
		key := make([]byte, RingBytes)
		if _, err := io.ReadFull(rand.Reader, key); err != nil {
			return fmt.Errorf("make a key: %w", err)
		}
		line, err := json.Marshal(subjectLine{Name: name, By: s.ring.Primary().ID,
			Key: base64.StdEncoding.EncodeToString(aead.Seal(nil, nil, key, []byte(name)))})
		if err != nil {
			return fmt.Errorf("write the key of a subject: %w", err)
		}
		text = append(append(text, line...), '\n')
	}
	if len(text) == 0 {
		return nil
	}
	f, err := os.OpenFile(s.path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return fmt.Errorf("write the keys of subjects: %w", err)
	}
	if s.seen != nil && s.read < s.seen.Size() {
		text = append([]byte{'\n'}, text...) // a line that a crash has cut ends here
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close(), syncDir(filepath.Dir(s.path))); err != nil {
		return fmt.Errorf("write the keys of subjects: %w", err)
	}
	return s.refresh()
}

// Key returns the key of a subject, false if it has none: it was erased, or
// Ensure has not seen it.
func (s *Subjects) Key(text []byte) ([]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	got := s.byName[s.name(text)]
	if got == nil || got.key == nil {
		return nil, false
	}
	return got.key, true
}

// ByID returns the key that a ciphertext names.
func (s *Subjects) ByID(id string) ([]byte, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	got := s.byID[id]
	if got == nil {
		return nil, false
	}
	return got.key, true
}

// Len returns how many subjects have a key, and how many were erased.
func (s *Subjects) Len() (live, erased int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range s.byName {
		if one.erased {
			erased++
		} else {
			live++
		}
	}
	return live, erased
}

// Erase destroys the key of a subject: the file is written anew without it,
// with a note that it was erased. It reports whether there was a key.
func (s *Subjects) Erase(text []byte) (found bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	name := s.name(text)
	err = s.locked(func() error {
		if err := s.refresh(); err != nil {
			return err
		}
		got := s.byName[name]
		if found = got != nil && !got.erased; !found {
			return nil
		}
		return s.rewrite(name)
	})
	return found, err
}

// rewrite writes the file without the key of name.
func (s *Subjects) rewrite(name string) error {
	old, err := os.ReadFile(s.path)
	if err != nil {
		return fmt.Errorf("erase: %w", err)
	}
	at := s.now().UTC().Truncate(time.Second)
	var text []byte
	err = eachSubject(old, func(l *subjectLine) error {
		if l.Name == name {
			l = &subjectLine{Name: name, Erased: &at}
		}
		line, err := json.Marshal(l)
		text = append(append(text, line...), '\n')
		return err
	})
	if err != nil {
		return fmt.Errorf("erase: %w", err)
	}
	gone, err := os.OpenFile(s.path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("erase: %w", err)
	}
	defer gone.Close()
	f, err := os.CreateTemp(filepath.Dir(s.path), filepath.Base(s.path)+".new*")
	if err != nil {
		return fmt.Errorf("erase: %w", err)
	}
	_, err = f.Write(text)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), s.path)
	}
	if err != nil {
		return fmt.Errorf("erase: %w", errors.Join(err, os.Remove(f.Name())))
	}
	// The old file has no name any more; its blocks would keep the key.
	_, err = gone.WriteAt(make([]byte, len(old)), 0)
	if err = errors.Join(err, gone.Sync(), syncDir(filepath.Dir(s.path))); err != nil {
		return fmt.Errorf("erase: %w", err)
	}
	return s.refresh()
}

// refresh reads what is new in the file, all of it if it is another one.
func (s *Subjects) refresh() error {
	info, err := os.Stat(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		s.seen, s.read, s.byName, s.byID = nil, 0, map[string]*subject{}, map[string]*subject{}
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the keys of subjects: %w", err)
	}
	if s.seen != nil && os.SameFile(info, s.seen) && info.Size() == s.seen.Size() && info.ModTime().Equal(s.seen.ModTime()) {
		return nil
	}
	from := int64(0)
	if s.seen != nil && os.SameFile(info, s.seen) && info.Size() >= s.seen.Size() {
		from = s.read // it only grew
	} else {
		s.byName, s.byID = map[string]*subject{}, map[string]*subject{}
	}
	f, err := os.Open(s.path)
	if err != nil {
		return fmt.Errorf("read the keys of subjects: %w", err)
	}
	defer f.Close()
	text, err := io.ReadAll(io.NewSectionReader(f, from, info.Size()-from))
	if err != nil {
		return fmt.Errorf("read the keys of subjects: %w", err)
	}
	if err := eachSubject(text, s.take); err != nil {
		s.seen = nil
		return fmt.Errorf("%s: %w", s.path, err)
	}
	s.seen, s.read = info, from+int64(bytes.LastIndexByte(text, '\n')+1)
	return nil
}

// take puts the key of a line beside the others.
func (s *Subjects) take(l *subjectLine) error {
	one, err := s.open(l)
	if err != nil {
		return err
	}
	if old := s.byName[l.Name]; old != nil && old.erased {
		return nil // an erasure is for good
	}
	s.byName[l.Name] = one
	if one.key != nil {
		s.byID[one.id] = one
	}
	return nil
}

// open unwraps the key of a line.
func (s *Subjects) open(l *subjectLine) (*subject, error) {
	if l.Erased != nil {
		return &subject{erased: true}, nil
	}
	i := s.ring.index(l.By)
	if i < 0 || s.ring.versions[i].State != Enabled {
		return &subject{locked: l.By}, nil
	}
	aead, err := wrapAEAD(s.ring.versions[i])
	if err != nil {
		return nil, err
	}
	wrapped, err := base64.StdEncoding.DecodeString(l.Key)
	if err != nil {
		return nil, errors.New("a key is no base64")
	}
	key, err := aead.Open(nil, nil, wrapped, []byte(l.Name))
	if err != nil {
		return nil, errors.New("a key does not open; the file was changed or mixed up")
	}
	return &subject{id: ID(key), key: key}, nil
}

// eachSubject reads the lines of a file; one that a crash has cut is no line.
func eachSubject(text []byte, each func(*subjectLine) error) error {
	for len(text) > 0 {
		n, line, err := bufio.ScanLines(text, true)
		if err != nil {
			return err
		}
		text = text[n:]
		l := &subjectLine{}
		if json.Unmarshal(line, l) != nil || len(l.Name) != 32 {
			continue
		}
		if err := each(l); err != nil {
			return err
		}
	}
	return nil
}

// locked keeps other processes from writing meanwhile.
func (s *Subjects) locked(do func() error) error {
	if err := os.MkdirAll(filepath.Dir(s.path), 0o700); err != nil {
		return fmt.Errorf("make the folder of the keys: %w", err)
	}
	f, err := os.OpenFile(s.path+".lock", os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return fmt.Errorf("lock the keys of subjects: %w", err)
	}
	defer f.Close()
	for {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX)
		if !errors.Is(err, syscall.EINTR) {
			break
		}
	}
	if err != nil {
		return fmt.Errorf("lock the keys of subjects: %w", err)
	}
	return do()
}

func wrapAEAD(v Version) (cipher.AEAD, error) {
	if len(v.value) != RingBytes {
		return nil, fmt.Errorf("version %s has %d bytes; a ring that wraps the keys of subjects has %d", v.ID, len(v.value), RingBytes)
	}
	block, err := aes.NewCipher(v.value)
	if err != nil {
		return nil, fmt.Errorf("version %s: %w", v.ID, err)
	}
	return cipher.NewGCMWithRandomNonce(block)
}
