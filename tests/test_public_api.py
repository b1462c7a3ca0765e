"""The names that users rely on, and what importing them costs."""

import importlib
import pickle
import subprocess
import sys

import pytest

import c2llm_integrations
from c2llm_integrations.errors import MissingExtra, RowsRefused

NAMES = {
    "BatchRefused",
    "C2LLMEmbedder",
    "C2LLMError",
    "CheckpointError",
    "CodeChunk",
    "CollectionSpec",
    "CompactPlan",
    "Filter",
    "Hit",
    "IngestReport",
    "InputError",
    "Layout",
    "MissingExtra",
    "Record",
    "RecordsReport",
    "RepositoryError",
    "Row",
    "RowsRefused",
    "ServerError",
    "SpecMismatch",
    "StoreBusy",
    "StoreError",
    "VectorStore",
    "ingest",
    "ingest_records",
    "load",
    "open_store",
    "search",
}

HEAVY = ("torch", "transformers", "numpy", "qdrant_edge", "qdrant_client", "tree_sitter", "rich.console")


def loaded_by(code: str) -> set[str]:
    """Return which heavy packages a fresh interpreter has loaded after `code`."""
    report = f"import sys\n{code}\nprint(*[m for m in {HEAVY!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", report], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


def test_exactly_these_names_are_public():
    assert set(c2llm_integrations.__all__) == NAMES


@pytest.mark.parametrize("name", sorted(NAMES))
def test_every_public_name_loads_and_is_documented(name):
    value = getattr(c2llm_integrations, name)
    assert value.__name__ == name
    assert value.__doc__
    assert name in dir(c2llm_integrations)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = c2llm_integrations.nonsense


@pytest.mark.parametrize(
    ("facade", "others"), [("qdrant", {"MeasuredPlan", "choose_plan", "measure_plans"}), ("milvus", set())]
)
def test_a_facade_names_the_stores_of_its_database(facade, others):
    module = importlib.import_module(f"c2llm_integrations.{facade}")
    stores = set(module.__all__) - others
    assert len(stores) == len(module.__all__) - len(others) == 3
    assert all(issubclass(getattr(module, name), c2llm_integrations.VectorStore) for name in stores)


def test_what_a_user_needs_of_ray_stands_in_one_place():
    pytest.importorskip("ray")
    module = importlib.import_module("c2llm_integrations.indexing.ray")
    assert [getattr(module, name).__name__ for name in module.__all__] == ["Cluster", "RayEmbedder"]
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        _ = module.nonsense
    assert loaded_by("import c2llm_integrations.indexing.ray") == set()


def test_importing_the_package_loads_nothing_heavy():
    assert loaded_by("import c2llm_integrations") == set()


def test_importing_the_errors_and_the_command_line_loads_nothing_heavy():
    assert loaded_by("from c2llm_integrations import C2LLMError") == set()
    assert loaded_by("import c2llm_integrations.cli.main") == set()


@pytest.mark.parametrize("error", [MissingExtra("qdrant-client", "qdrant"), RowsRefused({3: ("a", "too long")})])
def test_errors_cross_processes_whole(error):
    there = pickle.loads(pickle.dumps(error))
    assert (type(there), str(there), vars(there)) == (type(error), str(error), vars(error))
