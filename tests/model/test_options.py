"""The options of a model are declared once, and what adapters need of it is light."""

import importlib
import inspect
import subprocess
import sys
from dataclasses import MISSING, fields

import pytest

from c2llm_integrations.errors import InputError
from c2llm_integrations.model.embedder import C2LLMEmbedder
from c2llm_integrations.model.options import ModelOptions


def test_from_pretrained_spells_out_the_options():
    spelled = list(inspect.signature(C2LLMEmbedder.from_pretrained).parameters.values())
    declared = [(field.name, field.default) for field in fields(ModelOptions)]
    assert [(one.name, one.default) for one in spelled] == declared
    assert all(default is not MISSING for _, default in declared)


@pytest.mark.parametrize(
    ("module", "name"),
    [("c2llm_integrations.langchain", "C2LLMEmbeddings"), ("c2llm_integrations.llama_index", "C2LLMEmbedding")],
)
def test_a_frameworks_fields_are_the_options(module, name):
    adapter = getattr(importlib.import_module(module), name)
    found = {key: field.default for key, field in adapter.model_fields.items()}
    found["name"] = found.pop("model_name")
    for field in fields(ModelOptions):
        assert found[field.name] == field.default, field.name
    assert ModelOptions.of(adapter()) == ModelOptions()


def test_options_are_comparable_and_plain(tmp_path):
    one = ModelOptions(name=tmp_path, device=["cuda:0", "cuda:1"], head=tmp_path / "head")
    two = ModelOptions(name=str(tmp_path), device="cuda:0,cuda:1", head=str(tmp_path / "head"))
    assert one == two
    assert hash(one) == hash(two)


@pytest.mark.parametrize(
    "given",
    [{"head": "h", "projection": "p"}, {"head": "h", "truncate_dim": 8}, {"projection": "p", "truncate_dim": 8}],
)
def test_one_way_to_the_dimensions_at_most(given):
    with pytest.raises(InputError, match=f"{' and '.join(given)} are given.*choose one"):
        ModelOptions(**given)


@pytest.mark.parametrize("name", ["max_length", "output_dim", "truncate_dim", "batch_tokens"])
def test_numbers_below_one_are_refused(name):
    with pytest.raises(InputError, match=f"{name} is 0, must be at least 1"):
        ModelOptions(**{name: 0})
    for wrong in ("128", 1.5, True):
        with pytest.raises(InputError, match=f"{name} is {wrong!r} .*must be a whole number"):
            ModelOptions(**{name: wrong})


IMPORTED = (
    "import sys, c2llm_integrations.{}; print(*(name for name in ('torch', 'transformers') if name in sys.modules))"
)


@pytest.mark.parametrize(
    "module",
    ["model.shared_model", "model.options", "model.fingerprint", "model.heads_and_projections", "model.prompts"],
)
def test_what_adapters_need_imports_no_torch(module):
    done = subprocess.run([sys.executable, "-c", IMPORTED.format(module)], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


OVER = """
import sys
{framework}
before = set(sys.modules)
import c2llm_integrations.{module}
print(*(name for name in {heavy} if name in set(sys.modules) - before))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("module", "framework"),
    [("langchain", "import langchain_core.retrievers"), ("llama_index", "import llama_index.core")],
)
def test_an_adapter_loads_no_torch_and_no_database(module, framework):
    heavy = ("torch", "transformers", "qdrant_client", "qdrant_edge", "pymilvus")
    code = OVER.format(framework=framework, module=module, heavy=heavy)
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
