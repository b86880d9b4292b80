// Package objects reads and writes objects of S3 and its likes: one shared
// HTTP client, bounded multipart streams, ranged reads, and errors that name
// the bucket, the key and the fix.
//
// It is a leaf and the only room that imports the S3 client.
package objects
