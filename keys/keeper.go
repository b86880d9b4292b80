package keys

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// KeeperConfig are the settings of a Keeper.
type KeeperConfig struct {
	Refs     []Ref
	BaseDir  string // where relative files start
	Services Services

	Poll    time.Duration // how often files are looked at; default 2 s
	Confirm time.Duration // how often a key service must say yes again; default 5 min
	Grace   time.Duration // how long a key is used that cannot be confirmed; default 1 h
	Start   time.Duration // how long Open waits for a key service that is away; default 10 s

	// Changed is called after each new Snapshot, from the goroutine of Run.
	Changed func(Change)

	now func() time.Time
}

// Change says what a new Snapshot of a Keeper has that the last one had not.
type Change struct {
	Ref Ref
	// Err says why the key is gone, or, with Kept, why the old one goes on
	// being used; nil for a key that is there.
	Err     error
	Kept    bool
	Primary string // id of the primary of a key that is there
}

// Keeper keeps the keys of a running pipeline: it notices changed files and
// rings, asks key services again whether a key may still be used, and puts a
// new Snapshot in the place of the old one.
//
// A service that is away, or a file that cannot be read, changes nothing for
// the time of Grace: the opened keys stay in memory. After that, and at once
// when a service refuses, the key is missing in the next Snapshot, and the
// streams that need it stop (Invariant 6).
type Keeper struct {
	cfg     KeeperConfig
	current atomic.Pointer[Snapshot]

	mu    sync.Mutex // of refresh
	state map[Ref]*kept
}

// kept is what a Keeper knows of a reference.
type kept struct {
	sum       [32]byte // of the text that ring was made from
	ring      *Ring    // nil = not available
	err       error    // of the last try
	confirmed time.Time
	next      time.Time // when the services are asked again
	warnings  []string
}

// OpenKeeper reads all keys. Those that cannot be had are missing in Current;
// only an ended ctx is an error.
func OpenKeeper(ctx context.Context, cfg KeeperConfig) (*Keeper, error) {
	for d, def := range map[*time.Duration]time.Duration{&cfg.Poll: 2 * time.Second, &cfg.Confirm: 5 * time.Minute,
		&cfg.Grace: time.Hour, &cfg.Start: 10 * time.Second} {
		if *d == 0 {
			*d = def
		}
	}
	if cfg.now == nil {
		cfg.now = time.Now
	}
	k := &Keeper{cfg: cfg, state: map[Ref]*kept{}}
	for until, pause := time.Now().Add(cfg.Start), 100*time.Millisecond; ; pause *= 2 {
		k.Refresh(ctx)
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if !k.away() || time.Now().Add(pause).After(until) {
			return k, nil
		}
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(pause):
		}
	}
}

// away reports whether a key is missing because its service does not answer.
func (k *Keeper) away() bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, s := range k.state {
		if s.ring == nil && !refused(s.err) && isService(s.err) {
			s.next = time.Time{}
			return true
		}
	}
	return false
}

// Current returns the newest Snapshot; never nil.
func (k *Keeper) Current() *Snapshot { return k.current.Load() }

// Run looks for changes until ctx ends.
func (k *Keeper) Run(ctx context.Context) {
	tick := time.NewTicker(k.cfg.Poll)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			k.Refresh(ctx)
		}
	}
}

// Refresh looks at every key now and returns what has changed. It puts a new
// Snapshot in place only if a ring is another one.
func (k *Keeper) Refresh(ctx context.Context) []Change {
	k.mu.Lock()
	defer k.mu.Unlock()
	var changes []Change
	first, swap := k.current.Load() == nil, false
	for _, r := range k.cfg.Refs {
		s := k.state[r]
		if s == nil {
			s = &kept{}
			k.state[r] = s
		}
		ring, err := s.ring, s.err
		k.look(ctx, r, s)
		if ctx.Err() != nil {
			return nil // half a look is none
		}
		swap = swap || s.ring != ring
		switch {
		case s.ring != ring && s.ring != nil:
			changes = append(changes, Change{Ref: r, Primary: s.ring.Primary().ID})
		case s.ring != ring, message(s.err) != message(err) && s.err != nil:
			changes = append(changes, Change{Ref: r, Err: s.err, Kept: s.ring != nil})
		}
	}
	if first || swap {
		k.current.Store(k.snapshot())
	}
	if k.cfg.Changed != nil && !first {
		for _, c := range changes {
			k.cfg.Changed(c)
		}
	}
	return changes
}

// look brings what is known of r up to date.
func (k *Keeper) look(ctx context.Context, r Ref, s *kept) {
	now := k.cfg.now()
	text, warnings, err := readText(r, k.cfg.BaseDir)
	if err == nil {
		sum := sha256.Sum256(text)
		if s.ring != nil && bytes.Equal(sum[:], s.sum[:]) && now.Before(s.next) {
			if !isService(s.err) {
				s.err = nil // the file is back as it was
				s.confirmed = now
			}
			return
		}
		if s.ring == nil && s.err != nil && bytes.Equal(sum[:], s.sum[:]) && now.Before(s.next) {
			return // a service that refused is not asked every two seconds
		}
		var ring *Ring
		ring, err = parse(ctx, r, text, k.cfg.Services)
		s.sum, s.next = sum, now.Add(k.cfg.Confirm)
		if err == nil {
			if s.ring == nil || !s.ring.equal(ring) {
				s.ring = ring
			}
			s.err, s.confirmed, s.warnings = nil, now, nil
			if !r.Scheme.IsRing() || ring.Secret() {
				s.warnings = warnings
			}
			return
		}
		if isService(err) && !refused(err) {
			s.next = now.Add(min(k.cfg.Confirm, 10*k.cfg.Poll)) // an outage is watched closely
		}
	}
	s.err = err
	switch {
	case s.ring == nil:
	case refused(err):
		s.ring = nil // Invariant 6: who keeps the key has said no
	case now.Sub(s.confirmed) > k.cfg.Grace:
		s.ring = nil
		s.err = fmt.Errorf("%w; it could not be confirmed for %s", err, k.cfg.Grace)
	}
}

func (k *Keeper) snapshot() *Snapshot {
	s := &Snapshot{rings: make(map[Ref]*Ring, len(k.state)), failed: map[Ref]error{}}
	for r, state := range k.state {
		if state.ring == nil {
			s.failed[r] = state.err
			continue
		}
		s.rings[r] = state.ring
		s.warnings = append(s.warnings, state.warnings...)
	}
	slices.Sort(s.warnings)
	return s
}

func isService(err error) bool {
	var e *ServiceError
	return errors.As(err, &e)
}

func refused(err error) bool {
	var e *ServiceError
	return errors.As(err, &e) && e.Refused
}

func message(err error) string {
	if err == nil {
		return ""
	}
	return strings.TrimSpace(err.Error())
}

// equal reports whether r and o have the same versions for the same uses.
func (r *Ring) equal(o *Ring) bool {
	return r.primary == o.primary && r.stable == o.stable && slices.EqualFunc(r.versions, o.versions, func(a, b Version) bool {
		return a.ID == b.ID && a.State == b.State && bytes.Equal(a.value, b.value)
	})
}
