package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-data/sluice/internal/demo"
)

func (a *app) demoCommand() *cobra.Command {
	c := demo.Config{PostgresURL: os.Getenv("DEMO_POSTGRES_URL"), PostgresBin: os.Getenv("SLUICE_PG_BIN")}
	stop := false
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Show the whole flow on this machine, from a small shop to equal tables",
		Long: "demo starts a private Postgres, fills a small shop, loads it into Iceberg tables, follows live changes\n" +
			"and compares every row with DuckDB. make demo gets what it needs and runs it. It ends with exit code 1\n" +
			"when anything differs.",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			dir, err := filepath.Abs(c.Dir)
			if err != nil {
				return environment(err)
			}
			c.Dir = dir
			if stop {
				return demo.Stop(c.Dir, a.stdout)
			}
			return a.demo(c)
		},
	}
	f := cmd.Flags()
	f.StringVar(&c.Dir, "dir", filepath.Join(".cache", "demo"), "folder for everything the demo makes; emptied at the start")
	f.DurationVar(&c.Live, "live", 20*time.Second, "how long to make live changes")
	f.BoolVar(&c.Keep, "keep", false, "leave everything up at the end")
	f.BoolVar(&stop, "stop", false, "end what a demo with --keep left up")
	return cmd
}

func (a *app) demo(c demo.Config) error {
	if os.Getenv("SLUICE_JUDGES_PYTHON") == "" {
		return environment(errors.New("no DuckDB to compare with: run make demo, which gets it, or set SLUICE_JUDGES_PYTHON"))
	}
	binary, err := os.Executable()
	if err != nil {
		return environment(err)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	asJSON := a.json
	a.json = false // the report is one flat line, and the last one
	c.Binary, c.Out, c.Lively = binary, a.stdout, !asJSON && isTerminal(a.stdout)
	report, err := demo.Run(ctx, c)
	if asJSON {
		line, jsonErr := json.Marshal(report)
		if jsonErr != nil {
			return jsonErr
		}
		fmt.Fprintln(a.stdout, string(line))
	}
	if err == nil && !report.OK {
		err = errors.New("something differs from what it should be: see the report")
	}
	return err
}
