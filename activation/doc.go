// Package activation keeps records of SaaS destinations equal to the rows of
// streams: it maps rows, sends what has changed inside the account's quota, and
// accounts for every row by its own outcome.
//
// A Connection is one stream into one object of a destination. Its Sink is fed
// by the consumer of the stream's topic. Rows of one key are folded to the
// newest while they wait, one request at a time is under way per key, and what
// a destination acknowledges is stored (package state) before the offset is.
package activation
