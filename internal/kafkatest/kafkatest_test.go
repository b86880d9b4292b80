package kafkatest

import "testing"

func TestBrokerComesBackAfterKill(t *testing.T) {
	b := Start(t)
	addr := b.Addr
	for range 2 {
		b.Kill()
		if n, err := brokers(t.Context(), addr); err == nil {
			t.Fatalf("a killed broker answers with %d brokers", n)
		}
		b.Restart(t)
		if n, err := brokers(t.Context(), addr); err != nil || n != 1 {
			t.Fatalf("after the restart: %d brokers, %v", n, err)
		}
	}
	b.Stop()
	b.Stop()
}
