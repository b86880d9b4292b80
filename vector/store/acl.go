package store

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

// Public is the principal that everybody is.
const Public = "public"

// ACL says who may see a document. A nil Allow means that nobody knows: it is seen by nobody.
type ACL struct {
	Allow, Deny []string // user:…, group:<identity>/…, public; deny wins
}

// ParseACL reads {"allow":[…],"deny":[…]}; groups are those of identity. Nothing, null or anything else than that
// form is an unknown ACL: a permission that cannot be read permits nothing.
func ParseACL(raw []byte, identity string) ACL {
	var in *struct {
		Allow *[]string `json:"allow"`
		Deny  []string  `json:"deny"`
	}
	if err := json.Unmarshal(raw, &in); err != nil || in == nil || in.Allow == nil {
		return ACL{}
	}
	acl := ACL{Allow: []string{}}
	for _, p := range *in.Allow {
		if q, ok := Principal(p, identity); ok {
			acl.Allow = append(acl.Allow, q)
		}
	}
	for _, p := range in.Deny {
		q, ok := Principal(p, identity)
		if !ok {
			return ACL{} // whom it denies is not known
		}
		acl.Deny = append(acl.Deny, q)
	}
	return acl
}

// Principal returns the stored form of a principal: the groups of two identities are different ones.
func Principal(p, identity string) (string, bool) {
	kind, name, found := strings.Cut(p, ":")
	switch {
	case p == Public:
		return p, true
	case !found, name == "":
		return "", false
	case kind == "group":
		return "group:" + identity + "/" + name, true
	case kind == "user":
		return p, true
	}
	return "", false
}

// columns returns what is stored of a.
func (a ACL) columns() (allow, deny, denyOf []string) {
	deny, denyOf = []string{}, []string{}
	if a.Allow == nil {
		return nil, deny, denyOf
	}
	for _, p := range a.Allow {
		allow = append(allow, clean(p))
	}
	if allow == nil {
		allow = []string{}
	}
	for _, p := range a.Deny {
		deny = append(deny, clean(p))
		if rest, ok := strings.CutPrefix(p, "group:"); ok {
			identity, _, _ := strings.Cut(rest, "/")
			if !slices.Contains(denyOf, identity) {
				denyOf = append(denyOf, identity)
			}
		}
	}
	return allow, deny, denyOf
}

// Permission is one change of who may see a document, from a stream of permissions. From the first one on the
// document's own records have no say in it.
type Permission struct {
	Tenant, Stream, ID string // of the document, which may not be there yet
	Part               int32  // of the permission's record
	Version            Version
	ACL                ACL
}

// PermissionsOf names the permissions of a stream's documents, for Synced: older than their greatest age, they
// permit nothing.
func PermissionsOf(tenant, stream string) string { return "permissions:" + tenant + "/" + stream }

// Permit stores permissions, each if it is newer than what is stored, and returns what became of them. No key
// may occur twice.
func (s *Store) Permit(ctx context.Context, ps []Permission) ([]Outcome, error) {
	out := make([]Outcome, len(ps))
	order := make([]int, len(ps))
	for i := range ps {
		order[i] = i
	}
	keys := make([][32]byte, len(ps))
	for i, p := range ps {
		keys[i] = Key(p.Tenant, p.Stream, p.ID)
	}
	slices.SortFunc(order, func(a, b int) int { return slices.Compare(keys[a][:], keys[b][:]) })
	for part := range slices.Chunk(order, groupChunks) {
		err := s.again(ctx, func(tx pgx.Tx) error {
			var b pgx.Batch
			for _, i := range part {
				p := ps[i]
				allow, deny, denyOf := p.ACL.columns()
				// Where nobody hears of the permissions any more, one that was taken back would go on.
				denyOf = append(denyOf, PermissionsOf(clean(p.Tenant), clean(p.Stream)))
				b.Queue(s.sql(`insert into $S.doc as d (key, tenant, stream, id, part, version, state, allow, deny, deny_of, acl_own, acl_version, acl_part)
					values ($1, $2, $3, $4, 0, '', 'stub', $5, $6, $7, true, $8, $9)
					on conflict (key) do update set allow = excluded.allow, deny = excluded.deny, deny_of = excluded.deny_of, acl_own = true,
						acl_version = excluded.acl_version, acl_part = excluded.acl_part
					where d.acl_version <= excluded.acl_version`),
					keys[i][:], clean(p.Tenant), clean(p.Stream), clean(p.ID), allow, deny, denyOf, p.Version[:], p.Part)
			}
			results := tx.SendBatch(ctx, &b)
			for _, i := range part {
				tag, err := results.Exec()
				if err != nil {
					_ = results.Close()
					return err
				}
				out[i] = Written
				if tag.RowsAffected() == 0 {
					out[i] = Stale
				}
			}
			return results.Close()
		})
		if err != nil {
			return nil, fmt.Errorf("store %d permissions: %w", len(ps), plain(err))
		}
	}
	return out, nil
}

