package atrest

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/subtle"
)

// Sizes of XAES-256-GCM, in bytes.
const (
	keySize   = 32
	nonceSize = 24
	tagSize   = 16
	gcmNonce  = 12 // the end of the nonce, which GCM itself gets
)

// xaes is a key of XAES-256-GCM: the cipher, and the subkey that the key
// derivation (CMAC in counter mode, NIST SP 800-108) begins with.
type xaes struct {
	block cipher.Block
	k1    [aes.BlockSize]byte
}

func newXAES(secret []byte) *xaes {
	x := &xaes{block: newAES(secret)}
	x.block.Encrypt(x.k1[:], x.k1[:])
	msb := x.k1[0] >> 7
	for i := range x.k1 {
		x.k1[i] <<= 1
		if i+1 < len(x.k1) {
			x.k1[i] |= x.k1[i+1] >> 7
		}
	}
	x.k1[len(x.k1)-1] ^= msb * 0x87
	return x
}

// aead is the cipher for a nonce: it is used with the nonce's end.
func (x *xaes) aead(nonce []byte) cipher.AEAD {
	var derived [keySize]byte
	for i := range 2 {
		m := derived[i*aes.BlockSize : (i+1)*aes.BlockSize]
		m[1], m[2] = byte(i+1), 'X'
		copy(m[4:], nonce[:nonceSize-gcmNonce])
		subtle.XORBytes(m, m, x.k1[:])
		x.block.Encrypt(m, m)
	}
	return newGCM(newAES(derived[:]))
}

// newAES and newGCM take what fits: their errors are about sizes.
func newAES(secret []byte) cipher.Block {
	b, err := aes.NewCipher(secret)
	if err != nil {
		panic(err)
	}
	return b
}

func newGCM(b cipher.Block) cipher.AEAD {
	a, err := cipher.NewGCM(b)
	if err != nil {
		panic(err)
	}
	return a
}
