"""The options of a run: declared once, spelled out by `ingest` for editors, passed on as one object."""

import dataclasses
import inspect
import subprocess
import sys

import pytest

from c2llm_integrations.indexing.ingest import ingest
from c2llm_integrations.indexing.ingest_records import ingest_records
from c2llm_integrations.indexing.options import IngestOptions, RecordOptions


@pytest.mark.parametrize(("verb", "options"), [(ingest, IngestOptions), (ingest_records, RecordOptions)])
def test_a_verb_spells_out_each_option_with_its_default(verb, options):
    declared = {field.name: field.default for field in dataclasses.fields(options)}
    parameters = inspect.signature(verb).parameters.values()
    spelled = {one.name: one.default for one in parameters if one.kind is one.KEYWORD_ONLY and one.name != "source"}
    assert spelled == declared


def test_options_are_frozen_and_keyword_only():
    with pytest.raises(dataclasses.FrozenInstanceError):
        IngestOptions().force = True
    with pytest.raises(TypeError):
        IngestOptions("name")


def test_naming_options_loads_neither_torch_nor_a_store():
    code = (
        "import sys; from c2llm_integrations.indexing.options import IngestOptions; "
        "print(sorted({'torch', 'numpy', 'c2llm_integrations.stores'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
