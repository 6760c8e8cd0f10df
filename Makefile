# make quickstart   train a teacher and students on a made-up corpus; a table at the end
# make test         the tests
# The first of either makes .venv; nothing else on the machine is changed.

SHELL := /bin/bash
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UPSTREAM := .venv-upstream
# Two processes at most: each takes one core, and so do the trainings that it waits for.
IN_PARALLEL = -n $$(($$(getconf _NPROCESSORS_ONLN) < 2 ? 1 : 2)) --dist loadfile --no-loadscope-reorder

# Another PYTHON on the command line than that of the environment makes it anew.
ifeq ($(origin PYTHON),command line)
ifneq ($(shell $(PYTHON) --version),$(shell $(BIN)/python --version 2>/dev/null))
OTHER_PYTHON := other-python
endif
endif

export PIP_DISABLE_PIP_VERSION_CHECK := 1

.PHONY: quickstart test lint format flags test-upstream clean other-python

quickstart: $(VENV)/.installed
	PATH="$(abspath $(BIN)):$$PATH" bash examples/quickstart.sh

test: $(VENV)/.installed
	$(BIN)/python -m pytest $(IN_PARALLEL)

lint: $(VENV)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

# What is generated: the page of all flags, and the help of the subcommands.
flags: $(VENV)/.installed
	$(BIN)/fairseq-seqkd flags --markdown > docs/flags.md.new
	mv docs/flags.md.new docs/flags.md
	$(BIN)/python -m fairseq_seqkd.cli.help

format: $(VENV)/.installed
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

# fairseq-fixed is compiled against the torch that is there (--no-build-isolation, some
# minutes), and without its dependencies: torchaudio would bring a second torch.
$(VENV)/.installed: setup.py Makefile .ci/constraints.txt $(OTHER_PYTHON)
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { \
	    echo "Python 3.11, 3.12 or 3.13 is needed, $$($(PYTHON) --version) found: make PYTHON=..."; \
	    echo "(with Python 3.10 and upstream fairseq: see the README)"; exit 1; }
	@$(PYTHON) -c 'import ensurepip, os, sysconfig; os.stat(sysconfig.get_path("include") + "/Python.h")' && \
	    command -v c++ >/dev/null || { \
	    echo "fairseq is compiled: Python with venv and its headers, and a C++ compiler are needed"; \
	    echo "(Debian, Ubuntu: apt install python3-venv python3-dev g++)"; exit 1; }
	@echo "Making $(VENV), once. First torch and the other packages (some minutes, by the network) ..."
	@test "$$($(BIN)/python --version 2>&1)" = "$$($(PYTHON) --version)" || \
	    $(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/pip install --quiet -c .ci/constraints.txt torch numpy cython setuptools wheel \
	    bitarray cffi ctranslate2 hydra-core jinja2 matplotlib omegaconf regex sacrebleu sacremoses safetensors \
	    scikit-learn sentencepiece subword-nmt tabulate tqdm zstandard hypothesis pytest pytest-xdist ruff
	@echo "Compiling fairseq against this torch: three to five minutes on two cores, once ..."
	@(while sleep 30; do echo "  still compiling"; done) & ticker=$$!; \
	    $(BIN)/pip install --quiet -c .ci/constraints.txt --no-build-isolation --no-deps \
	    fairseq-fixed; status=$$?; kill $$ticker; exit $$status
	@$(BIN)/pip install --quiet --no-build-isolation --no-deps -e .
	@touch $@

# The same tests on upstream's last release. pyenv's versions are looked at as well.
PYTHON310 ?= $(firstword $(foreach p,$(wildcard $(HOME)/.pyenv/versions/3.10*/bin/python3.10) python3.10,$(shell $(p) -c 'print("$(p)")' 2>/dev/null)))

test-upstream: $(UPSTREAM)/.installed
	$(UPSTREAM)/bin/python -m pytest $(IN_PARALLEL)

$(UPSTREAM)/.installed: setup.py .ci/constraints-upstream.txt
	@test -n "$(PYTHON310)" || { echo "Python 3.10 is needed: make test-upstream PYTHON310=..."; exit 1; }
	$(PYTHON310) -m venv $(UPSTREAM)
	$(UPSTREAM)/bin/pip install --quiet -c .ci/constraints-upstream.txt pip setuptools wheel
	$(UPSTREAM)/bin/pip install --quiet -c .ci/constraints-upstream.txt torch numpy cython
	$(UPSTREAM)/bin/pip install --quiet -c .ci/constraints-upstream.txt fairseq \
	    jinja2 matplotlib sacrebleu sacremoses safetensors sentencepiece subword-nmt tabulate tqdm \
	    zstandard hypothesis pytest pytest-xdist
	$(UPSTREAM)/bin/pip install --quiet --no-build-isolation --no-deps -e .
	touch $@

clean:
	rm -rf $(VENV) $(UPSTREAM) work
