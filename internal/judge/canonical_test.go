package judge

import "testing"

func TestPlain(t *testing.T) {
	for in, want := range map[string]string{
		"0": "0", "-0": "0", "-0.0": "0", "1.50": "1.5", "1e3": "1000", "1.25e1": "12.5", "1.25E+2": "125", "1.25e-1": "0.125",
		"125e-2": "1.25", "-5e-3": "-0.005", "100": "100", "0e5": "0", "12345678901234567890.10": "12345678901234567890.1",
	} {
		if got := plain(in); got != want {
			t.Errorf("plain(%s) = %s, want %s", in, got, want)
		}
	}
}

func FuzzCanonical(f *testing.F) {
	for oid := range kinds {
		f.Add(oid, []byte{0, 1, 0xff, 0xff, 0, 0, 0, 2, 0x13, 0x88})
	}
	f.Fuzz(func(_ *testing.T, oid uint32, b []byte) {
		_, _ = canonical(nil, oid, b)
		_, _ = appendArray(nil, oid, b)
	})
}
