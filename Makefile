# make demo    install into .venv, index a real repository, answer three questions about it
# make test    the same .venv with the test tools: lint, type-check, test
# make test-stress    kills and faults many times over
# make test-cluster    the distributed run on two Ray nodes of this machine, with processes killed under it
# make test-llama-milvus    what needs an older pymilvus, in an environment of its own
# make lint | bench | clean
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
INSTALL := $(BIN)/python -m pip install --quiet --disable-pip-version-check -c $(CONSTRAINTS)
OLDER := $(VENV)-llama-milvus
# networkx is there already, because PyTorch needs it: 580 files of Python by many hands.
FIND_DEMO := import importlib.util as u; print(*u.find_spec("networkx").submodule_search_locations)

.PHONY: demo test test-stress test-cluster test-llama-milvus lint bench clean
.DELETE_ON_ERROR:

demo: $(VENV)/.installed
	@folder="$$($(BIN)/python -c '$(FIND_DEMO)')" && store="qdrant+edge://$$folder/.c2llm" && \
	echo "> c2llm index $$folder" && $(BIN)/c2llm index "$$folder" && \
	for question in "how is PageRank computed?" "find communities by maximising modularity" \
	"detect whether a directed graph has a cycle"; do \
	printf '\n> c2llm search "%s"\n' "$$question"; \
	$(BIN)/c2llm search "$$question" --store "$$store" --limit 3 || exit 1; done

test: lint
	$(BIN)/pytest

# Fifty kills where a plain run has five, and the whole contract on the Milvus server.
test-stress: $(VENV)/.installed-test
	C2LLM_KILLS=50 C2LLM_STRESS=1 $(BIN)/pytest tests/stores tests/test_ingest_killed.py tests/test_ingest_faults.py

# pyproject.toml leaves these out of a plain run, which would take much longer with them.
test-cluster: $(VENV)/.installed-test
	$(BIN)/pytest tests/cluster

test-llama-milvus: $(OLDER)/constraints.txt
	@$(MAKE) --no-print-directory VENV=$(OLDER) CONSTRAINTS=$< $(OLDER)/.installed-older
	$(OLDER)/bin/pytest tests/llama_milvus tests/stores -k milvus

lint: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

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
	rm -rf $(VENV) $(OLDER) build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis

# The registry this machine is set up for may have the build already, so it is asked first.
$(VENV)/.installed: pyproject.toml $(CONSTRAINTS)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || \
	{ echo "$(PYTHON) is not Python 3.10 or newer; name another: make PYTHON=python3.12"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(INSTALL) setuptools "$(TORCH)" 2>/dev/null || \
	$(INSTALL) setuptools "$(TORCH)" $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) || \
	{ echo "$(TORCH) could not be installed; name another TORCH_INDEX=, or none to take the default build"; exit 1; }
	$(INSTALL) --no-build-isolation -e .
	@touch $@

$(VENV)/.installed-test: $(VENV)/.installed
	$(INSTALL) --no-build-isolation -e '.[test]'
	@touch $@

$(OLDER)/constraints.txt: constraints.txt
	@mkdir -p $(@D)
	sed '/^pymilvus==/d' $< > $@

$(VENV)/.installed-older: $(VENV)/.installed tests/llama_milvus/requirements.txt
	$(INSTALL) --no-build-isolation -r tests/llama_milvus/requirements.txt -e '.[qdrant,milvus,llama-index]'
	@touch $@
