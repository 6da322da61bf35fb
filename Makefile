# Two commands: `make demo` and `make test`. Both make .venv when it is missing; neither needs python3 to be recent.
.DEFAULT_GOAL := help
.PHONY: demo test check install system parity golden plans help

demo:     ## run configs/quickstart.py from corpus to report, and complete code at a cursor
	@bash .ci/install data
	@GLIBC_TUNABLES=glibc.malloc.hugetlb=1 .venv/bin/codelm run configs/quickstart.py
	@echo; echo "codelm complete runs/quickstart --file codelm/errors.py --cursor 12:12"
	@.venv/bin/codelm complete runs/quickstart --file codelm/errors.py --cursor 12:12 --max_new_tokens 24 --stats

test:     ## run the tests
	@bash .ci/install dev
	@.venv/bin/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check:    ## ruff, types, import rule
	@bash .ci/install dev
	@.venv/bin/ruff check .
	@.venv/bin/ruff format --check .
	@.venv/bin/pyrefly check
	@.venv/bin/lint-imports

install:  ## add extras: make install EXTRAS="tpu dev"
	@bash .ci/install $(EXTRAS)

system:   ## Debian packages: bubblewrap for the sandbox, chromium for the tests of pages
	@bash .ci/system

parity:   ## our logits against transformers', for every model family
	@bash .ci/install
	@.venv/bin/python -m experiments.parity

golden:   ## rewrite the snapshots of the shipped configs (look at the diff)
	@bash .ci/install dev
	@.venv/bin/python -m tests.golden.make_configs

plans:    ## compile what has changed for the topologies of the shipped configs, and keep the figures (extra tpu)
	@bash .ci/install dev tpu
	@.venv/bin/python -m tests.golden.make_plans

help:     ## this list
	@grep -E '^[a-z]+: +##' Makefile | sed -E 's/: +## */\t/' | expand -t 10
