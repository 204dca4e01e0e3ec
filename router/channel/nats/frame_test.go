package nats

import (
	"bytes"
	"encoding/hex"
	"errors"
	"os"
	"reflect"
	"strings"
	"testing"
)

func frames() []frame {
	return []frame{
		{kind: kindData, node: []byte("north"), life: 7, to: 1 << 63, payload: []byte("hello"), seq: 300},
		{kind: kindAsk, node: []byte("north"), life: 7, to: 8, question: 3, seq: 4},
		{kind: kindAck, node: []byte("ü.*>"), life: 7, to: 8, port: []byte("deliver"), handled: 9, received: 12, question: 3, seq: 4},
	}
}

func TestFrameCrossesANetwork(t *testing.T) {
	for _, f := range frames() {
		b := f.append(nil)
		got, err := parse(b)
		if err != nil || !reflect.DeepEqual(f, got) {
			t.Errorf("%v: got %v, %v", f, got, err)
		}
		for n := range b {
			if _, err := parse(b[:n]); err == nil {
				t.Errorf("kind %d: %d of %d bytes are a frame", f.kind, n, len(b))
			}
		}
		b[0]++
		if _, err := parse(b); !errors.Is(err, errVersion) {
			t.Errorf("another version: %v", err)
		}
	}
}

// What version 1 has written is read for ever, and what a later release adds at the
// end is skipped.
func TestFramesOfOtherReleases(t *testing.T) {
	text, err := os.ReadFile("testdata/frames-1.hex")
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.Fields(string(text))
	for i, f := range frames() {
		b, err := hex.DecodeString(lines[i])
		if err != nil {
			t.Fatal(err)
		}
		for what, b := range map[string][]byte{"as it was": b, "and more": append(f.noneRefused(b), 7, 7, 7)} {
			if got, err := parse(b); err != nil || !reflect.DeepEqual(f, got) {
				t.Errorf("kind %d, %s: got %v, %v", f.kind, what, got, err)
			}
		}
	}
}

// noneRefused ends b where fields begin that this release does not know.
func (f *frame) noneRefused(b []byte) []byte {
	if b = bytes.Clone(b); f.kind == kindAck {
		b = append(b, 0)
	}
	return b
}

func TestRefusalsCrossANetwork(t *testing.T) {
	f := frame{kind: kindAck, node: []byte("north"), port: []byte("p"), handled: 9000, received: 9000}
	for n := uint64(1); n <= maxWindow; n++ {
		f.refused = append(f.refused, 2*n)
	}
	b := f.append(nil)
	if got, err := parse(b); err != nil || !reflect.DeepEqual(f, got) {
		t.Errorf("got %d refused, %v", len(got.refused), err)
	}
	if _, err := parse(b[:len(b)-1]); !errors.Is(err, errFrame) {
		t.Errorf("one is missing, but: %v", err)
	}
	f.refused = append(f.refused, 1<<40)
	if _, err := parse(f.append(nil)); !errors.Is(err, errFrame) {
		t.Errorf("more than there can be, but: %v", err)
	}
}

// What a sender puts together piece by piece is a frame.
func TestSenderWritesFrames(t *testing.T) {
	o, err := Options{URLs: []string{"x"}, Cluster: "c", Self: Peer{"north", 7}}.withDefaults()
	if err != nil {
		t.Fatal(err)
	}
	b := newBus(o)
	defer b.cancel()
	b.biggest.Store(1 << 20)
	s := newSender(b, Peer{"south", 8}, "p")
	if err := s.send(t.Context(), []byte("hello"), nil); err != nil {
		t.Fatal(err)
	}
	written, _ := s.take(make([][]byte, 0, 8))
	want := frame{kind: kindData, node: []byte("north"), life: 7, to: 8, payload: []byte("hello"), seq: 1}
	if got, err := parse(written[0]); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestSubjectsAreLegalAndDistinct(t *testing.T) {
	seen := map[string]string{}
	for _, node := range []string{"a", "A", "a.b", "a b", "*", ">", "ü", strings.Repeat("x", 255)} {
		s := subject("parley", node, "n1", "p")
		if strings.ContainsAny(s, " *>") || strings.Count(s, ".") != 3 || seen[s] != "" {
			t.Errorf("%q: %s (also %q)", node, s, seen[s])
		}
		seen[s] = node
		back := subject("parley", "n1", node, "p")
		for _, who := range []string{node, node + "x", "=" + node, "a"} {
			if is := sentBy(back, inbox("parley", "n1", "p"), []byte(who)); is != (who == node) {
				t.Errorf("%s comes from %q: %v", back, who, is)
			}
		}
		if sentBy(back, inbox("parley", "n1", "q"), []byte(node)) || sentBy(back, inbox("parley", "n2", "p"), []byte(node)) {
			t.Errorf("%s came to another inbox", back)
		}
	}
}

func FuzzFrame(f *testing.F) {
	for _, x := range frames() {
		f.Add(x.append(nil))
	}
	f.Add([]byte{wireVersion, byte(kindData), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1})
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := parse(b)
		if err != nil {
			return
		}
		if len(x.node)+len(x.payload)+len(x.port) > len(b) {
			t.Fatal("more than there was")
		}
		again, err := parse(x.append(nil))
		if err != nil || !reflect.DeepEqual(x, again) {
			t.Fatalf("%v, then %v: %v", x, again, err)
		}
	})
}
