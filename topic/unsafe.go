package topic

// Unsafe switches safety lines off, so that a crash test can show that each of
// them is needed. Connect refuses it unless the binary was built with the tag
// sluicetest.
type Unsafe struct {
	Gaps bool // fire barriers past records that the brokers do not hold (invariant 1)
}
