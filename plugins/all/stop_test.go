package all_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"parley/plugins/all"
	"parley/plugins/plugintest"
)

// A house with queues stops while its clients are still talking: no stage
// waits for one that has gone.
func TestStopWithQueuesUnderTraffic(t *testing.T) {
	h := plugintest.Start(t, plugintest.Options{Plugins: all.Plugins(), Config: workers})
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for i := range 4 {
		c, err := h.Login(ctx, fmt.Sprintf("user%d", i), "a")
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.Send("<presence/>"); err != nil {
			t.Fatal(err)
		}
		go func() { // until the server closes the connection
			for c.Send(fmt.Sprintf("<message to='user%d@localhost' type='chat'><body>x</body></message>", (i+1)%4)) == nil {
			}
		}()
	}
	if err := h.Stop(ctx); err != nil {
		t.Fatal(err)
	}
}
