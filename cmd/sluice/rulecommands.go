package main

import "github.com/spf13/cobra"

// ruleCommands are the tools around rules and their keys.
func (a *app) ruleCommands() []*cobra.Command {
	return []*cobra.Command{a.previewCommand(), a.explainCommand(), a.testCommand(), a.planCommand(), a.keysCommand(), a.decryptCommand(), a.eraseCommand()}
}
