package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/sluice-data/sluice/objects/gateway"
	"github.com/sluice-data/sluice/topic"
)

// gatewayStop is the time for requests that are under way when the gateway is to end.
const gatewayStop = 500 * time.Millisecond

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
			return onlyServer(dir, func(ready func(addr string)) error {
				return topic.RunEmbedded(ctx, topic.EmbeddedConfig{Dir: dir, Port: port, Logger: log, Ready: ready})
			})
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
			return onlyServer(dir, func(ready func(addr string)) error {
				done := make(chan error, 1)
				go func() {
					done <- gateway.Run(ctx, gateway.Config{Dir: dir, Port: port, AccessKey: keys.Access, SecretKey: keys.Secret,
						ReaderAccess: keys.ReaderAccess, ReaderSecret: keys.ReaderSecret, Ready: ready})
				}()
				select {
				case err := <-done:
					return err
				case <-ctx.Done():
				}
				// The gateway would wait for idle connections; the process ends without it.
				select {
				case err := <-done:
					return err
				case <-time.After(gatewayStop):
					return nil
				}
			})
		},
	}
	embeddedFlags(cmd, &dir, &port)
	return cmd
}

// onlyServer runs an embedded server whose data is in dir, as the only one of
// that folder, and writes down beside it that it serves: the sluice that has
// started it may be killed before it can.
func onlyServer(dir string, run func(ready func(addr string)) error) error {
	dir = filepath.Clean(dir)
	parent, name := filepath.Dir(dir), filepath.Base(dir)
	release, err := lock(serverLock(dir), unix.LOCK_EX|unix.LOCK_NB)
	if err != nil {
		return environment(fmt.Errorf("another embedded %s serves %s: %w", name, dir, err))
	}
	defer release()
	var failed error
	err = run(func(addr string) {
		_, port, err := net.SplitHostPort(addr)
		if err != nil {
			failed = err
			return
		}
		self := child{PID: os.Getpid(), Started: startTime(os.Getpid())}
		self.Port, _ = strconv.Atoi(port)
		text, err := json.Marshal(self)
		if err == nil {
			err = os.WriteFile(serverFile(parent, name)+".new", text, 0o600)
		}
		if err == nil {
			err = os.Rename(serverFile(parent, name)+".new", serverFile(parent, name))
		}
		failed = err
	})
	return errors.Join(err, failed)
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
