package atrest

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"testing"
	"testing/iotest"
)

func sealFile(t testing.TB, v *Vault, name string, content []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, id, err := v.SealFile(&b, name)
	if err != nil || id != v.Current() {
		t.Fatalf("key %d, %v", id, err)
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

func openFile(v *Vault, id int64, name string, sealed []byte) ([]byte, error) {
	r, err := v.OpenFile(iotest.OneByteReader(bytes.NewReader(sealed)), id, name)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(r)
}

func TestFiles(t *testing.T) {
	v := vault(t, 2, 1)
	for _, n := range []int{0, 1, chunkSize - 1, chunkSize, chunkSize + 1, 3 * chunkSize} {
		content := bytes.Repeat([]byte("0123456789abcdef"), n/16+1)[:n]
		sealed := sealFile(t, v, "f", content)
		want := saltSize + n + tagSize*max(1, (n+chunkSize-1)/chunkSize)
		if len(sealed) != want {
			t.Errorf("%d bytes are sealed in %d, want %d", n, len(sealed), want)
		}
		if got, err := openFile(v, 2, "f", sealed); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%d bytes: %d, %v", n, len(got), err)
		}
	}
	if w, id, err := (&Vault{}).SealFile(nil, "f"); w != nil || id != 0 || err != nil {
		t.Errorf("off: %v, %d, %v", w, id, err)
	}
	if _, err := v.OpenFile(nil, 3, "f"); !errors.Is(err, ErrNoKey) {
		t.Errorf("a key that is missing: %v", err)
	}
}

// Nothing of a file can be cut off, left out, moved, doubled, added, or come
// from another file, name or key; and nothing wrong is ever read.
func TestFilesAreWhole(t *testing.T) {
	v := vault(t, 2, 1)
	content := make([]byte, 3*chunkSize+100)
	for i := range content {
		content[i] = byte(i / chunkSize)
	}
	good, other := sealFile(t, v, "f", content), sealFile(t, v, "f", content)
	const size = chunkSize + tagSize
	piece := func(of []byte, i int) []byte { return of[saltSize+i*size : min(saltSize+(i+1)*size, len(of))] }
	join := slices.Concat[[]byte]
	salt := good[:saltSize]
	flipped := bytes.Clone(good)
	flipped[saltSize+size+5] ^= 1
	for name, c := range map[string]struct {
		sealed []byte
		id     int64
		name   string
	}{
		"nothing":              {nil, 2, "f"},
		"half a salt":          {salt[:5], 2, "f"},
		"salt alone":           {salt, 2, "f"},
		"a byte less":          {good[:len(good)-1], 2, "f"},
		"without the last":     {good[:saltSize+3*size], 2, "f"},
		"last chunk's tag cut": {good[:saltSize+3*size+5], 2, "f"},
		"exchanged":            {join(salt, piece(good, 1), piece(good, 0), piece(good, 2), piece(good, 3)), 2, "f"},
		"left out":             {join(salt, piece(good, 0), piece(good, 2), piece(good, 3)), 2, "f"},
		"twice":                {join(salt, piece(good, 0), piece(good, 0), piece(good, 1), piece(good, 2), piece(good, 3)), 2, "f"},
		"more behind":          {join(good, piece(good, 3)), 2, "f"},
		"a byte behind":        {join(good, []byte{0}), 2, "f"},
		"another file's chunk": {join(salt, piece(other, 0), piece(good, 1), piece(good, 2), piece(good, 3)), 2, "f"},
		"another file's salt":  {join(other[:saltSize], good[saltSize:]), 2, "f"},
		"a bit":                {flipped, 2, "f"},
		"another name":         {good, 2, "g"},
		"another key":          {good, 1, "f"},
	} {
		got, err := openFile(v, c.id, c.name, c.sealed)
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
	v, full := vault(t, 1), errors.New("disk full")
	r, w := io.Pipe()
	_ = r.CloseWithError(full)
	if _, _, err := v.SealFile(w, "f"); !errors.Is(err, full) {
		t.Error(err)
	}
	sealed := sealFile(t, v, "f", make([]byte, 2*chunkSize))
	broken, err := v.OpenFile(io.MultiReader(bytes.NewReader(sealed[:saltSize+chunkSize+tagSize]), iotest.ErrReader(full)), 1, "f")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(broken); !errors.Is(err, full) || errors.Is(err, ErrDamaged) {
		t.Error(err)
	}
}

func FuzzOpenFile(f *testing.F) {
	v := vault(f, 1)
	seal := func(n int) []byte { // the same in every process of the fuzzer
		salt := bytes.Repeat([]byte{7}, saltSize)
		b := bytes.NewBuffer(bytes.Clone(salt))
		w := &Writer{to: b, chunks: chunks{aead: v.load().current().file(salt), name: []byte("f")}, plain: make([]byte, 0, chunkSize)}
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
		got, err := openFile(v, 1, "f", sealed)
		if right := bytes.Equal(sealed, good) || bytes.Equal(sealed, empty); right != (err == nil) {
			t.Errorf("%d bytes, %v", len(got), err)
		}
	})
}

func BenchmarkSealFile(b *testing.B) {
	v, content := vault(b, 1), make([]byte, 1<<20)
	b.SetBytes(int64(len(content)))
	for b.Loop() {
		w, _, err := v.SealFile(io.Discard, "f")
		if err != nil {
			b.Fatal(err)
		}
		_, _ = w.Write(content)
		if err := w.Close(); err != nil {
			b.Fatal(err)
		}
	}
}
