# quinto. `make help` lists what there is.

SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# A checkout of another user, or without git, builds all the same; `build` adds the
# commit where there is one.
export GOFLAGS ?= -buildvcs=false
VCS = $(shell git rev-parse --verify --quiet HEAD >/dev/null 2>&1 && echo true || echo false)

BIN  := bin/quinto
DATA ?= data
HTTP ?= 127.0.0.1:8888
# What the scripts of one name are: a Go program in a folder, or a program.
script = $(if $(wildcard scripts/$(1)/*.go),go run ./scripts/$(1),./scripts/$(1))
# Packages whose tests start whole clusters: the step `faults`.
CLUSTER_TESTS := ./internal/testcluster/...
UNIT_TESTS = $$(go list ./... | grep -v '/internal/testcluster')

FUZZTIME ?= 2m
KILLS ?= 100
WOUNDS ?= full
# The random sequences of `make conformance` differ from commit to commit; SEED=n repeats a run.
SEED ?= $(shell printf '%d' 0x$$(git rev-parse --short=12 HEAD 2>/dev/null || echo 1))
CONFORMANCE = $(call script,conformance) --quinto $(BIN) --seed $(SEED)
# What `make test` and CI run, in this order: within 20 minutes on two slow cores, by the
# shares below. What grows past its share gets a seeded sample that differs by commit, and
# the whole a target of its own: docs/architecture.md, "Tests".
STEPS ?= lint vet unit race-small \
  conformance conformance-plugins-small \
  clients tutorials restore s3 demo-small import-small \
  faults-small corruption-small faults-notify-small streams-small upgrade-small sim-small \
  fuzz-small schemathesis-small
# Where goroutines meet most: of these packages the samples take some tests at each commit.
CORE := ./cluster ./fsm ./cmd/command ./api/resource
RACE = $$(go list ./... | grep -v -e '/internal/testcluster' -e '/internal/lint' -e '/scripts/conformance')

.PHONY: help
help: ## list these targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-14s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: build
build: ## build bin/quinto
	@mkdir -p bin
	go build -buildvcs=$(VCS) -o $(BIN) ./cmd/quinto

.PHONY: run
run: build ## one durable node on http://127.0.0.1:8888/v1/, data in ./data
	exec $(BIN) start --data $(DATA) --http $(HTTP)

.PHONY: cluster
cluster: build ## three nodes on this machine that are one service
	exec $(call script,cluster)

.PHONY: test
test: ## all that CI runs: lint, tests, race, conformance, clients, samples of faults and fuzz
	@scripts/lib/steps.sh $(STEPS)

.PHONY: lint
lint: ## format, golangci-lint, the house's own rules, shell syntax
	@files="$$(gofmt -l $$(find . -name '*.go' -not -path './.cache/*'))"; \
	  [[ -z $$files ]] || { echo "not formatted (make fmt):"; echo "$$files"; exit 1; }
	@for file in $$(grep -rlE '^#!.*\bbash' scripts .ci); do bash -n "$$file"; done
	go test -count=1 ./internal/lint
	"$$(scripts/lib/tools.sh golangci)" run ./...

.PHONY: fmt
fmt: ## format all Go files
	"$$(scripts/lib/tools.sh golangci)" fmt ./...

.PHONY: vet
vet: ## go vet
	go vet ./...

.PHONY: unit
unit: ## tests of all packages; a quarter of the cluster's, others at each commit, also on the other log store
	go test -count=1 -timeout 10m $(UNIT_TESTS)
	QUINTO_LOG_STORE=wal scripts/lib/sample.sh $(SEED) 4 ./cluster "" -count=1 -short -timeout 10m

.PHONY: wal
wal: ## all tests of the cluster on the other log store
	QUINTO_LOG_STORE=wal go test -count=1 -timeout 10m ./cluster

.PHONY: race
race: ## all tests with the race detector, in short form; not the rules about the source and the scripts, which run nothing at the same time
	go test -count=1 -race -short -timeout 30m $(RACE)

.PHONY: race-small
race-small: ## a quarter of them, others at each commit; SEED=n repeats a run
	scripts/lib/sample.sh $(SEED) 4 "$(CORE)" "$$(go list $(RACE) | grep -v -x -F "$$(go list $(CORE))" | tr '\n' ' ')" -count=1 -race -short -timeout 20m

.PHONY: conformance
conformance: build ## the same requests to real Kinto and to quinto must get equal answers, also while leaders are killed
	@venv="$$(scripts/lib/tools.sh venv)"; set -x; \
	  $(CONFORMANCE) --kinto-venv "$$venv" --generate 90; \
	  $(CONFORMANCE) --kinto-venv "$$venv" --generate 25 --sample 20 --nodes 3 --kill-every 4s

.PHONY: conformance-all
conformance-all: build ## the same at length: both backends of Kinto, 1,200 random sequences on each, and on three nodes
	@venv="$$(scripts/lib/tools.sh venv)"; scripts/lib/tools.sh postgres >/dev/null; set -x; \
	  $(CONFORMANCE) --kinto-venv "$$venv" --generate 1200 --backend memory,postgresql; \
	  $(CONFORMANCE) --kinto-venv "$$venv" --generate 300 --nodes 3 --kill-every 5s

.PHONY: conformance-plugins
conformance-plugins: build ## the same beside kinto-changes, kinto-emailer and kinto-redis: answers, mails, messages
	@venv="$$(scripts/lib/tools.sh plugins)"; redis="$$(scripts/lib/tools.sh redis)"; smtp="$$(scripts/lib/tools.sh smtp)"; set -x; \
	  $(CONFORMANCE) --kinto-venv "$$venv" --scenarios scripts/conformance/plugins/scenarios $(PLUGINS_SAMPLE); \
	  $(CONFORMANCE) --kinto-venv "$$venv" --effects --redis "$$redis" --smtp "$$smtp"

.PHONY: conformance-plugins-small
conformance-plugins-small: PLUGINS_SAMPLE := --sample 9
conformance-plugins-small: conformance-plugins ## the same with half of the scenarios, which differ by commit

.PHONY: wounds
wounds: build ## what real Kinto on PostgreSQL harms and quinto does not (docs/results/wounds.md); WOUNDS=small takes a minute
	@venv="$$(scripts/lib/tools.sh venv)"; scripts/lib/tools.sh postgres >/dev/null; \
	  set -x; $(CONFORMANCE) --kinto-venv "$$venv" --wounds $(WOUNDS)

.PHONY: demo
demo: build demo-tools ## all cities of the world, three nodes, real Kinto clients, the leader killed
	$(call script,demo)

.PHONY: demo-small
demo-small: build demo-tools ## the demo with 5,000 records
	$(call script,demo) --records 5000

.PHONY: clients
clients: build demo-tools ## the official clients, each through its whole interface, on three nodes
	QUINTO_BIN=$(BIN) scripts/clients

.PHONY: tutorials
tutorials: build demo-tools ## every block of code in the tutorials, and what it must print
	@venv="$$(scripts/lib/tools.sh venv)"; npm="$$(scripts/lib/tools.sh npm)"; \
	  "$$venv/bin/python" -B scripts/lib/tutorials/run.py --quinto $(BIN) --node-path "$$npm/node_modules" docs/tutorial-offline.md docs/tutorial-sharing.md
	@$(MAKE) --no-print-directory live

.PHONY: live
live: build ## docs/examples/live in Chromium, and a WebSocket, while nodes are killed
	@venv="$$(scripts/lib/tools.sh venv)"; browser="$$(scripts/lib/tools.sh browser)"; \
	  "$$venv/bin/python" -B scripts/lib/live/browser.py --quinto $(BIN) --browser "$$browser"

.PHONY: demo-tools
demo-tools:
	@scripts/lib/tools.sh venv npm >/dev/null

.PHONY: faults
faults: ## clusters harmed in every way that this machine allows, and what their clients saw judged (docs/results/faults.md); wants root, 40 minutes; each part runs whatever became of those before
	@failed=0; set -x; \
	  go test -count=1 -timeout 60m $(CLUSTER_TESTS) || failed=1; \
	  QUINTO_LOG_STORE=wal go test -count=1 -timeout 60m $(CLUSTER_TESTS) || failed=1; \
	  QUINTO_LOG_STORE=wal $(call script,faults) --nodes 3 --only 'kill|power|crash|disk' || failed=1; \
	  $(call script,faults) --html .cache/faults/faults.html --out docs/results/faults.md || failed=1; \
	  exit $$failed

.PHONY: faults-small
faults-small: ## half of the tests of clusters in short form, and a few harms; others at each commit, SEED=n repeats a run
	scripts/lib/sample.sh $(SEED) 2 ./internal/testcluster "" -count=1 -short -timeout 20m
	$(call script,faults) --small --count 3 --budget 60s --seed $(SEED) --recover 20s

.PHONY: sim
sim: ## 500 seeds of clusters on a simulated network, disk and clock (docs/results/sim.md); SEED=n begins elsewhere
	$(call script,sim) --seeds 500 --from $(SEED) --out docs/results/sim.md

.PHONY: sim-small
sim-small: ## 100 of them, others at each commit
	$(call script,sim) --seeds 100 --from $(SEED)

.PHONY: sim-mutants
sim-mutants: ## planted faults, each of which some seed must find (docs/results/sim-mutants.md)
	$(call script,sim) --mutants --out docs/results/sim-mutants.md

.PHONY: faults-notify
faults-notify: build notify-tools ## the leader killed 20 times between a delivery and its note: webhooks, also those of metadata, Redis, NATS and mail get everything, in order (docs/results/faults-notify.md)
	go test -count=1 ./plugins/queue ./plugins/mail
	$(call script,notify) --quinto $(BIN) --kills 20 --seed $(SEED) --out docs/results/faults-notify.md

.PHONY: faults-notify-small
faults-notify-small: build notify-tools ## the same with three kills
	$(call script,notify) --quinto $(BIN) --kills 3 --seed $(SEED)

.PHONY: streams
streams: build ## live streams must show what GETs say, while permissions change at random (docs/results/streams.md)
	@venv="$$(scripts/lib/tools.sh venv)"; set -x; \
	  "$$venv/bin/python" -B scripts/lib/live/compare.py --quinto $(BIN) --seed $(SEED) --runs 20 --seconds 12 --out docs/results/streams.md

.PHONY: streams-small
streams-small: build ## one run of them, another one at each commit
	@venv="$$(scripts/lib/tools.sh venv)"; set -x; \
	  "$$venv/bin/python" -B scripts/lib/live/compare.py --quinto $(BIN) --seed $(SEED) --seconds 8

.PHONY: notify-tools
notify-tools:
	@scripts/lib/tools.sh redis nats smtp postfix >/dev/null

.PHONY: mutants
mutants: ## planted faults, each of which the judge of `make faults` must find (docs/results/mutants.md)
	$(call script,faults) mutants --out docs/results/mutants.md

.PHONY: failover
failover: ## the leader is killed 100 times, stopped, and its disk hangs: how long nothing is acknowledged (docs/results/failover.md)
	$(call script,faults) failover --kills $(KILLS) --out docs/results/failover.md

.PHONY: corruption
corruption: build ## 200 mutations of each persistent file of one of three nodes, and what the node does then (docs/results/corruption.md)
	$(call script,corruption) --quinto $(BIN) --seed $(SEED) --lanes 4 --out docs/results/corruption.md

.PHONY: corruption-small
corruption-small: build ## ten of them, others at each commit
	$(call script,corruption) --quinto $(BIN) --seed $(SEED) --sample 10 --lanes 1 --limit 30s

.PHONY: upgrade
upgrade: build ## a cluster of the last release is upgraded node by node under load (docs/results/upgrade.md)
	$(call script,upgrade) --quinto $(BIN) --out docs/results/upgrade.md

.PHONY: upgrade-small
upgrade-small: build ## the same without the way back; skipped where the reference commit is not in the clone
	$(call script,upgrade) --quinto $(BIN) --small

.PHONY: fuzz
fuzz: ## every fuzz target for FUZZTIME (2m)
	scripts/lib/fuzz.sh $(FUZZTIME)

.PHONY: fuzz-small
fuzz-small: ## three fuzz targets, others at each commit, for ten seconds each
	scripts/lib/fuzz.sh 10s ./... 3 $(SEED)

.PHONY: restore
restore: build ## what kinto.js sees of a restore from a backup
	scripts/restore

.PHONY: s3
s3: ## archives in S3, against a server that speaks it
	scripts/lib/s3.sh

.PHONY: schemathesis
schemathesis: build ## 10,000 requests generated from the API document
	scripts/schemathesis --requests 10000 --out docs/results/schemathesis.md

.PHONY: schemathesis-small
schemathesis-small: build ## as many of them as half a minute allows
	scripts/schemathesis --requests 600 --seconds 35

.PHONY: slow
slow: build ## 2,000 slow connections on each port, and what others notice (docs/results/slow.md)
	QUINTO_BIN=$(BIN) $(call script,slow) -out docs/results/slow.md

.PHONY: bench
bench: build ## figures beside real Kinto on PostgreSQL, as ratios
	@scripts/lib/tools.sh venv postgres >/dev/null
	$(call script,bench)

.PHONY: bench-hooks
bench-hooks: build ## what a trivial hook costs: the part of bench about it alone, two minutes
	$(call script,bench) --only '^hooks$$' --out docs/results/bench.md

.PHONY: bench-live
bench-live: build ## 10,000 live streams on one node: memory, time to reach all, cost for writers
	$(call script,benchlive) --quinto $(BIN)

.PHONY: bench-live-small
bench-live-small: build ## the same with 1,000 streams in half a minute, printed only
	$(call script,benchlive) --quinto $(BIN) --small

.PHONY: bench-notify
bench-notify: build ## webhooks: events a second, time from a write to its delivery, dead receivers, a failover (docs/results/notify.md)
	$(call script,benchnotify) --quinto $(BIN)

.PHONY: bench-notify-small
bench-notify-small: build ## the same in half a minute, printed only
	$(call script,benchnotify) --quinto $(BIN) --small

.PHONY: bench-big
bench-big: build ## one node with 1,000,000 records: restart after kill -9, memory
	$(call script,bench) --big --only '^big$$' --out docs/results/bench.md

.PHONY: import
import: build ## real Kinto with 100,000 records on PostgreSQL is imported and compared
	@scripts/lib/tools.sh venv postgres >/dev/null
	QUINTO_BIN=$(BIN) $(call script,import) --out docs/results/import.md

.PHONY: import-small
import-small: build ## the same with 2,000 records
	@scripts/lib/tools.sh venv postgres >/dev/null
	QUINTO_BIN=$(BIN) $(call script,import) --records 2000

.PHONY: docs
docs: ## write the documentation that is made from code
	go test -count=1 ./internal/config -run TestDocs -update

.PHONY: tools
tools: ## install the linter, Kinto and its clients, PostgreSQL into .cache
	scripts/lib/tools.sh all

.PHONY: clean
clean: ## remove what was built; data and installed tools stay
	rm -rf bin
