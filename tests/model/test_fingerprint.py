"""What is stored leads back to the options of a model, and what earlier releases stored does too."""

import shutil

import pytest

from c2llm_integrations.errors import InputError
from c2llm_integrations.model.checkpoint import NANO
from c2llm_integrations.model.embedder import C2LLMEmbedder
from c2llm_integrations.model.fingerprint import current_fingerprint, options_of
from c2llm_integrations.stores.spec import CollectionSpec
from tests.golden import TIED

DIGEST = "0123456789abcdef" * 2


@pytest.mark.parametrize(
    ("written", "read"),
    [
        (None, {"projection": None}),
        (DIGEST, {"projection": DIGEST}),
        (f"head {DIGEST}", {"projection": None, "head": DIGEST}),
        ("first 16", {"projection": None, "truncate_dim": 16}),
        ("first of all", {"projection": "first of all"}),
    ],
)
def test_an_old_fingerprint_equals_the_new_one(written, read):
    others = {"model": "nano", "weights": "w", "output_dim": 16, "max_length": 9, "normalize": True}
    assert current_fingerprint({**others, "projection": written}) == {**others, **read}
    old = CollectionSpec.from_json(CollectionSpec(16, {**others, "projection": written}).to_json())
    old.require_model(16, {**others, **read})


def test_a_truncated_collection_of_an_earlier_release_opens():
    small = C2LLMEmbedder.from_pretrained(str(TIED), dtype="float32", truncate_dim=16)
    old = {key: value for key, value in small.fingerprint.items() if key != "truncate_dim"} | {"projection": "first 16"}
    assert options_of(old) == options_of(small.fingerprint)
    CollectionSpec(16, old).require_model(16, small.fingerprint)


def test_a_folder_called_like_the_model_of_an_index_is_not_taken_for_it(tmp_path, monkeypatch):
    """A checkout may bring both an index that names a known hub id and a folder of that name."""
    monkeypatch.chdir(tmp_path)
    fingerprint = {**C2LLMEmbedder.from_pretrained("nano").fingerprint, "model": "codefuse-ai/C2LLM-0.5B"}
    assert options_of(fingerprint).name == "codefuse-ai/C2LLM-0.5B"
    shutil.copytree(NANO, tmp_path / "codefuse-ai" / "C2LLM-0.5B")
    with pytest.raises(InputError, match=r"names the model 'codefuse-ai/C2LLM-0.5B', and .* may be another one"):
        options_of(fingerprint)
    assert options_of(fingerprint, is_named=True).name == "codefuse-ai/C2LLM-0.5B"
    assert options_of({**fingerprint, "model": str(tmp_path / "codefuse-ai" / "C2LLM-0.5B")}).name.startswith("/")
