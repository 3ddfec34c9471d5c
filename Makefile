# What a fresh Debian 12 or 13 machine needs is root, git, make and python3 (3.11 or later).
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest

.PHONY: cluster test check node-image slurm-image hpcc-image stream-image integration e2e test-fresh vm-test upstream-test update-test soak bench clean
.DELETE_ON_ERROR:

cluster: ## a cluster of two nodes, and the command sykube on root's PATH
	VENV=$(VENV) scripts/provision

# What they show is of one Kubernetes, the same with and without a network.
node-image integration e2e vm-test upstream-test update-test soak bench: export SYKUBE_SOURCE = debian

test: check node-image integration e2e ## every test, among them a real cluster from nothing

# pytest writes asserts anew; where it may keep the result, the next run begins seconds earlier.
# Twice as many workers as cores: some tests wait for time to pass.
check: $(VENV)/installed-dev ## lint, types and unit tests, without root
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	scripts/check-shell $(BIN)/shellcheck
	scripts/check-runtime
	env -u PYTHONDONTWRITEBYTECODE $(PYTEST) tests/unit -q -n 4

node-image: $(VENV)/installed ## installs what the host lacks and builds the image, unless it is cached
	$(BIN)/sykube node-image build --yes

slurm-image: $(VENV)/installed ## the image of `sykube slurm`, unless it is cached
	$(BIN)/sykube slurm image --yes

hpcc-image: $(VENV)/installed ## the image of `sykube bench hpcc`, unless it is cached
	$(BIN)/sykube bench image --yes

stream-image: $(VENV)/installed ## the image of `sykube bench stream`, unless it is cached
	$(BIN)/sykube bench image stream --yes

integration: $(VENV)/installed-dev
	scripts/test-packages
	$(PYTEST) tests/integration -q

e2e: $(VENV)/installed-dev slurm-image stream-image ## real clusters (SYKUBE_TEST_RELEASE=DIR: of a release, see docs)
	scripts/test-packages
	$(BIN)/python -m tests.e2e

test-fresh: $(VENV)/installed-dev ## in fresh Debian roots, the README's commands and Vagrant's (SUITES="bookworm trixie vagrant")
	$(BIN)/python -m tests.fresh $(SUITES)

# With SYKUBE_TEST_RELEASE=DIR they make their own image: docs/testing-releases.md.
vm-test upstream-test: $(if $(SYKUBE_TEST_RELEASE),,node-image)

vm-test: $(VENV)/installed-dev ## systemd and cgroup v2: root's and a user's nodes in a Debian 13 guest
	$(BIN)/python -m tests.vm
	$(BIN)/python -m tests.vm users

update-test: $(VENV)/installed-dev ## a newer Kubernetes under load, and one that does not come up
	$(BIN)/python -m tests.update

upstream-test: $(VENV)/installed-dev ## a cluster of --source upstream, from a mirror on loopback
	scripts/test-packages
	$(PYTEST) tests/upstream -v

soak: $(VENV)/installed-dev slurm-image hpcc-image stream-image ## what takes longer than CI has (SEED=N repeats the random moments of a run)
	$(BIN)/python -m tests.soak $(if $(SEED),--seed $(SEED))
	$(BIN)/python -m tests.e2e --long
	$(MAKE) upstream-test
	$(BIN)/python -m tests.vm runtimes
	$(BIN)/python -m tests.fresh
	$(BIN)/python -m tests.update
	$(BIN)/python -m tests.user_image

# The last one fails as long as loading a SIF takes longer than is asked (docs/benchmarks.md).
bench: $(VENV)/installed-dev slurm-image hpcc-image stream-image
	scripts/test-packages
	$(BIN)/python -m benchmarks.init
	$(BIN)/python -m benchmarks.init --control-planes 3 --workers 2 --pairs 2
	$(BIN)/python -m benchmarks.workers
	$(BIN)/python -m benchmarks.rootless
	$(BIN)/python -m benchmarks.network
	$(BIN)/python -m benchmarks.profile
	$(BIN)/python -m benchmarks.idle
	$(BIN)/python -m benchmarks.lifecycle
	$(BIN)/python -m benchmarks.network_policy
	$(BIN)/python -m benchmarks.images
	$(BIN)/python -m benchmarks.runtimes
	$(BIN)/python -m benchmarks.container_cost
	$(BIN)/python -m benchmarks.slurm
	$(BIN)/python -m benchmarks.slurm --ranks 2 --pods 2 --runtime runc --runtime crun --runtime apptainer
	$(BIN)/python -m benchmarks.sif

$(VENV)/installed: pyproject.toml scripts/make-venv
	scripts/make-venv $(VENV) .
	touch $@

$(VENV)/installed-dev: $(VENV)/installed
	scripts/make-venv $(VENV) '.[dev]'
	touch $@

clean:
	rm -rf $(VENV)
