// Package config turns the YAML file of a pipeline into checked Go values. It
// finds every mistake of a file at once and says where it is and what would be
// right; it knows no connector: who loads a file passes a Registry of them.
package config
