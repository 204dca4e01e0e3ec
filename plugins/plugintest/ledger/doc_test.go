// Package ledger_test proves the promises D1 to D3 of one node and of three against
// faults ("The promise" and "How it is tested" of the design's scale.md;
// reliability rows 30 to 33).
//
// Clients with stream management (XEP-0198) send numbered messages to bare
// JIDs and enter into a book what was sent, refused and acknowledged;
// recipients, of several devices or away for a while, enter what came. Meanwhile
// something breaks: the server is killed, the disk is full, the database dies,
// freezes or is slow; with three nodes one is killed, frozen or cut off, NATS is
// restarted, the database is restarted, killed or slow (nodefaults_test.go). At the end everybody fetches what waits and reads the
// whole archive, and the book is audited (book_test.go):
//
//   - acknowledged and not refused: in both archives, and received
//   - archive order is send order, for each sender and recipient
//   - nobody gets what is somebody else's
//   - what comes twice has the same stanza-id
//   - in a room: everybody who stays hears everything, in the archive's order
//   - an error says that it is for now, and the server recovers by itself
//   - from every node those are seen online who are, 15 s after each fault
//     (ghosts_test.go)
//
// The server is the real program as a child process; nodes whose links are cut run
// in network namespaces (network_test.go). go test runs short rounds;
// PARLEY_TEST_LEDGER_ROUNDS=20 is the long run (make soak), and
// PARLEY_TEST_LEDGER_TABLE=FILE writes its table. PARLEY_TEST_LEDGER_SEED repeats a run's
// choices, but not its timing. PARLEY_TEST_LEDGER_LOGS=DIR keeps the logs and the
// archives of nodes, and all that was found wrong. Everybody is in a room as well (rooms_test.go).
package ledger_test
