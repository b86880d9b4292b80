package main

import (
	"encoding/json"

	"github.com/spf13/cobra"
)

func (a *app) schemaCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "schema",
		Short: "Print the JSON Schema of the configuration file, for editors",
		Args:  cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			text, err := registry().JSONSchema()
			if err != nil {
				return err
			}
			a.result = json.RawMessage(text)
			if !a.json {
				_, err = a.stdout.Write(text)
			}
			return err
		},
	}
}
