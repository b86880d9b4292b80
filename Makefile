# make help says what there is. Everything that is got or built by machine lies in .cache and bin.
SHELL := bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help
.PHONY: help build test lint demo engines bench fuzz chaos soak clean

GO ?= go
VERSION := $(shell git describe --tags --always --dirty 2>/dev/null || echo unknown)
# What tests need beside Go; sets SLUICE_PG_BIN, SLUICE_KAFKA_HOME, SLUICE_KMS_SERVER and SLUICE_JUDGES_PYTHON.
PARTS := parts=$$(deploy/dev/up.sh) && set -a && eval "$$parts" && set +a
FUZZTIME ?= 20s
KILLS ?= 200

help: ## this list
	@grep -hE '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | while IFS=$$'\t' read -r name what; do printf '  make %-9s %s\n' "$$name" "$$what"; done

build: ## bin/sluice
	$(GO) build -ldflags "-X main.version=$(VERSION)" -o bin/sluice ./cmd/sluice

test: ## get the real servers, vet, check the format, run every test
	@$(PARTS); \
	$(GO) vet ./...; \
	unformatted=$$(gofmt -l $$(git ls-files '*.go')); \
	if [ -n "$$unformatted" ]; then echo "not formatted, run gofmt -w:" $$unformatted; exit 1; fi; \
	deploy/dev/gotest.sh

lint: ## golangci-lint, of the version in tools/go.mod
	$(GO) tool -modfile=tools/go.mod golangci-lint run ./...

demo: build ## a small shop: Postgres, Kafka and Iceberg on this machine, in a minute (KEEP=1: leave it up, JSON=1: one line of JSON at the end)
	@parts=$$(deploy/dev/up.sh demo) && set -a && eval "$$parts" && set +a; \
	bin/sluice demo $(if $(filter 1,$(KEEP)),--keep) $(if $(filter 1,$(JSON)),--json)

engines: ## judge the tables with Spark too (gets 600 MB)
	@$(PARTS); { read -r SLUICE_SPARK_PYTHON; read -r SLUICE_SPARK_JARS; } < <(deploy/dev/spark.sh); export SLUICE_SPARK_PYTHON SLUICE_SPARK_JARS; \
	$(GO) test -count=1 -timeout 30m -tags engines -run Engines ./...

bench: build ## what a row costs, stage by stage and through the whole flow
	@$(PARTS); bench/run.sh

fuzz: ## every fuzz target for FUZZTIME (20s)
	@for file in $$(git grep -lE '^func Fuzz' -- '*_test.go'); do \
	  for target in $$(sed -nE 's/^func (Fuzz[A-Za-z0-9_]*).*/\1/p' "$$file"); do \
	    echo "$$target in $$(dirname "$$file")"; \
	    $(GO) test -run '^$$' -fuzz "^$$target\$$" -fuzztime $(FUZZTIME) "./$$(dirname "$$file")"; \
	  done; \
	done

chaos: ## KILLS (200) random and aimed kills under load; SEED=n repeats a run
	@$(PARTS); SLUICE_CHAOS_KILLS=$(KILLS) $(if $(SEED),SLUICE_CHAOS_SEED=$(SEED)) $(GO) test -count=1 -timeout 4h -v -run Chaos ./internal/chaos

soak: ## the long proofs: 200 kills of the document index and of activation, every destination under faults, files, retrieval quality
	@$(PARTS); SLUICE_VECTOR_KILLS=200 $(GO) test -count=1 -timeout 60m -v -run Kills ./vector; \
	SLUICE_ACTIVATION_KEYS=10000 SLUICE_ACTIVATION_CRASHES=200 $(GO) test -count=1 -timeout 60m -run TestEveryFault ./activation; \
	SLUICE_LONG=1 $(GO) test -count=1 -timeout 60m -run 'Conformance/.*/01' ./activation/spec; \
	SLUICE_FILES_LARGE=1.6 SLUICE_FILES_EVERY=1 $(GO) test -count=1 -timeout 60m -v -run 'TestLargeCopy|CopyCrash' ./ingest/files; \
	SLUICE_QUALITY=full $(GO) test -count=1 -timeout 60m -v ./vector/quality; \
	SLUICE_VECTOR_BENCH=1 $(GO) test -count=1 -timeout 60m -v -run RecordByRecord ./vector

clean: ## remove what was built; CACHE=1 also what was got
	rm -rf bin dist
	$(if $(filter 1,$(CACHE)),rm -rf .cache)
