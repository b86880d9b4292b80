package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/sluice-data/sluice/activation/destinationtest"
)

// simulation is what sluice simulate has put up.
type simulation struct {
	Vendor       string `json:"vendor"`
	URL          string `json:"url"`
	Token        string `json:"token"`
	RefreshToken string `json:"refresh_token"`
}

func (a *app) simulateCommand() *cobra.Command {
	listen, faults := "127.0.0.1:0", ""
	o := destinationtest.Options{}
	cmd := &cobra.Command{
		Use:   "simulate VENDOR",
		Short: "Stand in for a SaaS, with its rules, quotas and faults",
		Long: "simulate answers like " + strings.Join(destinationtest.Names(), ", ") + " (http is an API of your own).\n" +
			"It keeps records in memory, refuses what the vendor refuses, counts its quotas, and goes wrong as\n" +
			"often as --faults says, the same way for the same seed:\n" +
			"  --faults all                              a little of everything\n" +
			"  --faults lost=0.05,broken=0.02,seed=7     answers lost after the write, 503\n" +
			"GET /_simulator/records/OBJECT and GET /_simulator/journal show what it holds and every write.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if o.Faults, err = destinationtest.ParseFaults(faults); err != nil {
				return invalid(fmt.Errorf("--faults: %w", err))
			}
			s, err := destinationtest.New(args[0], o)
			if err != nil {
				return invalid(err)
			}
			return a.simulate(s, listen, o)
		},
	}
	f := cmd.Flags()
	f.StringVar(&listen, "listen", listen, "address; the port 0 takes a free one")
	f.StringVar(&faults, "faults", "", "shares of calls that go wrong, such as lost=0.05,throttle=0.02,seed=7, or all")
	f.StringVar(&o.Token, "token", destinationtest.Token, "the token that is accepted")
	f.DurationVar(&o.Lag, "lag", 0, "how far the search index runs behind")
	f.IntVar(&o.Requests, "requests", 0, "calls of the quota of bursts; the vendor's unless said")
	f.DurationVar(&o.Window, "window", 0, "period of that quota")
	f.IntVar(&o.Daily, "daily", 0, "calls of a day; the vendor's unless said")
	return cmd
}

// simulate serves s until it is interrupted.
func (a *app) simulate(s *destinationtest.Simulator, listen string, o destinationtest.Options) error {
	host, _, err := net.SplitHostPort(listen)
	if err != nil {
		return invalid(fmt.Errorf("--listen: %w", err))
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return invalid(errors.New("--listen: a simulator is for this machine: use 127.0.0.1"))
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	l, err := net.Listen("tcp", listen)
	if err != nil {
		return environment(fmt.Errorf("listen: %w", err))
	}
	mux := http.NewServeMux()
	mux.Handle("/", s)
	mux.Handle("GET /_simulator/", s.Inspector())
	server := &http.Server{Handler: mux, ReadHeaderTimeout: 10 * time.Second}
	up := simulation{Vendor: s.Name, URL: "http://" + l.Addr().String(), Token: o.Token, RefreshToken: destinationtest.RefreshToken}
	if a.json {
		enc := json.NewEncoder(a.stdout)
		if err := enc.Encode(envelope{Command: "simulate", OK: true, Result: up}); err != nil {
			return err
		}
		a.json = false // the one document is written
	} else {
		fmt.Fprintf(a.stdout, "%s is at %s, token %s; Ctrl-C ends it\n", up.Vendor, up.URL, up.Token)
	}
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	select {
	case err = <-done:
		return environment(fmt.Errorf("serve: %w", err))
	case <-ctx.Done():
	}
	last, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	return server.Shutdown(last)
}
