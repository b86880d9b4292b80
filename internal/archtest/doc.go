// Package archtest holds the import rules of docs/architecture.md as tests.
package archtest
