"""Milvus Lite's server keeps properties in one file, which two of its threads may write at the same moment."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from c2llm_integrations.stores import open_store
from c2llm_integrations.stores.spec import CollectionSpec
from tests.stores.conftest import empty_milvus


@pytest.fixture
def url(milvus_lite_address):
    yield f"milvus+{milvus_lite_address}"
    empty_milvus(milvus_lite_address)


def test_claims_at_the_same_moment_do_not_fail(url):
    with open_store(url) as one, open_store(url) as other, ThreadPoolExecutor(2) as threads:
        one.create(CollectionSpec(8, {"model": "any"}))

        def claim(store, name):
            for number in range(20):
                store.claim(f"{name}{number}", "checkout")

        for done in [threads.submit(claim, one, "a"), threads.submit(claim, other, "b")]:
            done.result()
        assert {f"{name}{number}" for name in "ab" for number in range(20)} == one.claims().keys()
