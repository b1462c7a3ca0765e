"""`c2llm plan` on a real collection."""

import json

import numpy as np
import pytest

from c2llm_integrations.cli.main import run
from c2llm_integrations.stores import open_store
from c2llm_integrations.stores.records import Record, Row
from c2llm_integrations.stores.spec import CollectionSpec
from tests.cli.running import complaint

pytestmark = pytest.mark.slow


@pytest.fixture
def url(tmp_path):
    vectors = np.random.default_rng(0).standard_normal((300, 32)).astype(np.float32)
    url = f"qdrant+edge://{tmp_path}/store"
    with open_store(url) as store:
        store.create(CollectionSpec(32, {}))
        store.upsert([Row(Record(number, "x", {}, "s"), vector) for number, vector in enumerate(vectors)])
    return url


def test_a_plan_is_recommended(url, capsys):
    assert run(["plan", "--store", url, "--rows", "1M", "--budget", "1GB", "--recall", "0.9", "--json"]) == 0
    printed, said = capsys.readouterr()
    rows = json.loads(printed)
    good = min((row for row in rows if row["recall"] >= 0.9), key=lambda row: row["bytes"])
    assert f"--datatype {good['datatype']}" in said
    assert good["bytes"] == good["bytes_per_vector"] * 1_000_000
    assert rows[0] | {"recall": 1.0} == rows[0]


def test_a_collection_that_is_not_there_is_named(tmp_path, url, capsys):
    options = ("--rows", "1M", "--budget", "1GB")
    assert "nothing is indexed" in complaint(capsys, 1, "plan", "--store", f"qdrant+edge://{tmp_path}/none", *options)
    assert "holds no collection 'other'" in complaint(
        capsys, 1, "plan", "--store", url, "--collection", "other", *options
    )


@pytest.mark.parametrize(("rows", "budget"), [("many", "1GB"), ("1M", "-1"), ("1M", "2 bytes")])
def test_what_is_not_a_number_is_refused(url, capsys, rows, budget):
    assert run(["plan", "--store", url, "--rows", rows, "--budget", budget]) == 2
    assert "is not a number such as 10M or 2GB" in capsys.readouterr().err
