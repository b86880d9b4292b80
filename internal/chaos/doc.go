// Package chaos kills sluice, its broker and its database at random moments
// and named points while a database is being changed, and then compares source
// and lake row by row.
package chaos
