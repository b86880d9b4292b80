// Package record holds what flows through sluice: typed, columnar batches of
// row changes, their schemas and positions, and the codecs of the topics.
//
// It is a leaf: it knows nothing of Kafka clients, Iceberg or sources.
package record
