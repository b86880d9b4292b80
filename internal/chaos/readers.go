package chaos

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
)

// readerKeys returns the keys that the loopback catalog hands to readers.
func readerKeys(ctx context.Context, catalog string) ([2]string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, catalog+"/v1/config", nil)
	if err != nil {
		return [2]string{}, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return [2]string{}, err
	}
	defer resp.Body.Close()
	var config struct {
		Defaults  map[string]string `json:"defaults"`
		Overrides map[string]string `json:"overrides"`
	}
	if err := json.NewDecoder(resp.Body).Decode(&config); err != nil {
		return [2]string{}, fmt.Errorf("catalog config: %w", err)
	}
	for _, m := range []map[string]string{config.Overrides, config.Defaults} {
		if m["s3.access-key-id"] != "" {
			return [2]string{m["s3.access-key-id"], m["s3.secret-access-key"]}, nil
		}
	}
	return [2]string{}, errors.New("the catalog gives no keys to readers")
}
