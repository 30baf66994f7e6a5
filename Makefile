# Each target does its own set-up on a machine with Python 3.11 or newer and make (and Go, gcc, npm and, for one engine, cargo for `make tools`).
# PYTHON chooses the interpreter, VENV the folder of the environment.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
TOOLS := .tools/bin
NPM := .tools/oidc-provider/.ready .tools/pyright/.ready .tools/axe-core/.ready .tools/a2a-js/.ready .tools/mcp-js/.ready .tools/mcp-conformance/.ready
NODE := .tools/node/.ready
JUDGES := .tools/receipts/.ready
READY := $(VENV)/.ready
BASE ?= HEAD~1
ENGINE ?= embedded
RECORDS ?=
SECONDS ?= 600
KILLS ?= 50
RATE ?= 300
SITE ?= single
FAULTS ?=
TARGET ?=
KEEP ?=
DISK ?= 2
CORES := $(shell getconf _NPROCESSORS_ONLN)
WORKERS ?= $(shell expr $(CORES) + 3)
HOUR = $(if $(filter file,$(origin SECONDS)),3600,$(SECONDS))
SEED ?= 0
OPERATIONS ?= 20000
REPLICAS ?= 1
PYTEST_ARGS ?=
COVERED := envelopes/*,policies/*

# Each of the many processes that the tests start would compile everything again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help setup tools tools-kubernetes docs demo stack regions stack-demo stack-down soak chaos fuzz test test-systems test-quick keycloak-test image-test kubernetes-test policies-hour simulate model-operations check format bench lock removal weaken wheel engine engine-tool check-engine release clean

help: ## list the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-10s %s\n", $$1, $$2}'

$(READY): requirements.txt requirements-dev.txt pyproject.toml
	@echo "installing locked packages into $(VENV), which takes about a minute"
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

setup: $(READY) ## make the environment, with every package locked by hash

release: $(READY) ## make a release of the commit into dist/release, signed with the SSH key KEY: wheel, sdist, SBOM, notes, hashes
	@$(BIN)/python scripts/release.py $(if $(KEY),--key $(KEY))

wheel: $(READY) ## build what pip installs, dist/sealbus-*.whl
	@$(BIN)/python -m build --wheel --no-isolation --outdir dist . >/dev/null
	@ls dist/sealbus-*.whl

# The paths of this machine would make another wheel of the same sources.
ENGINE_READY := $(VENV)/.engine-ready
ENGINE_WHEEL := .tools/engine/.ready
ENGINE_SOURCES := $(wildcard native/engine/src/*) $(addprefix native/engine/,Cargo.toml Cargo.lock pyproject.toml rust-toolchain.toml)
CARGO_PLACES := --remap-path-prefix=$(or $(CARGO_HOME),$(HOME)/.cargo)=/cargo --remap-path-prefix=$(CURDIR)/native/engine=/engine
CARGO := cd native/engine && export CARGO_TARGET_DIR=$(CURDIR)/.tools/engine/target &&
RUST_TOOLS := .tools/rust/.ready

$(RUST_TOOLS): deploy/tools/rust/requirements.txt | $(READY)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --target $(dir $@) --upgrade --require-hashes --requirement $<
	@touch $@

$(ENGINE_WHEEL): $(ENGINE_SOURCES) $(RUST_TOOLS) | $(READY)
	@rm -rf .tools/engine/wheel
	@$(CARGO) RUSTFLAGS="$(CARGO_PLACES)" SOURCE_DATE_EPOCH=1577836800 $(CURDIR)/.tools/rust/bin/maturin build --quiet --release --locked \
		--interpreter $(CURDIR)/$(BIN)/python --out $(CURDIR)/.tools/engine/wheel
	@touch $@

$(ENGINE_READY): $(ENGINE_WHEEL) | $(READY)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-index --force-reinstall .tools/engine/wheel/*.whl
	@touch $@

# Where its crates cannot be had that is noted, and its tests are skipped by name; what does not build fails.
engine-tool: | $(READY)
	@mkdir -p .tools/engine && rm -f .tools/engine/missing
	@if (cd native/engine && cargo fetch --quiet --locked); then $(MAKE) --no-print-directory $(ENGINE_READY); else echo sealbus-regorus > .tools/engine/missing; fi

engine: $(ENGINE_READY) ## build the native engine with cargo, which takes some minutes the first time, and install it
	@sha256sum .tools/engine/wheel/*.whl

check-engine: $(RUST_TOOLS) ## check format, lint, licences and tests of the native engine
	@$(CARGO) cargo fmt --check
	@$(CARGO) cargo clippy --quiet --locked --all-features --all-targets -- --deny warnings
	@$(CARGO) said=$$(cargo test --quiet --locked 2>&1) || { echo "$$said"; exit 1; }
	@$(CARGO) PATH="$(CURDIR)/.tools/rust/bin:$$PATH" cargo deny --locked --log-level error check licenses bans sources >/dev/null

DOCS := $(VENV)/.docs-ready

$(DOCS): requirements-docs.txt | $(READY)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements-docs.txt
	@touch $@

docs: $(DOCS) ## build the documents as a site, site/index.html, with a reference from the code
	@$(BIN)/python scripts/build_docs.py

$(TOOLS)/opa: deploy/tools/opa/go.mod deploy/tools/opa/go.sum
	@mkdir -p $(TOOLS)
	@cd deploy/tools/opa && GOBIN=$(CURDIR)/$(TOOLS) GOFLAGS=-mod=readonly CGO_ENABLED=0 go install tool
	@touch $@

# Each has its own Go module: the dependencies of one must not choose the versions of another.
$(TOOLS)/nats: deploy/tools/nats/go.mod deploy/tools/nats/go.sum
	@mkdir -p $(TOOLS)
	@cd deploy/tools/nats && GOBIN=$(CURDIR)/$(TOOLS) GOFLAGS=-mod=readonly CGO_ENABLED=0 go install tool
	@touch $@

$(TOOLS)/helm: deploy/tools/helm/go.mod deploy/tools/helm/go.sum
	@mkdir -p $(TOOLS)
	@cd deploy/tools/helm && GOBIN=$(CURDIR)/$(TOOLS) GOFLAGS=-mod=readonly CGO_ENABLED=0 go install tool
	@touch $@

# The server's SQLite is C, and takes minutes the first time. One after the other, because both compile the same packages.
$(TOOLS)/spire-server: deploy/tools/spire/go.mod deploy/tools/spire/go.sum
	@mkdir -p $(TOOLS)
	@cd deploy/tools/spire && GOBIN=$(CURDIR)/$(TOOLS) GOFLAGS=-mod=readonly CGO_ENABLED=1 go install github.com/spiffe/spire/cmd/spire-server
	@touch $@

$(TOOLS)/spire-agent: deploy/tools/spire/go.mod deploy/tools/spire/go.sum | $(TOOLS)/spire-server
	@mkdir -p $(TOOLS)
	@cd deploy/tools/spire && GOBIN=$(CURDIR)/$(TOOLS) GOFLAGS=-mod=readonly CGO_ENABLED=1 go install github.com/spiffe/spire/cmd/spire-agent
	@touch $@

$(TOOLS)/powercut: deploy/tools/powercut/main.go deploy/tools/powercut/go.mod deploy/tools/powercut/go.sum
	@mkdir -p $(TOOLS)
	@cd deploy/tools/powercut && GOBIN=$(CURDIR)/$(TOOLS) GOFLAGS=-mod=readonly CGO_ENABLED=0 go install .
	@touch $@

$(TOOLS)/omniwitness: deploy/tools/omniwitness/go.mod deploy/tools/omniwitness/go.sum
	@mkdir -p $(TOOLS)
	@cd deploy/tools/omniwitness && GOBIN=$(CURDIR)/$(TOOLS) GOFLAGS=-mod=readonly CGO_ENABLED=0 go install tool
	@touch $@

# Not by the name `fsck`, which is that of another program on PATH.
$(TOOLS)/tessera-fsck: deploy/tools/tessera/go.mod deploy/tools/tessera/go.sum
	@mkdir -p $(TOOLS)
	@cd deploy/tools/tessera && GOFLAGS=-mod=readonly CGO_ENABLED=0 go build -o $(CURDIR)/$@ github.com/transparency-dev/tessera/cmd/fsck
	@touch $@

DEBIAN := .tools/debian/missing

$(DEBIAN): scripts/debian_tools.sh
	@scripts/debian_tools.sh $(CURDIR)/.tools

$(NODE) $(JUDGES): .tools/%/.ready: deploy/tools/%/requirements.txt $(READY)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --target $(dir $@) --upgrade --require-hashes --requirement $<
	@touch $@

$(NPM): .tools/%/.ready: deploy/tools/%/package.json deploy/tools/%/package-lock.json deploy/tools/%/.npmrc
	@mkdir -p $(dir $@)
	@cp $^ $(dir $@)
	@cd $(dir $@) && npm ci --omit=dev --ignore-scripts --no-audit --no-fund --loglevel=error >/dev/null
	@touch $@

tools: engine-tool $(TOOLS)/opa $(TOOLS)/nats $(TOOLS)/helm $(TOOLS)/powercut $(TOOLS)/omniwitness $(TOOLS)/tessera-fsck $(TOOLS)/spire-server $(TOOLS)/spire-agent $(DEBIAN) $(NPM) $(NODE) $(JUDGES) $(DOCS) ## build the programs that the tests need, and get what builds the site

KEYCLOAK := 26.7.3
KEYCLOAK_HAS := $(and $(shell command -v java),$(shell command -v mvn))
MAVEN_COPY := org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy

# Made ready once, which takes half a minute, so that a start writes nothing here.
.tools/keycloak/.ready: deploy/tools/keycloak/SHA256SUMS | $(READY)
	@rm -rf .tools/keycloak/keycloak-*
	@mkdir -p .tools/keycloak
	@mvn --quiet --batch-mode -Dstyle.color=never $(MAVEN_COPY) -Dartifact=org.keycloak:keycloak-quarkus-dist:$(KEYCLOAK):zip -DoutputDirectory=$(CURDIR)/.tools/keycloak
	@cd .tools/keycloak && sha256sum --check --quiet --strict $(CURDIR)/deploy/tools/keycloak/SHA256SUMS
	@cd .tools/keycloak && $(CURDIR)/$(BIN)/python -m zipfile -e keycloak-quarkus-dist-$(KEYCLOAK).zip . && rm keycloak-quarkus-dist-$(KEYCLOAK).zip
	@sh .tools/keycloak/keycloak-$(KEYCLOAK)/bin/kc.sh build --db=dev-mem --features=spiffe,client-auth-federated >/dev/null
	@touch $@

KUBERNETES := .tools/kubernetes
VERSION_OF_KUBERNETES = $(shell awk '$$1 == "k8s.io/kubernetes" {print $$2}' deploy/tools/kubernetes/go.mod)
# An API server that does not know its version is taken for 0.0 by Helm and kubectl.
KNOWN_VERSION = -X k8s.io/component-base/version.gitVersion=$(VERSION_OF_KUBERNETES) -X k8s.io/component-base/version.gitMajor=1 -X k8s.io/component-base/version.gitMinor=$(word 2,$(subst ., ,$(VERSION_OF_KUBERNETES)))

$(KUBERNETES)/kube-apiserver: deploy/tools/kubernetes/go.mod deploy/tools/kubernetes/go.sum
	@mkdir -p $(KUBERNETES)
	@cd deploy/tools/kubernetes && GOBIN=$(CURDIR)/$(KUBERNETES) GOFLAGS=-mod=readonly CGO_ENABLED=0 go install -ldflags '-s -w $(KNOWN_VERSION)' tool
	@touch $@

# The program is called `server`.
$(KUBERNETES)/server: deploy/tools/kubernetes/etcd/go.mod deploy/tools/kubernetes/etcd/go.sum
	@mkdir -p $(KUBERNETES)
	@cd deploy/tools/kubernetes/etcd && GOBIN=$(CURDIR)/$(KUBERNETES) GOFLAGS=-mod=readonly CGO_ENABLED=0 go install -ldflags '-s -w' tool
	@touch $@

# What it does to nodes and pods is in files of its module, and it does nothing without them.
STAGES := node/fast/node-initialize node/heartbeat/node-heartbeat pod/fast/pod-ready pod/fast/pod-complete pod/fast/pod-delete
$(KUBERNETES)/kwok: deploy/tools/kubernetes/kwok/go.mod deploy/tools/kubernetes/kwok/go.sum
	@mkdir -p $(KUBERNETES)
	@cd deploy/tools/kubernetes/kwok && GOBIN=$(CURDIR)/$(KUBERNETES) GOFLAGS=-mod=readonly CGO_ENABLED=0 go install -ldflags '-s -w' tool
	@set -e; from=$$(cd deploy/tools/kubernetes/kwok && go list -m -f '{{.Dir}}' sigs.k8s.io/kwok)/kustomize/stage; \
		for stage in $(STAGES); do echo ---; cat $$from/$$stage.yaml; done > $(KUBERNETES)/stages.yaml
	@touch $@

tools-kubernetes: $(KUBERNETES)/server $(KUBERNETES)/kwok $(KUBERNETES)/kube-apiserver ## build a control plane of Kubernetes, which takes a quarter of an hour, for `make kubernetes-test`

EVIDENCE := .sealbus/evidence

demo: $(READY) ## play the scenes (allowed, denied, refused, changed, replayed), then verify the log and tamper with copies
	@$(if $(filter sidecar,$(ENGINE)),$(MAKE) --no-print-directory $(TOOLS)/opa,:)
	@$(BIN)/sealbus demo --engine $(ENGINE) $(if $(filter sidecar,$(ENGINE)),--opa $(TOOLS)/opa) --export $(EVIDENCE)
	@$(BIN)/python scripts/show_tampering.py $(EVIDENCE) $(dir $(EVIDENCE))root.json

STACK := PYTHONPATH=deploy/local $(BIN)/python -m stack

stack: $(READY) $(TOOLS)/opa $(TOOLS)/spire-server $(TOOLS)/spire-agent ## start SPIRE, NATS, OPA, control, edge and the example agents here, each as its own user (root)
	@$(STACK) up

regions: $(READY) $(TOOLS)/spire-server $(TOOLS)/spire-agent ## run two regions of three NATS servers here, with an agent in each, until Ctrl-C (root)
	@$(STACK) regions --folder .regions

stack-demo: $(READY) ## play the scenes on the running stack
	@$(STACK) demo

soak: $(READY) $(TOOLS)/opa $(TOOLS)/spire-server $(TOOLS)/spire-agent ## put a stack under load for SECONDS (600) while everything rotates, and print the counts
	@$(STACK) soak --folder .soak --seconds $(SECONDS)

chaos: $(READY) $(TOOLS)/powercut $(TOOLS)/opa ## cause KILLS faults (FAULTS of them) on a SITE (single, cluster, leaf, regions) under RATE tasks a second, on servers with DISK GiB each, and count the promises that were broken (root)
	@PYTHONPATH=tests:deploy/local $(BIN)/python -m ledger --site $(SITE) --kills $(KILLS) --rate $(RATE) --disk $(DISK) $(FAULTS:%=--faults %)

stack-down: $(READY) ## stop the stack
	@$(STACK) down

BUILT := $(if $(CI),tools,$(if $(and $(shell command -v go),$(shell command -v gcc),$(shell command -v npm)),tools))
# By file, so that a module's fixtures are set up once. More workers than cores, because tests wait for servers and timers.
PARALLEL := --dist loadfile --no-loadscope-reorder --numprocesses
PURE := tests/envelopes tests/policies

# What several runs of pytest counted and skipped is told together at the end, also where one of them failed.
TEST_RUNS := .cache/test-runs
TOLD_AT_THE_END = set -e; mkdir -p $(dir $(TEST_RUNS)); rm -f $(TEST_RUNS); export TEST_RUNS_FILE=$(CURDIR)/$(TEST_RUNS); \
	begun=$$(date +%s); trap '$(BIN)/python scripts/report_tests.py $(TEST_RUNS) '$$begun EXIT

test: $(READY) $(BUILT) ## run all tests except those of `make test-systems`, with the coverage of the pure parts
	@$(TOLD_AT_THE_END); \
	$(BIN)/python -m coverage erase; \
	$(BIN)/python -m coverage run -m pytest $(PARALLEL) $(CORES) $(PYTEST_ARGS) $(PURE); \
	$(BIN)/python -m coverage combine --quiet; \
	$(BIN)/python -m coverage report --include='$(COVERED)' --fail-under=100 --skip-covered --show-missing; \
	$(BIN)/python -m pytest $(PARALLEL) $(WORKERS) -m 'not (serial or keycloak or image or kubernetes)' $(PURE:%=--ignore=%) $(PYTEST_ARGS)

test-systems: $(READY) $(BUILT) ## kill and rotate whole systems under load, three at a time
	@$(TOLD_AT_THE_END); $(BIN)/python -m pytest $(PARALLEL) 3 -m serial $(PYTEST_ARGS)

test-quick: $(READY) ## run the tests that need no server and no build
	@$(BIN)/python -m pytest $(PARALLEL) $(WORKERS) -m 'not (nats or opa or spire or idp or pyright or keycloak or image or kubernetes or serial or slow)' $(PYTEST_ARGS)

keycloak-test: $(READY) $(if $(KEYCLOAK_HAS),.tools/keycloak/.ready) ## test with Keycloak, which Maven fetches; skips without java and mvn
	@$(BIN)/python -m pytest -m keycloak $(PYTEST_ARGS) tests/integration

image-test: $(READY) $(TOOLS)/opa ## do each step of the image's Dockerfile as a command here; fetches the locked packages anew (root)
	@$(BIN)/python -m pytest -m image $(PYTEST_ARGS) tests/deploy

kubernetes-test: $(READY) $(TOOLS)/helm ## install, upgrade and drain the chart on the control plane of `make tools-kubernetes`; skips without it
	@$(BIN)/python -m pytest -m kubernetes $(PYTEST_ARGS) tests/deploy

simulate: $(READY) ## run simulated sites for SECONDS (60), SEEDS of them, or one SEED; draw the first that broke a promise. LOSING=1: brokers that lose what they acknowledged; PLANTED: without this safeguard
	@PYTHONPATH=tests $(BIN)/python -m simulation $(if $(filter file,$(origin SEED)),$(if $(SEEDS),--seeds $(SEEDS),--seconds $(if $(filter file,$(origin SECONDS)),60,$(SECONDS))),--seed $(SEED)) $(if $(LOSING),--losing) $(PLANTED:%=--planted %)

fuzz: $(READY) ## fuzz the parsers of bytes from outside for SECONDS (600) together: all, or those of TARGET="messages tokens.proof"; KEEP=1 keeps inputs
	@PYTHONPATH=tests $(BIN)/python -m fuzz.run --seconds $(SECONDS) $(if $(KEEP),--keep) $(TARGET)

policies-hour: $(READY) $(TOOLS)/opa ## generate policies, and calls at the edges, for SECONDS (3600) from SEED (0) on; compare both embedded engines with OPA on each
	@PYTHONPATH=tests $(BIN)/python -m support.engine_differences --seconds $(HOUR) --seed $(SEED)

model-operations: $(READY) ## generate OPERATIONS (20000) on streams of REPLICAS (1, or 3 in a cluster) from SEED (0) on; compare a nats-server with its model
	@PYTHONPATH=tests $(BIN)/python -m support.jetstream_operations --operations $(OPERATIONS) --replicas $(REPLICAS) --seed $(SEED)

removal: $(READY) ## remove each acceptance check in turn; weaken the comparisons changed since BASE (HEAD~1) and a tenth of the others
	@$(BIN)/python scripts/check_removal.py
	@$(BIN)/python scripts/check_weakening.py --since $(BASE)

weaken: $(READY) ## weaken each comparison of the verifying code in turn; one of its tests must fail (some minutes)
	@$(BIN)/python scripts/check_weakening.py

check: $(READY) ## check format, lint, types, import contracts, and names of modules and classes
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-logo --no-cache
	@$(BIN)/python scripts/check_house.py
	@$(BIN)/python scripts/check_weakening.py --listed
	@$(if $(wildcard $(ENGINE_WHEEL)),$(MAKE) --no-print-directory check-engine,echo "native/engine is not checked: make engine has not built it")

format: $(READY) ## format, and fix what can be fixed automatically
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

bench: $(READY) ## print figures with their guards and goals: all, or those of PARTS="gate audit"; RESULTS=1 writes bench/RESULTS.md
	@RECORDS=$(RECORDS) $(BIN)/python -m bench $(if $(RESULTS),--results bench/RESULTS.md) $(PARTS)

COMPILE := $(BIN)/pip-compile --quiet --strip-extras --generate-hashes --no-header --no-emit-index-url --no-emit-trusted-host --no-emit-find-links

lock: ## write the locked requirements for pyproject.toml; packages that are locked already keep their versions
	@test -x $(BIN)/dependency-groups || $(MAKE) setup
	@$(COMPILE) --output-file requirements.txt pyproject.toml
	@$(BIN)/dependency-groups dev | $(COMPILE) --allow-unsafe --output-file requirements-dev.txt requirements.txt -
	@sed -i 's/-r -$$/sealbus (pyproject.toml, dependency group dev)/' requirements-dev.txt
	@$(BIN)/dependency-groups docs | $(COMPILE) --allow-unsafe --constraint requirements-dev.txt --output-file requirements-docs.txt -
	@sed -i -e 's/-r -$$/sealbus (pyproject.toml, dependency group docs)/' -e '/-c requirements-dev.txt$$/d' requirements-docs.txt

clean: ## remove everything that the targets made
	@rm -rf $(VENV) .tools .sealbus .stack .stack.log .soak dist build site .cache .coverage .mypy_cache .ruff_cache .pytest_cache .hypothesis
