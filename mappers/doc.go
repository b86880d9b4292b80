// Package mappers holds the rules that change records on their way: pure
// functions over batches, compiled once per schema, without I/O.
//
// A list of rules becomes a Chain by Compile. The Chain knows its output
// schema before the first row; Apply then works column by column. Drop, keep
// and rename cost nothing per row: they only say which columns go on.
//
// Rules fail closed (Invariant 6): a rule that cannot be bound to a schema is
// an error of Compile, a rule that cannot run is an error of Apply, and both
// stop the stream. No error and no reject holds a row value (Invariant 7).
package mappers
