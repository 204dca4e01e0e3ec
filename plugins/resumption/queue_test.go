package resumption

import (
	"errors"
	"reflect"
	"testing"

	"parley/stream"
)

// What a row says of a client's queue is read as it was written, or not at all.
func TestQueues(t *testing.T) {
	for name, out := range map[string]stream.Outbound{
		"empty": {},
		"rows":  {Rows: []int64{0, 7, 1 << 62, 0}},
		"rooms": {Rows: []int64{7}, Heard: []stream.Heard{{Chain: "garden@rooms", At: 1 << 60}, {Chain: "garden@rooms", Nth: 1, At: 1<<60 + 1}}},
	} {
		t.Run(name, func(t *testing.T) {
			b := encodeQueue(&out)
			var got stream.Outbound
			if err := decodeQueue(b, &got); err != nil || len(got.Rows) != len(out.Rows) || !reflect.DeepEqual(got.Heard, out.Heard) {
				t.Errorf("%+v became %+v, %v", out, got, err)
			}
			for i := range b {
				if err := decodeQueue(b[:i], &stream.Outbound{}); err != nil && !errors.Is(err, errDamaged) {
					t.Errorf("%d bytes of it: %v", i, err)
				}
			}
		})
	}
}

func FuzzQueue(f *testing.F) {
	f.Add(encodeQueue(&stream.Outbound{Rows: []int64{7}, Heard: []stream.Heard{{Chain: "garden@rooms", Nth: 1, At: 9}}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		var out, again stream.Outbound
		if decodeQueue(b, &out) != nil {
			return
		}
		for _, r := range out.Rows {
			if r == heardFollows {
				return
			}
		}
		if err := decodeQueue(encodeQueue(&out), &again); err != nil || !reflect.DeepEqual(out, again) {
			t.Fatalf("%+v became %+v, %v", out, again, err)
		}
	})
}
