"""What is stored leads back to the options of a model, and what earlier releases stored does too."""

import pytest

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
