package mappers

import (
	"maps"
	"slices"

	"github.com/sluice-data/sluice/keys"
)

// Names returns the fields of the incoming stream that r speaks of. Those of
// an expression are known only with a schema and are not among them.
func (r *Rule) Names() []string {
	switch {
	case r.Hash != nil && r.Hash.SaltField != "":
		return []string{r.Hash.Field, r.Hash.SaltField}
	case r.Hash != nil:
		return []string{r.Hash.Field}
	case r.Encrypt != nil && r.Encrypt.Per != "":
		return []string{r.Encrypt.Field, r.Encrypt.Per}
	case r.Encrypt != nil:
		return []string{r.Encrypt.Field}
	case r.Tokenize != nil:
		return []string{r.Tokenize.Field}
	case r.Pseudonym != nil:
		return []string{r.Pseudonym.Field}
	case r.Mask != nil:
		return []string{r.Mask.Field}
	case r.Redact != nil:
		return r.Redact.Fields
	case r.Drop != nil:
		return r.Drop.Fields
	case r.Keep != nil:
		return r.Keep.Fields
	case r.Allow != nil:
		return r.Allow.Fields
	case r.Rename != nil:
		return sortedKeys(r.Rename)
	case r.Concat != nil:
		return r.Concat.Fields
	}
	return r.shapeNames()
}

func (r *Rule) shapeNames() []string {
	switch {
	case r.Cast != nil:
		return []string{r.Cast.Field}
	case r.Default != nil:
		return []string{r.Default.Field}
	case r.Truncate != nil:
		return []string{r.Truncate.Field}
	case r.Move != nil:
		return []string{r.Move.From}
	case r.Nest != nil:
		return r.Nest.Fields
	case r.Flatten != nil:
		return []string{r.Flatten.Field}
	case r.JSONExtract != nil:
		return []string{r.JSONExtract.From}
	case r.Split != nil:
		return []string{r.Split.Field}
	case r.Lookup != nil:
		return []string{r.Lookup.From}
	}
	return nil
}

// Keys returns the references to the keys that r needs.
func (r *Rule) Keys() []keys.Ref {
	var refs []keys.Ref
	switch {
	case r.Hash != nil:
		refs = append(refs, r.Hash.Key)
	case r.Encrypt != nil:
		refs = append(refs, r.Encrypt.Key)
	case r.Tokenize != nil:
		refs = append(refs, r.Tokenize.Key)
	case r.Pseudonym != nil:
		refs = append(refs, r.Pseudonym.Key)
	}
	return slices.DeleteFunc(refs, keys.Ref.IsZero)
}

// Adds returns the names of the fields that r adds, as far as they show without a schema.
func (r *Rule) Adds() []string {
	switch {
	case r.Constant != nil:
		return []string{r.Constant.Field}
	case r.Concat != nil:
		return []string{r.Concat.Field}
	case r.Lookup != nil:
		return []string{r.Lookup.Field}
	case r.Derive != nil:
		return []string{r.Derive.Field}
	case r.JSONExtract != nil:
		return []string{r.JSONExtract.Field}
	case r.Nest != nil:
		return []string{r.Nest.Field}
	case r.Split != nil:
		return r.Split.Into
	case r.Flatten != nil:
		var names []string
		for _, path := range slices.Sorted(maps.Keys(r.Flatten.Fields)) {
			names = append(names, r.Flatten.name(path))
		}
		return names
	}
	return nil
}

// takesPatterns reports whether the names of r may be selectors.
func (r *Rule) takesPatterns() bool {
	return r.protects() || r.Drop != nil || r.Keep != nil || r.Allow != nil || r.Nest != nil
}

// takesPaths reports whether the names of r may lead into a document.
func (r *Rule) takesPaths() bool {
	return r.protects() || r.Drop != nil || r.Move != nil || r.JSONExtract != nil
}

// protects reports whether r hides the values of its fields.
func (r *Rule) protects() bool {
	return r.Hash != nil || r.Encrypt != nil || r.Mask != nil || r.Redact != nil || r.Tokenize != nil || r.Pseudonym != nil
}

// copies reports whether r writes the values of its fields to other fields.
func (r *Rule) copies() bool {
	return r.Concat != nil || r.Lookup != nil || r.JSONExtract != nil || r.Split != nil || r.Flatten != nil || r.Nest != nil || r.Move != nil
}
