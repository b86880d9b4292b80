package topic

import (
	"errors"
	"fmt"
	"testing"
)

type stopped struct{}

func (stopped) Error() string { return "stop" }
func (stopped) Park() string  { return "somebody must act" }

func TestASinkCanAskToBeParked(t *testing.T) {
	if p := parked(fmt.Errorf("write: %w", stopped{})); p == nil || p.note != "somebody must act" {
		t.Errorf("parked = %v", p)
	}
	if p := parked(fmt.Errorf("open: %w", &parkError{"gone"})); p == nil || p.note != "gone" {
		t.Errorf("parked = %v", p)
	}
	if p := parked(errors.New("network")); p != nil {
		t.Errorf("parked = %v", p)
	}
}
