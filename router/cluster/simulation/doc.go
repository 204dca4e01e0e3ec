// Package simulation runs three nodes in one process, in virtual time, with
// faults that a seed chooses. It is all tests.
//
// What runs is the real code of the nodes' parser, processor, router, registry
// of sessions, membership, views, holds, notices and pipes, and the real client
// of NATS. Not real are
//
//   - the NATS server and the network (server_test.go): every byte of the client's
//     connections passes through it, late, not at all, or until the connection
//     breaks;
//   - the database (lives_test.go, mail_test.go): rows in memory that keep the
//     rules of the SQL, slow or out of reach;
//   - the archive (archive_test.go) and the streamer (streamer_test.go): models of
//     what plugins/archive and stream promise, as far as nodes depend on it;
//   - the clocks (clock_test.go), which run at different speeds, and the clients
//     (device_test.go).
//
// A seed makes a plan (plan_test.go): which client says what to whom and moves
// where, and what breaks when. It is carried out (world_test.go) while what must
// always hold is checked; then everything is mended, and a while later what must
// hold in the end is checked (verdict_test.go).
//
// Virtual time is testing/synctest's. Every draw comes from the seed, and what
// happens at different times happens in the same order in every run. Not from
// the seed are the order of goroutines that run at the same instant, which case
// of a select is taken when several can be, and the order of maps.
package simulation
