package cluster

// Rendezvous hashing: a key belongs to the node that scores highest for it.
// Scores of other nodes do not depend on who is there, so a node that goes gives
// away its own keys and nobody else's, and the same ones come back with it.
//
// All nodes have to agree, those of other releases too: the functions below are
// part of the protocol and never change. They are no secret; who knows the
// nodes' names can choose keys that all belong to one of them.

// hash is FNV-1a with 64 bits
// (https://datatracker.ietf.org/doc/html/draft-eastlake-fnv).
func hash(s string) uint64 {
	h := uint64(0xcbf29ce484222325)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 0x100000001b3
	}
	return h
}

// mix is the finalizer of MurmurHash3: every bit of x changes about half of the
// result's. FNV alone leaves names that differ in their last letter, as nodes'
// do, so close together that one of them would win most keys.
func mix(x uint64) uint64 {
	x = (x ^ x>>33) * 0xff51afd7ed558ccd
	x = (x ^ x>>33) * 0xc4ceb9fe1a85ec53
	return x ^ x>>33
}

// score is what a node, by its hash, makes of a key's.
func score(key, node uint64) uint64 { return mix(key ^ mix(node)) }

// highest is the index of the contender that key belongs to; there must be one.
// Equal scores go to the first, and so to the name that sorts first.
func highest(key string, among []contender) int {
	k, best, top := hash(key), 0, uint64(0)
	for i, c := range among {
		if s := score(k, c.hash); s > top {
			best, top = i, s
		}
	}
	return best
}
