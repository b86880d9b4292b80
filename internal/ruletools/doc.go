// Package ruletools runs the tools around rules and keys on the built binary,
// with a real Postgres: preview, explain, plan, keys and decrypt, and what
// happens to a stream whose key cannot be had.
package ruletools
