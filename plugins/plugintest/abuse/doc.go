// Package abuse holds tests that treat a whole house badly: bytes that no client
// sends, floods, slow readers, poison, other people's names.
//
// Every test has two bystanders who talk to each other all the while. What a
// row of the reliability table promises is asserted from three sides: what the
// offender sees, what the bystanders notice (a ratio within the run), and that
// memory stays bounded. TestReliabilityNN is row NN of that table;
// TestSecurity… is one lesson of other servers. Rows that concern one feature
// alone are tested in its folder.
package abuse
