package main

import (
	"context"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/sluice-data/sluice/objects/gateway"
	"github.com/sluice-data/sluice/topic"
)

// The embedded servers run as hidden commands of the same binary: the gateway
// changes the working directory of its process, and both must outlive a
// sluice that is killed.

func (a *app) embeddedBrokerCommand() *cobra.Command {
	var dir string
	var port int
	cmd := &cobra.Command{
		Use:    "embedded-broker",
		Short:  "Serve Kafka on the loopback address from a folder",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			log, err := a.logger(a.stderr, nil)
			if err != nil {
				return err
			}
			ctx, stop := untilTerminated()
			defer stop()
			return topic.RunEmbedded(ctx, topic.EmbeddedConfig{Dir: dir, Port: port, Logger: log})
		},
	}
	embeddedFlags(cmd, &dir, &port)
	return cmd
}

func (a *app) embeddedS3Command() *cobra.Command {
	var dir string
	var port int
	cmd := &cobra.Command{
		Use:    "embedded-s3",
		Short:  "Serve S3 on the loopback address from a folder",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(*cobra.Command, []string) error {
			keys, err := embeddedKeys(filepath.Dir(filepath.Clean(dir)))
			if err != nil {
				return err
			}
			ctx, stop := untilTerminated()
			defer stop()
			return gateway.Run(ctx, gateway.Config{Dir: dir, Port: port, AccessKey: keys.Access, SecretKey: keys.Secret,
				ReaderAccess: keys.ReaderAccess, ReaderSecret: keys.ReaderSecret})
		},
	}
	embeddedFlags(cmd, &dir, &port)
	return cmd
}

func embeddedFlags(cmd *cobra.Command, dir *string, port *int) {
	cmd.Flags().StringVar(dir, "dir", "", "the folder of its data")
	cmd.Flags().IntVar(port, "port", 0, "its port on 127.0.0.1")
	_ = cmd.MarkFlagRequired("dir") // the flag exists
}

// untilTerminated returns a context that ends with SIGTERM or SIGINT.
func untilTerminated() (context.Context, context.CancelFunc) {
	return signal.NotifyContext(context.Background(), syscall.SIGTERM, os.Interrupt)
}
