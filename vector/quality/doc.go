// Package quality measures how well the product's own search finds chunks in
// a real Postgres: questions over real documents, whose wording the answer
// does not share, for each way of cutting the same documents.
package quality