// Group is one change of the members of a group.
type Group struct {
	Identity, Name string // without group:
	Part           int32
	Version        Version
	Members        []string // principals; nil: the group is gone
}

// PutGroups stores groups, each if it is newer than what is stored. No group may occur twice.
func (s *Store) PutGroups(ctx context.Context, gs []Group) ([]Outcome, error) {
	out := make([]Outcome, len(gs))
	order := make([]int, len(gs))
	for i := range gs {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return strings.Compare(gs[a].Name, gs[b].Name) })
	err := s.again(ctx, func(tx pgx.Tx) error {
		var b pgx.Batch
		for _, i := range order {
			g := gs[i]
			members := []string{}
			for _, m := range g.Members {
				if p, ok := Principal(m, g.Identity); ok {
					members = append(members, clean(p))
				}
			}
			b.Queue(s.sql(`insert into $S.member as m (identity, name, version, part, members) values ($1, $2, $3, $5, $4)
				on conflict (identity, name) do update set version = excluded.version, part = excluded.part, members = excluded.members where m.version <= excluded.version`),
				g.Identity, clean("group:"+g.Identity+"/"+g.Name), g.Version[:], members, g.Part)
		}
		results := tx.SendBatch(ctx, &b)
		for _, i := range order {
			tag, err := results.Exec()
			if err != nil {
				_ = results.Close()
				return err
			}
			out[i] = Written
			if tag.RowsAffected() == 0 {
				out[i] = Stale
			}
		}
		return results.Close()
	})
	if err != nil {
		return nil, fmt.Errorf("store %d groups: %w", len(gs), plain(err))
	}
	return out, nil
}

// SweepPermissions makes the permissions of a partition that are older than the given version unknown.
func (s *Store) SweepPermissions(ctx context.Context, tenant, stream string, part int32, before, version Version) error {
	_, err := s.pool.Exec(ctx, s.sql(`update $S.doc set allow = null, deny = '{}', deny_of = '{}', acl_version = $5
		where stream = $1 and acl_part = $2 and tenant = $3 and acl_own and acl_version < $4`), clean(stream), part, clean(tenant), before[:], version[:])
	if err != nil {
		return fmt.Errorf("forget the old permissions of %s: %w", stream, err)
	}
	return nil
}

// SweepGroups empties the groups of a partition that are older than the given version.
func (s *Store) SweepGroups(ctx context.Context, identity string, part int32, before, version Version) error {
	_, err := s.pool.Exec(ctx, s.sql(`update $S.member set members = '{}', version = $4 where identity = $1 and part = $2 and version < $3`),
		identity, part, before[:], version[:])
	if err != nil {
		return fmt.Errorf("forget the old groups of %s: %w", identity, err)
	}
	return nil
}

// Synced says that the groups of an identity, or PermissionsOf a stream, were heard of just now. Older than maxAge, they count for nothing;
// 0 = they are never too old.
func (s *Store) Synced(ctx context.Context, identity string, maxAge time.Duration) error {
	var age *time.Duration
	if maxAge > 0 {
		age = &maxAge
	}
	_, err := s.pool.Exec(ctx, s.sql(`insert into $S.identity (name, synced_at, max_age) values ($1, now(), $2)
		on conflict (name) do update set synced_at = now(), max_age = excluded.max_age`), identity, age)
	if err != nil {
		return fmt.Errorf("note that %s is known: %w", identity, err)
	}
	return nil
}

// again runs a transaction, once more where another one came between.
func (s *Store) again(ctx context.Context, f func(pgx.Tx) error) error {
	for attempt := 0; ; attempt++ {
		err := pgx.BeginFunc(ctx, s.pool, f)
		if code := state(err); attempt < 5 && (code == "40P01" || code == "40001" || code == "23503") {
			continue
		}
		return err
	}
}
