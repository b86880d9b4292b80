package main

import "golang.org/x/sys/unix"

// termios is the request that only terminals answer.
const termios = unix.TCGETS
