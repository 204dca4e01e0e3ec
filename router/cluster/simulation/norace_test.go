//go:build !race

package simulation

const withRace = false
