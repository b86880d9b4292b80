// Package keys turns references to keys and secrets, such as ${env:NAME} and
// ${file:keys/email}, into immutable snapshots of their values. A value never
// appears in an error, a log line or a printed form of its types.
package keys
