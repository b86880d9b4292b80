package topic

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"slices"
	"sync/atomic"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"
)

// dialTimeout is the client's own.
const dialTimeout = 10 * time.Second

var errShut = errors.New("a record was refused before: nothing more is written")

// gate stands between a producing client and the brokers. It shuts at the
// first batch that the client gives up: until the Publisher hears of that, the
// client would go on with later records of the same partition, and to a sink
// that goes by positions the refused ones would look like duplicates when the
// source sends them again. What was on its way already is refused by the
// broker, as it does not follow in its sequence.
type gate struct{ shut atomic.Bool }

// dialer returns what connects the client through the gate.
func (g *gate) dialer(config *tls.Config) func(ctx context.Context, network, host string) (net.Conn, error) {
	d := &net.Dialer{Timeout: dialTimeout}
	dial := d.DialContext
	if config != nil {
		dial = (&tls.Dialer{NetDialer: d, Config: config}).DialContext // takes the server's name from the address
	}
	return func(ctx context.Context, network, host string) (net.Conn, error) {
		if g.shut.Load() {
			return nil, errShut
		}
		c, err := dial(ctx, network, host)
		if err != nil {
			return nil, err
		}
		return &gatedConn{c, g}, nil
	}
}

type gatedConn struct {
	net.Conn
	gate *gate
}

// Write writes nothing once the gate is shut.
func (c *gatedConn) Write(b []byte) (int, error) {
	if c.gate.shut.Load() {
		return 0, errShut
	}
	return c.Conn.Write(b)
}

// givenUp are the words of the client about a batch that it gives up. It says
// them before it drops the batch and so before it can send a later one; its
// promises come after. A test holds this against every version of the client.
var givenUp = []string{
	"batch in a produce request failed",
	"broker cannot handle any produce request we can issue, failing records",
	"fatal InitProducerID error, failing all buffered records",
}

// partitionGivenUp is said of errors that may pass, too: see its will_fail.
const partitionGivenUp = "produce partition load error, bumping error count on first stored batch"

// gateLog shuts the gate when the client gives a batch up, and passes on what clientLog wants.
type gateLog struct {
	clientLog
	gate *gate
}

// Level is one more than the log wants: the first words of a loss are information only.
func (gateLog) Level() kgo.LogLevel { return kgo.LogLevelInfo }

// Log looks for the words of a loss. It is called with the client's locks held.
func (l gateLog) Log(level kgo.LogLevel, msg string, keyvals ...any) {
	switch {
	case slices.Contains(givenUp, msg):
		l.gate.shut.Store(true)
	case msg == partitionGivenUp:
		if i := slices.Index(keyvals, any("will_fail")); i >= 0 && i+1 < len(keyvals) && keyvals[i+1] == any(true) {
			l.gate.shut.Store(true)
		}
	}
	if level <= l.clientLog.Level() {
		l.clientLog.Log(level, msg, keyvals...)
	}
}
