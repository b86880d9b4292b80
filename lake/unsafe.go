package lake

// Unsafe switches safety lines off, so that a crash test can show that each of
// them is needed. Validate refuses it unless the binary was built with the tag
// sluicetest.
type Unsafe struct {
	NoPin   bool // commit on whatever snapshot is current
	NoMarks bool // commit rows without their offsets
}
