# Parley. `make` lists the targets.

SHELL   := /bin/bash
GO      ?= go
VERSION ?= $(shell git describe --tags --always --dirty 2>/dev/null || echo dev)
LDFLAGS := -s -w -X main.version=$(VERSION)
INSTALL ?= yes
FUZZTIME ?= 30s

.DEFAULT_GOAL := help

.PHONY: help build run cluster test soak check fuzz bench growth bench-nodes bench-check docs clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-11s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

build: ## build bin/parley
	CGO_ENABLED=0 $(GO) build -trimpath -ldflags '$(LDFLAGS)' -o bin/parley ./cmd/parley

run: build ## build, start on an embedded database and loopback addresses, say what to try next (ARGS='--c2s :5322' and other flags)
	./bin/parley serve --data ./data --demo --log-level warn --c2s 127.0.0.1:5222 --c2s-tls 127.0.0.1:5223 --https 127.0.0.1:5443 $(ARGS)

cluster: build ## three nodes on this machine, with a NATS and a Postgres of their own: docs/cluster.md (ARGS='--embedded 25222': NATS inside the nodes, another first port)
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/nats-server github.com/nats-io/nats-server/v2
	.ci/cluster $(ARGS)

test: ## every test: units with -race, scripts, real databases and real clients (INSTALL=no uses only what is there)
	@INSTALL=$(INSTALL) .ci/test

soak: ## every script on nodes where what may overtake does; the ledger's long run: twenty rounds of each fault on each database, eleven over three nodes: docs/reliability.md (links are cut as root)
	PARLEY_TEST_SUITE=soak $(GO) test -count=1 -timeout 60m ./plugins/all -run 'TestSuite/jitter'
	PARLEY_TEST_LEDGER_ROUNDS=20 PARLEY_TEST_LEDGER_TABLE=$(CURDIR)/docs/reliability.md $(GO) test -count=1 -timeout 120m -v ./plugins/plugintest/ledger -run TestLedger

check: ## gofmt, vet, staticcheck, import rules, references, go.mod
	@.ci/check

fuzz: ## every fuzz target for FUZZTIME (default 30s)
	@.ci/fuzz $(FUZZTIME)

bench: build ## Parley, ejabberd and Prosody where installed, and the floor: docs/performance.md (ARGS='--only chat1,idle --scale 0.1')
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/xmppload ./cmd/xmppload
	taskset -c $$(( $$(nproc) - 1 )) bin/xmppload bench --parley bin/parley --out docs/performance.md $(ARGS)

growth: build ## CPU per message, memory, archive pages and starts at growing sizes, twenty minutes: docs/growth.md and its charts (ARGS='--only start --scale 0.1')
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/xmppload ./cmd/xmppload
	taskset -c $$(( $$(nproc) - 1 )) bin/xmppload growth --parley bin/parley --out docs $(ARGS)

bench-nodes: build ## one node, several, a front and a core: CPU per message of each process, recovery after kill -9 and SIGSTOP, eight minutes: docs/nodes.md (ARGS='--only cost --scale 0.1')
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/xmppload ./cmd/xmppload
	CGO_ENABLED=0 $(GO) build -trimpath -o bin/nats-server github.com/nats-io/nats-server/v2
	taskset -c $$(( $$(nproc) - 1 )) bin/xmppload nodes --parley bin/parley --out docs/nodes.md $(ARGS)

bench-check: ## Go benchmarks of the last commit against the one before; 20 % slower fails
	@.ci/benchcheck

docs: ## regenerate docs/conformance.md, doap.xml and docs/configuration.yaml
	$(GO) run ./cmd/specref -write
	$(GO) run ./cmd/parley config doc > docs/configuration.yaml

clean: ## remove what was built
	rm -rf bin
