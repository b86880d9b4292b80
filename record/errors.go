package record

import "errors"

// ErrFenced marks the error of a writer that lost to another one: the marks in
// the sink are not the ones it started from. It must reload them and begin anew.
var ErrFenced = errors.New("another writer has moved the offsets")
