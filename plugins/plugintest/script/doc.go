// Package script runs protocol scripts: one file per behaviour, in which named clients send and expect XML.
//
// A script is a txtar file whose comment part is the script (docs/protocol-scripts.md is the reference):
//
//	# A message to the bare JID reaches the available resource.
//	# RFC 6121 §8.5.2.1.1
//	client romeo juliet
//	login juliet
//	romeo  > <message to='$juliet' type='chat' id='$id'><body>hello</body></message>
//	juliet < <message from='$romeo.full' type='chat'><body>hello</body></message>
//	romeo !
//
// The flow: Parse turns a file into steps, with every pattern already a tree; Runner.Run makes the accounts through
// the Target (the adapter to the server under test), logs each client in when it is first used, runs the steps in
// order and reports the transcript. A client has one reading goroutine, which puts what the server sends into a
// bounded queue; the steps take from it. Nothing passes because time went by: time-outs only end a failed script.
//
// The client and its XML reading are deliberately independent of the server's own packages, so that a mistake in the
// server's reader cannot hide itself. Specs: RFC 6120, RFC 6121, RFC 7395, XEP-0077, XEP-0198, XEP-0199.
package script
