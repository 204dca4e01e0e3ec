package atrest

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/iotest"
)

// fileKey is the same in every run: the fuzzer's processes need that.
func fileKey(b byte) FileKey { return bytes.Repeat([]byte{b}, keySize) }

func sealFile(t testing.TB, k FileKey, name string, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := k.Seal(&b, name)
	if err != nil {
		t.Fatal(err)
	}
	for p := range slices.Chunk(content, 10_007) {
		if _, err := w.Write(p); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write([]byte("more")); err == nil {
		t.Error("written to after Close")
	}
	return b.Bytes()
}

func openFile(k FileKey, name string, sealed []byte) ([]byte, error) {
	r, err := k.Open(iotest.OneByteReader(bytes.NewReader(sealed)), name)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

func TestFiles(t *testing.T) {
	k := NewFileKey()
	for _, n := range []int{0, 1, chunkSize - 1, chunkSize, chunkSize + 1, 3 * chunkSize} {
		content := bytes.Repeat([]byte("0123456789abcdef"), n/16+1)[:n]
		sealed := sealFile(t, k, "f", content)
		want := saltSize + n + tagSize*max(1, (n+chunkSize-1)/chunkSize)
		if len(sealed) != want || SealedSize(int64(n)) != int64(want) {
			t.Errorf("%d bytes are sealed in %d, want %d", n, len(sealed), want)
		}
		if got, err := openFile(k, "f", sealed); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%d bytes: %d, %v", n, len(got), err)
		}
	}
}

// What lies behind an offset is what a whole file has there, and reading it looks
// at no other chunk.
func TestFilesFromAnOffset(t *testing.T) {
	k, content := NewFileKey(), make([]byte, 3*chunkSize+100)
	for i := range content {
		content[i] = byte(i / 251)
	}
	sealed := sealFile(t, k, "f", content)
	for _, at := range []int{0, 1, chunkSize - 1, chunkSize, chunkSize + 1, 2 * chunkSize, 3 * chunkSize, len(content) - 1} {
		first := int64(-1)
		r, err := k.OpenAt(func(from int64) (io.Reader, error) {
			if from > 0 {
				first = from
			}
			return bytes.NewReader(sealed[from:]), nil
		}, int64(at), "f")
		if err != nil {
			t.Fatal(at, err)
		}
		if got, err := io.ReadAll(r); err != nil || !bytes.Equal(got, content[at:]) {
			t.Errorf("from %d: %d bytes, %v", at, len(got), err)
		}
		if at >= chunkSize && first != int64(saltSize+at/chunkSize*(chunkSize+tagSize)) {
			t.Errorf("from %d: read from %d", at, first)
		}
	}
	if _, err := k.OpenAt(func(from int64) (io.Reader, error) {
		return bytes.NewReader(sealed[min(from, int64(len(sealed))):]), nil
	}, 9*chunkSize+1, "f"); !errors.Is(err, ErrDamaged) {
		t.Errorf("beyond the end: %v", err)
	}
}

// Nothing of a file can be cut off, left out, moved, doubled, added, or come
// from another file, name or key; and nothing wrong is ever read.
func TestFilesAreWhole(t *testing.T) {
	one, two := fileKey(1), fileKey(2)
	content := make([]byte, 3*chunkSize+100)
	for i := range content {
		content[i] = byte(i / chunkSize)
	}
	good, other := sealFile(t, two, "f", content), sealFile(t, two, "f", content)
	const size = chunkSize + tagSize
	piece := func(of []byte, i int) []byte { return of[saltSize+i*size : min(saltSize+(i+1)*size, len(of))] }
	join := slices.Concat[[]byte]
	salt := good[:saltSize]
	flipped := bytes.Clone(good)
	flipped[saltSize+size+5] ^= 1
	for name, c := range map[string]struct {
		sealed []byte
		key    FileKey
		name   string
	}{
		"nothing":              {nil, two, "f"},
		"half a salt":          {salt[:5], two, "f"},
		"salt alone":           {salt, two, "f"},
		"a byte less":          {good[:len(good)-1], two, "f"},
		"without the last":     {good[:saltSize+3*size], two, "f"},
		"last chunk's tag cut": {good[:saltSize+3*size+5], two, "f"},
		"exchanged":            {join(salt, piece(good, 1), piece(good, 0), piece(good, 2), piece(good, 3)), two, "f"},
		"left out":             {join(salt, piece(good, 0), piece(good, 2), piece(good, 3)), two, "f"},
		"twice":                {join(salt, piece(good, 0), piece(good, 0), piece(good, 1), piece(good, 2), piece(good, 3)), two, "f"},
		"more behind":          {join(good, piece(good, 3)), two, "f"},
		"a byte behind":        {join(good, []byte{0}), two, "f"},
		"another file's chunk": {join(salt, piece(other, 0), piece(good, 1), piece(good, 2), piece(good, 3)), two, "f"},
		"another file's salt":  {join(other[:saltSize], good[saltSize:]), two, "f"},
		"a bit":                {flipped, two, "f"},
		"another name":         {good, two, "g"},
		"another key":          {good, one, "f"},
	} {
		got, err := openFile(c.key, c.name, c.sealed)
		if !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
		if !bytes.HasPrefix(content, got) {
			t.Errorf("%s: wrong content was read", name)
		}
	}
}

// An error of the disk is not taken for damage, and reaches the caller.
func TestFilesPassErrorsOn(t *testing.T) {
	k, full := NewFileKey(), errors.New("disk full")
	r, w := io.Pipe()
	_ = r.CloseWithError(full)
	if _, err := k.Seal(w, "f"); !errors.Is(err, full) {
		t.Error(err)
	}
	sealed := sealFile(t, k, "f", make([]byte, 2*chunkSize))
	broken, err := k.Open(io.MultiReader(bytes.NewReader(sealed[:saltSize+chunkSize+tagSize]), iotest.ErrReader(full)), "f")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(broken); !errors.Is(err, full) || errors.Is(err, ErrDamaged) {
		t.Error(err)
	}
}

func FuzzOpenFile(f *testing.F) {
	k := fileKey(1)
	seal := func(n int) []byte { // the same in every process of the fuzzer
		salt := bytes.Repeat([]byte{7}, saltSize)
		b := bytes.NewBuffer(bytes.Clone(salt))
		w := &Writer{to: b, chunks: chunks{aead: k.file(salt), name: []byte("f")}, plain: make([]byte, 0, chunkSize)}
		if _, err := w.Write(make([]byte, n)); err != nil {
			f.Fatal(err)
		}
		if err := w.Close(); err != nil {
			f.Fatal(err)
		}
		return b.Bytes()
	}
	good, empty := seal(chunkSize+10), seal(0)
	f.Add(good)
	f.Add(good[:chunkSize])
	f.Add(empty)
	f.Fuzz(func(t *testing.T, sealed []byte) {
		got, err := openFile(k, "f", sealed)
		if right := bytes.Equal(sealed, good) || bytes.Equal(sealed, empty); right != (err == nil) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	})
}

func BenchmarkSealFile(b *testing.B) {
	k, content := NewFileKey(), make([]byte, 1<<20)
	b.SetBytes(int64(len(content)))
	for b.Loop() {
		w, err := k.Seal(io.Discard, "f")
		if err != nil {
			b.Fatal(err)
		}
		_, _ = w.Write(content)
		if err := w.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
