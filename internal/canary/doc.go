// Package canary plants unique values in protected fields and proves that they
// are nowhere behind the source: not in what the pipeline stores, sends, logs
// or says.
package canary
