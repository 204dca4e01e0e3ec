package main

import "time"

// pause is between two looks at something that tells nobody when it is ready.
func pause() <-chan time.Time { return time.After(2 * time.Millisecond) }
