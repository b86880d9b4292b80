// Package postgres reads PostgreSQL 14 and later: a backfill of each table from
// one exported snapshot, then its changes from one logical replication slot.
package postgres
