package config

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// maxNameBytes keeps topic names, which hold three of our names, below Kafka's 249.
const maxNameBytes = 60

var namePattern = regexp.MustCompile(`^[a-z0-9][a-z0-9_-]*$`)

func checkName(name string) string {
	switch {
	case name == "":
		return "the name is empty"
	case strings.HasPrefix(name, "_"):
		return "names that begin with _ are sluice's own"
	case len(name) > maxNameBytes:
		return fmt.Sprintf("a name has at most %d characters", maxNameBytes)
	case !namePattern.MatchString(name):
		return fmt.Sprintf("a name is made of a-z, 0-9, - and _, got %q", name)
	}
	return ""
}

func (d *decoder) checkName(n *yaml.Node, path, name string) {
	if bad := checkName(name); bad != "" {
		d.report(n, path, "%s", bad)
	}
}

// check looks at what no setting can know alone.
func (d *decoder) check() {
	f := d.file
	if bad := checkName(f.Name); bad != "" && f.Name != "" {
		d.reportAt("name", "%s", bad)
	}
	if _, given := f.places["sources"]; given && len(f.Sources) == 0 {
		d.reportAt("sources", "needs at least one source")
	}
	for _, s := range f.Sources {
		d.checkSource(s)
	}
	for _, s := range f.Sinks {
		if slices.ContainsFunc(f.Sources, func(o *Source) bool { return o.Name == s.Name }) {
			d.reportAt("sinks."+s.Name, "a source has this name already; --only could not tell them apart")
		}
		d.checkSink(s)
	}
	d.checkTests()
}

// split reads a stream reference; what has an unresolved reference in it is
// looked at when it is resolved.
func (d *decoder) split(path, ref string) (source, local string, ok bool) {
	if ref == "" || strings.Contains(ref, "${") {
		return "", "", false
	}
	source, local, err := d.reg.SplitStream(ref)
	if err != nil {
		d.reportAt(path, "%v", err)
		return "", "", false
	}
	return source, local, true
}

func (d *decoder) checkSource(s *Source) {
	kind := find(d.reg.Sources, s.Kind)
	if kind == nil {
		return
	}
	base := "sources." + s.Name
	if kind.Streams != nil {
		listed := kind.Streams(s.Settings)
		s.known = listed != nil
		for i, l := range listed {
			at := fmt.Sprintf("%s.%s.%s[%d]", base, kind.Name, kind.StreamsField, i)
			_, local, ok := d.split(at, s.Name+"."+l)
			if !ok {
				s.known = s.known && !strings.Contains(l, "${")
				continue
			}
			if slices.Contains(s.Streams, local) {
				d.reportAt(at, "%s is there twice", local)
				continue
			}
			s.Streams = append(s.Streams, local)
		}
	}
	seen := map[string]bool{}
	for i := range s.Protect {
		p := &s.Protect[i]
		at := base + ".protect." + p.Stream
		_, local, ok := d.split(at, s.Name+"."+p.Stream)
		if !ok {
			continue
		}
		p.Stream = local
		if seen[local] {
			d.reportAt(at, "%s has protect rules already", local)
		}
		seen[local] = true
		if s.known && !slices.Contains(s.Streams, local) {
			d.reportAt(at, "no stream %s in %s%s", local, s.Name, streamHint(local, s))
		}
	}
	d.checkTags(base+".tags.", s)
}

// checkTags gives the tables of tags their canonical names. A table that is
// not there is a mistake: a rule that selects by its tags would find nothing.
func (d *decoder) checkTags(base string, s *Source) {
	tags := Tags{}
	for _, name := range slices.Sorted(maps.Keys(s.Tags)) {
		_, local, ok := d.split(base+name, s.Name+"."+name)
		switch {
		case !ok:
		case tags[local] != nil:
			d.reportAt(base+name, "%s has tags already", local)
		case s.known && !slices.Contains(s.Streams, local):
			d.reportAt(base+name, "no stream %s in %s%s", local, s.Name, streamHint(local, s))
		default:
			tags[local] = s.Tags[name]
		}
	}
	s.Tags = tags
}

func streamHint(local string, s *Source) string {
	if near := nearest(local, s.Streams); near != "" {
		return fmt.Sprintf("; did you mean %q?", near)
	}
	return "; it has " + strings.Join(s.Streams, ", ")
}

func (d *decoder) checkSink(s *Sink) {
	kind := find(d.reg.Sinks, s.Kind)
	from, target := map[string]bool{}, map[string]bool{}
	for i, stream := range s.Streams {
		base := fmt.Sprintf("sinks.%s.streams[%d]", s.Name, i)
		if d.checkFrom(base+".from", s, stream) {
			key := stream.Source + "." + stream.Local
			if from[key] {
				d.reportAt(base+".from", "this sink reads %s already", key)
			}
			from[key] = true
		}
		if kind == nil || kind.Target == nil {
			continue
		}
		t := kind.Target(stream.Settings)
		if t != "" && target[t] {
			d.reportAt(base, "this sink writes to %s already", t)
		}
		target[t] = true
	}
}

// checkFrom finds what a stream of a sink is read from: a source, or another
// sink that publishes what became of its records.
func (d *decoder) checkFrom(path string, sink *Sink, stream *Stream) bool {
	source, local, ok := d.split(path, stream.From)
	if !ok {
		return false
	}
	i := slices.IndexFunc(d.file.Sources, func(s *Source) bool { return s.Name == source })
	j := slices.IndexFunc(d.file.Sinks, func(s *Sink) bool { return s.Name == source })
	if i < 0 && j >= 0 {
		stream.Source, stream.Local = source, local
		return d.checkOutlet(path, sink, d.file.Sinks[j], local)
	}
	if i < 0 {
		var known []string
		for _, s := range d.file.Sources {
			known = append(known, s.Name)
		}
		d.reportAt(path, "no source %q%s", source, suggest(source, known))
		return false
	}
	stream.Source, stream.Local = source, local
	if s := d.file.Sources[i]; s.known && !slices.Contains(s.Streams, local) {
		d.reportAt(path, "no stream %q%s", stream.From, fromHint(local, s))
	}
	return true
}

// outlets returns the streams that a sink publishes.
func (d *decoder) outlets(s *Sink) []string {
	if kind := find(d.reg.Sinks, s.Kind); kind != nil && kind.Outlets != nil {
		return kind.Outlets(s.Settings)
	}
	return nil
}

// checkOutlet checks that a sink may read what another one publishes. One that
// publishes may not: what it says about its records would be records again,
// without end.
func (d *decoder) checkOutlet(path string, reader, from *Sink, local string) bool {
	have := d.outlets(from)
	switch {
	case len(d.outlets(reader)) > 0:
		d.reportAt(path, "%s publishes outcomes itself, so it cannot read those of a sink; set outcomes: false", reader.Name)
	case len(have) == 0:
		d.reportAt(path, "sink %s publishes no stream", from.Name)
	case !slices.Contains(have, local):
		d.reportAt(path, "no stream \"%s.%s\"; sink %s publishes %s.%s", from.Name, local, from.Name, from.Name, strings.Join(have, ", "+from.Name+"."))
	default:
		return true
	}
	return false
}

func fromHint(local string, s *Source) string {
	if near := nearest(local, s.Streams); near != "" {
		return fmt.Sprintf("; did you mean \"%s.%s\"?", s.Name, near)
	}
	return fmt.Sprintf("; %s has %s", s.Name, strings.Join(s.Streams, ", "))
}
