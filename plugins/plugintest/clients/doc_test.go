// Package clients_test runs real clients against a real server: libraries,
// a terminal client, a command line client and a browser, each a different
// implementation of the same standards.
//
// The server is a House with every plugin, in process, with a self-signed
// certificate and no way in without TLS. A client speaks to it over loopback.
// Nothing here sleeps: each test waits for what is to be seen, and gives up at
// a deadline. The tests run with PARLEY_TEST_CLIENTS=1 (make test sets it);
// a client that is not installed skips its test, except in CI (CI=true). Debian
// has them, and npm has Converse.js (.ci/converse).
package clients_test
