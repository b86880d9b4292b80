// Package hardvalues sends values that pipelines tend to damage through the
// whole flow, by backfill and by stream, and compares what the engines read
// with the source. docs/types.md is its result.
package hardvalues
