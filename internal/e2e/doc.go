// Package e2e runs the built binary as the documents say, against real servers.
package e2e
