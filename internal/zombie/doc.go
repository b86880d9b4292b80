// Package zombie runs several sluice processes on the same tables: each with a
// folder of its own, all with one Postgres, one Kafka, one object store and one
// catalog. Tests stop, resume and replace them.
package zombie
