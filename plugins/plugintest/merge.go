package plugintest

import (
	"fmt"

	"github.com/goccy/go-yaml"
)

// merge lays YAML mappings over each other, key by key; the last wins.
func merge(layers ...[]byte) ([]byte, error) {
	out := map[string]any{}
	for _, l := range layers {
		var m map[string]any
		if err := yaml.Unmarshal(l, &m); err != nil {
			return nil, fmt.Errorf("test configuration: %w", err)
		}
		over(out, m)
	}
	return yaml.Marshal(out)
}

func over(dst, src map[string]any) {
	for k, v := range src {
		if sub, ok := v.(map[string]any); ok {
			if into, ok := dst[k].(map[string]any); ok {
				over(into, sub)
				continue
			}
		}
		dst[k] = v
	}
}
