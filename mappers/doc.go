// Package mappers holds the rules that change records on their way: pure
// functions over batches, compiled once per schema, without I/O.
package mappers
