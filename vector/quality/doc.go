// Package quality measures how well chunks are found: questions over real
// documents, whose wording the answer does not share, ranked by words (BM25)
// and by feature hashing, for each way of cutting the same documents.
package quality
