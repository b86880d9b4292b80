// Package badinput tests the built binary with what people get wrong and with
// surroundings that fail: the message says what, where and the fix, the exit
// code is honest, other streams go on, nothing is half-applied, and no secret
// is shown anywhere.
package badinput
