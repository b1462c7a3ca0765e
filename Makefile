# make demo    install into .venv, index a real repository, answer three questions about it
# make test    the same .venv with the test tools: lint, type-check, test
# make test-fast    lint, types and the quick tests: within 90 seconds on two cores
# make test-stress    kills and faults many times over, and every row of the benchmarks in small
# make test-cluster    the distributed run on two Ray nodes of this machine, with processes killed under it
# make test-llama-milvus    what needs an older pymilvus, in an environment of its own
# make test-vllm    C2LLM on vLLM's CPU build, in an environment of its own; Linux
# make test-onnx    exported models in ONNX Runtime, OpenVINO, FastEmbed and, where there is npm, transformers.js
# make packages    langchain-c2llm and LlamaIndex's two as wheels in dist/, without a network
# make docs    the site of docs/ in site/, without a network
# make reference    docs/cli.md and docs/api.md anew from the code
# make lint | bench | clean | help
#
# PYTHON        3.10 to 3.13
# TORCH_INDEX   where PyTorch's wheels come from; its last part names the build. Unset, it is the CPU build on
#               Linux without an NVIDIA GPU, where plain torch brings gigabytes of CUDA, and plain torch elsewhere.

PYTHON ?= python3
VENV ?= .venv
ifeq ($(shell uname -s)$(shell command -v nvidia-smi 2>/dev/null),Linux)
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
endif

CONSTRAINTS ?= constraints.txt
TORCH := $(shell sed -n '/^torch==/p' constraints.txt)$(if $(TORCH_INDEX),+$(notdir $(TORCH_INDEX:/=)))
BIN := $(VENV)/bin
# Most of what is installed is never imported: Python compiles what is.
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-compile -c $(CONSTRAINTS)
OLDER := $(VENV)-llama-milvus
VLLM := $(VENV)-vllm
READERS := $(VENV)-onnx
# networkx is there already, because PyTorch needs it: 580 files of Python by many hands.
FIND_DEMO := import importlib.util as u; print(*u.find_spec("networkx").submodule_search_locations)

.DEFAULT_GOAL := help
.PHONY: help demo test test-fast test-fast-code test-fast-stores test-fast-runs test-stress test-cluster
.PHONY: test-llama-milvus test-vllm test-onnx lint packages docs reference bench clean
.DELETE_ON_ERROR:

help:
	@sed -n 's/^# \(make .*\)/\1/p' $(firstword $(MAKEFILE_LIST))

demo: $(VENV)/.installed
	@folder="$$($(BIN)/python -c '$(FIND_DEMO)')" && store="qdrant+edge://$$folder/.c2llm" && \
	echo "> c2llm index $$folder" && $(BIN)/c2llm index "$$folder" && \
	for question in "how is PageRank computed?" "find communities by maximising modularity" \
	"detect whether a directed graph has a cycle"; do \
	printf '\n> c2llm search "%s"\n' "$$question"; \
	$(BIN)/c2llm search "$$question" --store "$$store" --limit 3 || exit 1; done

# Three processes on two cores, because many tests wait for a command or a server; a database server serves the tests of
# one of them.
test: lint
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 3 --dist loadgroup

# What needs neither a server nor seconds, on two cores; and nothing whose libraries take longer to import than its
# quick tests to run: the folders that are not named here.
QUICK = $(BIN)/pytest -q -m "not (slow or server or stress or gpu)"

test-fast: $(VENV)/.installed-test
	@$(MAKE) --no-print-directory -j2 --output-sync=target test-fast-stores lint test-fast-code test-fast-runs

test-fast-code: $(VENV)/.installed-test
	$(QUICK) tests/_utils tests/code tests/retrieval tests/test_*.py

test-fast-stores: $(VENV)/.installed-test
	$(QUICK) tests/model tests/stores

test-fast-runs: $(VENV)/.installed-test
	$(QUICK) tests/cli tests/indexing

# Fifty kills where a plain run has five, and the whole contract on the Milvus server.
test-stress: $(VENV)/.installed-test
	C2LLM_KILLS=50 $(BIN)/pytest -m "" tests/stores tests/indexing/test_ingest_killed.py tests/indexing/test_ingest_faults.py
	$(BIN)/pytest -m "" tests/benchmarks

# pyproject.toml leaves these out of a plain run, which would take much longer with them.
test-cluster: $(VENV)/.installed-test
	$(BIN)/pytest tests/cluster

