package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/sluice-data/sluice/config"
)

// Exit codes of every command.
const (
	exitOK          = 0
	exitFailure     = 1 // something went wrong while running
	exitInvalid     = 2 // the configuration or the command line is wrong
	exitEnvironment = 3 // what sluice needs around it is missing or refuses
)

// failure is an error with the exit code it asks for.
type failure struct {
	code int
	err  error
}

func (f *failure) Error() string { return f.err.Error() }
func (f *failure) Unwrap() error { return f.err }

func invalid(err error) error     { return &failure{exitInvalid, err} }
func environment(err error) error { return &failure{exitEnvironment, err} }

// exitCode returns what err asks for.
func exitCode(err error) int {
	var f *failure
	var p config.Problems
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &f):
		return f.code
	case errors.As(err, &p):
		return exitInvalid
	}
	return exitFailure
}

// app is what all commands share.
type app struct {
	stdout, stderr io.Writer
	configPath     string
	json           bool
	logLevel       string
	logFormat      string
	result         any // what the command found out, for --json
}

// execute runs one command line and returns its exit code.
func execute(args []string, stdout, stderr io.Writer) int {
	a := &app{stdout: stdout, stderr: stderr}
	root := a.command()
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	started := false
	root.PersistentPreRun = func(*cobra.Command, []string) { started = true }
	cmd, err := root.ExecuteC()
	if err != nil && !started { // flags and arguments
		err = invalid(fmt.Errorf("%w; %s --help says more", err, cmd.CommandPath()))
		a.json = a.json || slices.Contains(args, "--json") // it may not have been parsed
	}
	a.report(cmd.Name(), err)
	return exitCode(err)
}

func (a *app) command() *cobra.Command {
	root := &cobra.Command{
		Use:               "sluice",
		Short:             "Database changes over Kafka into Iceberg tables, exactly once",
		SilenceErrors:     true,
		SilenceUsage:      true,
		CompletionOptions: cobra.CompletionOptions{HiddenDefaultCmd: true},
	}
	root.SetFlagErrorFunc(func(_ *cobra.Command, err error) error { return invalid(err) })
	f := root.PersistentFlags()
	f.StringVarP(&a.configPath, "config", "c", "sluice.yaml", "the configuration file")
	f.BoolVar(&a.json, "json", false, "write one JSON document to standard output")
	f.StringVar(&a.logLevel, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&a.logFormat, "log-format", "text", "text or json")
	root.AddCommand(a.runCommand(), a.validateCommand(), a.statusCommand(), a.inspectCommand(), a.schemaCommand(), a.versionCommand(), a.demoCommand(), a.searchCommand(), a.mcpCommand(), a.backfillCommand(), a.pauseCommand(), a.resumeCommand(), a.dlqCommand(), a.adoptCommand(), a.driftCommand(), a.reconcileCommand(),
		a.simulateCommand(), a.embeddedBrokerCommand(), a.embeddedS3Command())
	root.AddCommand(a.ruleCommands()...)
	return root
}

// oneOf is the command of a group of commands: alone it does nothing, and a
// script that misspells one of the group must hear of it.
func oneOf(cmd *cobra.Command, _ []string) error {
	var names []string
	for _, c := range cmd.Commands() {
		names = append(names, c.Name())
	}
	return invalid(fmt.Errorf("%s does what? there are %s; %s --help says more", cmd.CommandPath(), strings.Join(names, ", "), cmd.CommandPath()))
}

// envelope is what --json writes, for every command.
type envelope struct {
	Command string         `json:"command"`
	OK      bool           `json:"ok"`
	Result  any            `json:"result,omitempty"`
	Error   *envelopeError `json:"error,omitempty"`
}

type envelopeError struct {
	Message  string           `json:"message"`
	Exit     int              `json:"exit"`
	Problems []config.Problem `json:"problems,omitempty"`
}

// report ends a command: the envelope with --json, else the error, if any.
func (a *app) report(command string, err error) {
	var problems config.Problems
	errors.As(err, &problems)
	if a.json {
		e := envelope{Command: command, OK: err == nil, Result: a.result}
		if err != nil {
			e.Error = &envelopeError{Message: err.Error(), Exit: exitCode(err), Problems: problems}
			if len(problems) > 0 {
				e.Error.Message = count(len(problems), "problem") + ", nothing was changed"
			}
		}
		enc := json.NewEncoder(a.stdout)
		enc.SetEscapeHTML(false)
		_ = enc.Encode(e) // a closed pipe is nobody's problem
		return
	}
	switch {
	case err == nil:
	case len(problems) > 0:
		a.printProblems(problems)
	default:
		fmt.Fprintf(a.stderr, "sluice: %s\n", err)
	}
}

// printProblems aligns what is wrong behind the places.
func (a *app) printProblems(problems config.Problems) {
	width := 0
	for _, p := range problems {
		width = max(width, len(p.Place()))
	}
	for _, p := range problems {
		place := p.Place()
		rest := strings.TrimPrefix(p.String(), place)
		fmt.Fprintf(a.stderr, "%s:%s%s\n", place, strings.Repeat(" ", width-len(place)), strings.TrimPrefix(rest, ":"))
	}
	fmt.Fprintf(a.stderr, "%s, nothing was changed\n", count(len(problems), "problem"))
}

// count writes "1 problem" and "3 problems".
func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%s %ss", grouped(int64(n)), what)
}

// load reads the configuration; a missing file is told apart from a wrong one.
func (a *app) load() (*config.File, error) {
	f, err := registry().Load(a.configPath)
	if errors.Is(err, os.ErrNotExist) {
		return nil, invalid(fmt.Errorf("no configuration file %s; name it with -c FILE", a.configPath))
	}
	if err != nil {
		return nil, invalid(err)
	}
	return f, nil
}
