package activation

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/sluice-data/sluice/activation/delivery"
	"github.com/sluice-data/sluice/activation/state"
	"github.com/sluice-data/sluice/record"
)

// One destination of sixteen that never answers changes nothing for the others:
// they make the same requests and settle the same rows as when it is well,
// although they share its state store; then it goes on where it stopped.
func TestOneDestinationIsDown(t *testing.T) {
	const destinations, down = 16, 5
	requests := func(t *testing.T, answers chan struct{}) (made [destinations]int) {
		address := "sqlite:" + filepath.Join(t.TempDir(), "state.db")
		worlds := make([]*world, destinations)
		for i := range worlds {
			cfg := contacts()
			cfg.Name, cfg.Linger, cfg.BatchItems = fmt.Sprint("crm", i), time.Hour, 100
			w := &world{t: t, cfg: cfg, fake: newFake(t, uint64(i)), address: address, marks: map[int32]record.Mark{}}
			w.open()
			t.Cleanup(w.close)
			worlds[i] = w
		}
		worlds[down].c.dest = &gate{Destination: worlds[down].fake, answers: answers}
		stuck := make(chan error, 1)
		for i, w := range worlds {
			for n := range int64(50) {
				w.write(customer(n, int64(i)))
			}
		}
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
			defer cancel()
			_, err := worlds[down].s.Flush(ctx, worlds[down].marks)
			stuck <- err
		}()
		for i, w := range worlds {
			if i == down {
				continue
			}
			w.flush()
			w.want(state.Outcomes{Applied: 50})
			made[i] = w.fake.requests
		}
		select {
		case <-answers:
		default:
			if worlds[down].fake.requests > 0 {
				t.Error("the destination that is down has answered")
			}
			close(answers)
		}
		if err := <-stuck; err != nil {
			t.Errorf("the destination is up again: %v", err)
		}
		worlds[down].want(state.Outcomes{Applied: 50})
		made[down] = worlds[down].fake.requests
		return made
	}
	well := make(chan struct{})
	close(well)
	if up, one := requests(t, well), requests(t, make(chan struct{})); up != one {
		t.Errorf("requests %v, and %v with one destination down", up, one)
	}
}

// gate is a destination that answers nothing until it is opened.
type gate struct {
	Destination
	answers chan struct{}
}

func (g *gate) Send(ctx context.Context, req delivery.Request) []delivery.Result {
	select {
	case <-g.answers:
	case <-ctx.Done():
		return nil
	}
	return g.Destination.Send(ctx, req)
}
