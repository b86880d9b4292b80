// Command sluice carries database changes over Kafka into Iceberg tables.
package main

import "os"

func main() { os.Exit(execute(os.Args[1:], os.Stdout, os.Stderr)) }
