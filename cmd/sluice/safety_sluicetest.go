//go:build sluicetest

package main

import (
	"os"
	"strings"

	"github.com/sluice-data/sluice/lake"
	"github.com/sluice-data/sluice/topic"
)

// unsafeLines returns the safety lines that SLUICE_UNSAFE switches off, so that
// a test can show what each of them is for: any of no-pin, no-marks and gaps,
// with commas between them.
func unsafeLines() (l lake.Unsafe, t topic.Unsafe) {
	for line := range strings.SplitSeq(os.Getenv("SLUICE_UNSAFE"), ",") {
		switch line {
		case "":
		case "no-pin":
			l.NoPin = true
		case "no-marks":
			l.NoMarks = true
		case "gaps":
			t.Gaps = true
		default:
			panic("SLUICE_UNSAFE: no safety line " + line)
		}
	}
	return l, t
}
