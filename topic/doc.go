// Package topic publishes records to Kafka topics and consumes them: it holds
// the Publisher, the only consumer loop, the schemas and dead-letter topics
// and the embedded broker. It is the only room that imports a Kafka client.
package topic