test-llama-milvus: $(OLDER)/constraints.txt
	@$(MAKE) --no-print-directory VENV=$(OLDER) CONSTRAINTS=$< $(OLDER)/.installed-older
	OMP_NUM_THREADS=1 $(OLDER)/bin/pytest -n 2 --dist loadgroup tests/llama_milvus tests/stores -k milvus

# vLLM pins versions that the rest of the tests are ahead of, so constraints.txt does not hold there.
test-vllm:
	@$(MAKE) --no-print-directory VENV=$(VLLM) CONSTRAINTS=tests/vllm/requirements.txt $(VLLM)/.installed-vllm
	$(VLLM)/bin/pytest tests/vllm

# FastEmbed wants an older huggingface_hub than the rest, and reads what is exported without any of it.
test-onnx: $(VENV)/.installed-onnx $(READERS)/constraints.txt
	@$(MAKE) --no-print-directory VENV=$(READERS) CONSTRAINTS=$(READERS)/constraints.txt $(READERS)/.installed-readers
	C2LLM_ONNX_READERS=$(READERS) $(BIN)/pytest tests/onnx

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

packages: $(VENV)/.installed-test
	$(BIN)/python packages/build.py dist

docs: $(VENV)/.installed-docs
	$(BIN)/python -m mkdocs build --quiet
	@echo "open site/index.html"

reference: $(VENV)/.installed-test
	$(BIN)/python docs/reference.py

bench: $(VENV)/.installed-test
	$(BIN)/python -m benchmarks.docstring_retrieval
	$(BIN)/python -m benchmarks.main_job
	$(BIN)/python -m benchmarks.embedder_speed
	$(BIN)/python -m benchmarks.memory
	$(BIN)/python -m benchmarks.frameworks
	$(BIN)/python -m benchmarks.repository_search
	$(BIN)/python -m benchmarks.compact_vectors
	$(BIN)/python -m benchmarks.output_dimensions
	$(BIN)/python -m benchmarks.head_cost
	$(BIN)/python -m benchmarks.load_speed
	$(BIN)/python -m benchmarks.milvus_load
	$(BIN)/python -m benchmarks.agents
	$(BIN)/python -m benchmarks.distributed

clean:
	rm -rf site $(VENV) $(OLDER) $(VLLM) $(READERS) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

# pip that comes with Python 3.11 takes minutes where today's takes seconds. The registry this machine is set up for may
# have PyTorch's build already, so it is asked first.
$(VENV)/.installed-torch: pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	{ echo "$(PYTHON) is not Python 3.10 or newer; name another: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --upgrade pip
	$(INSTALL) setuptools "$(TORCH)" 2>/dev/null || \
	$(INSTALL) setuptools "$(TORCH)" $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) || \
	{ echo "$(TORCH) could not be installed; name another TORCH_INDEX=, or none to take the default build"; exit 1; }
	@touch $@

$(VENV)/.installed: $(VENV)/.installed-torch
	$(INSTALL) --no-build-isolation -e .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed-torch
	$(INSTALL) --no-build-isolation -e '.[test]'
	@touch $(VENV)/.installed $@

$(VENV)/.installed-onnx: $(VENV)/.installed-test
	$(INSTALL) --no-build-isolation -e '.[onnx]' openvino
	@touch $@

$(VENV)/.installed-docs: $(VENV)/.installed
	$(INSTALL) --no-build-isolation -e '.[docs]'
	@touch $@

$(OLDER)/constraints.txt: constraints.txt
	@mkdir -p $(@D)
	sed '/^pymilvus==/d' $< > $@

$(READERS)/constraints.txt: constraints.txt
	@mkdir -p $(@D)
	sed '/^huggingface_hub==/d' $< > $@

$(VENV)/.installed-readers: $(CONSTRAINTS)
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) --upgrade pip
	$(INSTALL) fastembed
	! command -v npm || npm install --silent --no-audit --no-fund --no-save --no-package-lock --ignore-scripts \
	--prefix $(VENV) @huggingface/transformers@4.3.2
	@touch $@

$(VENV)/.installed-older: $(VENV)/.installed-torch tests/llama_milvus/requirements.txt
	$(INSTALL) --no-build-isolation -r tests/llama_milvus/requirements.txt -e '.[qdrant,milvus,llama-index]'
	@touch $@

# Its neighbors are built for another PyTorch than the CPU build, and only pictures, sound and video need them.
$(VENV)/.installed-vllm: $(VENV)/.installed-torch tests/vllm/requirements.txt
	$(INSTALL) --no-build-isolation -r tests/vllm/requirements.txt -e .
	$(BIN)/python -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@
