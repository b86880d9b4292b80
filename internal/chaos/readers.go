package chaos

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
)

// readerKeys returns the keys of the embedded store that may only read.
func (p *pipeline) readerKeys() (access, secret string, err error) {
	text, err := os.ReadFile(filepath.Join(p.dir, "data", "s3.keys.json"))
	if err != nil {
		return "", "", err
	}
	var keys struct {
		Access string `json:"reader_access"`
		Secret string `json:"reader_secret"`
	}
	if err := json.Unmarshal(text, &keys); err != nil {
		return "", "", fmt.Errorf("keys of the embedded store: %w", err)
	}
	return keys.Access, keys.Secret, nil
}
