"""What a Qdrant server adds to the contract: keys, its limits, its version. Over REST, on the real engine."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from c2llm_integrations.code.chunk import CodeChunk, chunk_id
from c2llm_integrations.errors import RowsRefused, StoreError
from c2llm_integrations.stores import open_store
from c2llm_integrations.stores.base import CollectionSpec, Row
from tests.stores.qdrant_facade import serve

KEY = "s3cret-key"


@pytest.fixture(autouse=True)
def _over_plain_http() -> Any:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Api key is used with an insecure connection")
        yield


@pytest.mark.parametrize("source", ["argument", "environment"])
def test_the_key_is_sent_and_never_shown(
    tmp_path: Path, source: str, spec: CollectionSpec, monkeypatch: pytest.MonkeyPatch, capfd: Any, caplog: Any
) -> None:
    if source == "environment":
        monkeypatch.setenv("QDRANT_API_KEY", f"{KEY}\n")
    argument = KEY if source == "argument" else None
    with serve(tmp_path, key=KEY) as address, open_store(f"qdrant+{address}", api_key=argument) as store:
        store.create(spec)
        with open_store(f"qdrant+{address}", api_key=KEY) as other:
            other.drop()
        with pytest.raises(StoreError) as caught:
            store.optimize()
        shown = f"{store!r} {store.url} {vars(store)} {caught.value}"
    assert KEY not in shown + caplog.text + "".join(capfd.readouterr())


@pytest.mark.parametrize("key", [None, "another-s3cret"])
def test_a_refused_key_is_one_line_without_it(tmp_path: Path, key: str | None) -> None:
    with (
        serve(tmp_path, key=KEY) as address,
        pytest.raises(StoreError, match=r"401 \(Unauthorized\).*the key right") as caught,
    ):
        open_store(f"qdrant+{address}", api_key=key)
    assert "s3cret" not in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_server_that_is_not_there_is_named() -> None:
    with pytest.raises(StoreError, match=r"qdrant\+http://127\.0\.0\.1:9 cannot be opened: .*refused"):
        open_store("qdrant+http://127.0.0.1:9")


def test_a_server_that_would_lose_the_spec_is_refused(tmp_path: Path) -> None:
    with serve(tmp_path, version="1.15.5") as address, pytest.raises(StoreError, match=r"1\.15\.5.*update it to 1\.16"):
        open_store(f"qdrant+{address}")


def test_wide_vectors_stay_under_the_limit_of_a_request(tmp_path: Path) -> None:
    rng, width = np.random.default_rng(0), 3_584
    chunks = [CodeChunk(chunk_id("r", "p", "t", i), "r", "p", "", "", "", 1, 1, "t") for i in range(600)]
    rows = [Row(chunk, rng.standard_normal(width).astype(np.float32)) for chunk in chunks]  # 44 MB as JSON
    with serve(tmp_path) as address, open_store(f"qdrant+{address}") as store:
        store.create(CollectionSpec(width, {}))
        store.upsert(rows)
        assert len(store.vectors([chunk.id for chunk in chunks])) == store.count() == 600


def test_a_text_over_the_limit_of_a_request_is_refused_by_name(tmp_path: Path, make_row: Any) -> None:
    fits, over = make_row(text="\x01" * (4 * 2**20)), make_row(text="x" * (4 * 2**20 + 1))
    with serve(tmp_path) as address, open_store(f"qdrant+{address}") as store:
        store.create(CollectionSpec(16, {}))
        store.upsert([fits])  # 24 MiB as JSON
        with pytest.raises(RowsRefused, match="text has 4194305 bytes, the store takes 4194304"):
            store.upsert([over])
        assert store.count() == 1
