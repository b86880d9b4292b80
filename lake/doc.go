// Package lake writes records into Iceberg tables on S3, exactly once: the
// Kafka offsets of a table live in the table's own properties and change in
// the same commit as its rows.
//
// It is the only room that imports iceberg-go.
package lake
