package topic

import (
	"fmt"
	"strings"

	"github.com/sluice-data/sluice/record"
)

// maxNameBytes is Kafka's limit for the name of a topic.
const maxNameBytes = 249

// The pipeline's own topics, after its prefix. No source may be called like them.
const (
	schemasSuffix     = "._schemas"
	checkpointsSuffix = "._positions"
	deadSuffix        = "._dlq"
	eventsSuffix      = "._events"
)

// TopicName returns the topic that carries stream n of the pipeline prefix:
// <prefix>.<source>.<schema>.<table>. Bytes that Kafka does not take, and dots
// inside a part, become _xHH (percent is not allowed in names of topics), so
// that different streams always have different topics.
func TopicName(prefix string, n record.StreamName) (string, error) {
	parts := []string{prefix, n.Source, n.Name}
	if n.Namespace != "" {
		parts = []string{prefix, n.Source, n.Namespace, n.Name}
	}
	if strings.HasPrefix(n.Source, "_") {
		return "", fmt.Errorf("topic of stream %s: names of sources that begin with _ are reserved", n)
	}
	var b strings.Builder
	for i, p := range parts {
		if p == "" {
			return "", fmt.Errorf("topic of stream %s: a part of the name is empty", n)
		}
		if i > 0 {
			b.WriteByte('.')
		}
		writePart(&b, p)
	}
	if b.Len() > maxNameBytes {
		return "", fmt.Errorf("topic of stream %s: its name takes %d bytes and Kafka allows %d: shorten the pipeline's or the source's name", n, b.Len(), maxNameBytes)
	}
	return b.String(), nil
}

func writePart(b *strings.Builder, s string) {
	for i := 0; i < len(s); i++ {
		switch c := s[i]; {
		case c == '_' && isEscape(s[i:]):
			b.WriteString("_x5F") // a name that looks escaped stays different from an escaped one
		case c == '_', c == '-', '0' <= c && c <= '9', 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z':
			b.WriteByte(c)
		default:
			fmt.Fprintf(b, "_x%02X", c)
		}
	}
}

func isEscape(s string) bool {
	hex := func(c byte) bool { return '0' <= c && c <= '9' || 'A' <= c && c <= 'F' }
	return len(s) >= 4 && s[1] == 'x' && hex(s[2]) && hex(s[3])
}

// isOwn reports whether a topic is one of a pipeline's own.
func isOwn(topic string) bool {
	for _, suffix := range []string{schemasSuffix, checkpointsSuffix, deadSuffix, eventsSuffix} {
		if strings.HasSuffix(topic, suffix) {
			return true
		}
	}
	return false
}
