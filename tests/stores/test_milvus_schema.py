"""What each kind of Milvus is told apart by, and what a collection is made of there."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2llm_integrations.code.chunk import CodeChunk
from c2llm_integrations.code.lexical_terms import ANALYZER
from c2llm_integrations.errors import StoreError
from c2llm_integrations.stores.milvus.schema import (
    MAX_VARCHAR_BYTES,
    Server,
    entities_of,
    indexes_of,
    schema_of,
    search_params_of,
    vector_from,
)
from c2llm_integrations.stores.spec import CollectionSpec

pytestmark = pytest.mark.slow

SPEC = CollectionSpec(256, {})
LITE, OLD, NEW = Server("lite", (3, 2)), Server("server", (2, 3)), Server("server", (2, 6))
CLOUD = Server("cloud", (2, 6))
CHUNK = CodeChunk("3f6b7a52-5d0e-5b43-9f0c-6a1c2a9d7e11", "repo", "a.py", "python", "f", "function", 1, 2, "x = 1\n")


@pytest.mark.parametrize(
    ("version", "server"),
    [
        ("milvus_lite-3.2.2", LITE),
        ("v2.3.5-lite", OLD),
        ("2.6.13", NEW),
        ("v2.5.4-dev", Server("server", (2, 5))),
        ("Zilliz Cloud Vector Database(Compatible with Milvus 2.6)", CLOUD),
        ("", Server("server", (0, 0))),
    ],
)
def test_a_server_is_known_by_its_version(version: str, server: Server) -> None:
    assert Server.of(version) == server


def test_zilliz_cloud_is_known_by_its_address() -> None:
    assert Server.of("2.6.1", "https://in03-x.api.gcp-us-west1.zillizcloud.com:443") == CLOUD


@pytest.mark.parametrize(
    ("server", "datatypes", "quantizations", "lexical", "uploads"),
    [
        (LITE, {"float32"}, {"int8"}, True, 1),
        (OLD, {"float32"}, {"int8", "product"}, False, 4),
        (Server("server", (2, 5)), {"float32", "float16"}, {"int8", "product"}, True, 4),
        (NEW, {"float32", "float16"}, {"int8", "product", "rabitq"}, True, 4),
        (CLOUD, {"float32", "float16"}, set(), True, 4),
    ],
)
def test_each_declares_what_it_can_do(
    server: Server, datatypes: set[str], quantizations: set[str], lexical: bool, uploads: int
) -> None:
    can = server.capabilities
    assert (can.datatypes, can.quantizations, can.lexical, can.uploads) == (datatypes, quantizations, lexical, uploads)
    assert can.max_text_bytes == 65_535
    with pytest.raises(StoreError, match="quantization 'binary' is not supported"):
        can.require(replace(SPEC, quantization="binary"))


@pytest.mark.parametrize("server", [LITE, OLD, NEW, CLOUD])
def test_rows_of_others_fit(server: Server) -> None:
    # [LangChain and LlamaIndex write an id, a vector, a text and whatever else they have]
    analyzer = ANALYZER if server.capabilities.lexical else None
    schema = schema_of(replace(SPEC, analyzer=analyzer), server).to_dict()
    assert schema["enable_dynamic_field"]
    needed = {field["name"] for field in schema["fields"] if "default_value" not in field}
    assert needed == {"id", "vector"} | ({"lexical"} if analyzer else set())
    assert [function["output_field_names"] for function in schema.get("functions", [])] == (
        [["lexical"]] if analyzer else []
    )


@pytest.mark.parametrize(("server", "keyed"), [(LITE, False), (OLD, False), (NEW, True), (CLOUD, True)])
def test_repositories_are_kept_apart_and_indexed(server: Server, keyed: bool) -> None:
    fields = {field["name"]: field for field in schema_of(SPEC, server).to_dict()["fields"]}
    assert {name for name, field in fields.items() if field.get("is_partition_key")} == (
        {"repository"} if keyed else set()
    )
    indexed = {"repository", "path", "language"} & indexes_of(SPEC, server).keys()
    assert len(indexed) == (0 if server == LITE else 3)


@pytest.mark.parametrize(("server", "keyed"), [(LITE, False), (OLD, False), (NEW, True), (CLOUD, True)])
def test_a_tenant_has_a_column_by_which_rows_are_kept_apart(server: Server, keyed: bool) -> None:
    spec = replace(SPEC, fields={"customer": "tenant", "votes": "integer"})
    fields = {field["name"]: field for field in schema_of(spec, server).to_dict()["fields"]}
    assert "customer" in fields
    assert "votes" not in fields
    keys = [name for name, field in fields.items() if field.get("is_partition_key")]
    assert keys == ["customer"] * keyed
    assert ("customer" in indexes_of(spec, server)) == (server != LITE)


@pytest.mark.parametrize("name", ["customer.name", "in", "the tenant", "é", "x" * 256, "path"])
def test_a_tenant_that_no_column_can_be_named_after_has_none(name: str) -> None:
    spec = replace(SPEC, fields={name: "tenant"})
    names = [field["name"] for field in schema_of(spec, NEW).to_dict()["fields"]]
    assert names == [field["name"] for field in schema_of(SPEC, NEW).to_dict()["fields"]]


@pytest.mark.parametrize(
    ("server", "quantization", "index"),
    [
        (LITE, None, "FLAT"),
        (LITE, "int8", "IVF_SQ8"),
        (CLOUD, None, "AUTOINDEX"),
        (OLD, None, "HNSW"),
        (OLD, "int8", "IVF_SQ8"),
        (OLD, "product", "IVF_PQ"),
        (NEW, "rabitq", "IVF_RABITQ"),
    ],
)
def test_vectors_are_indexed_by_cosine_and_as_the_plan_says(
    server: Server, quantization: str | None, index: str
) -> None:
    made = indexes_of(replace(SPEC, quantization=quantization), server)["vector"]
    assert (made["index_type"], made["metric_type"]) == (index, "COSINE")


@given(width=st.integers(1, 4_096))
def test_product_codes_divide_the_width(width: int) -> None:
    codes = indexes_of(CollectionSpec(width, {}, quantization="product"), OLD)["vector"]["params"]["m"]
    assert width % codes == 0
    assert 1 <= codes <= max(1, width // 4)


def test_a_search_keeps_at_least_as_many_candidates_as_are_asked_for() -> None:
    assert [search_params_of(SPEC, NEW, limit)["params"]["ef"] for limit in (1, 192, 5_000)] == [192, 192, 5_000]


@given(words=st.lists(st.sampled_from(["x" * 64, "é" * 40, "中文", "a"]), max_size=2_000))
def test_terms_are_cut_between_words_at_the_limit(words: list[str]) -> None:
    [entity] = entities_of([CHUNK], None, [words], replace(SPEC, analyzer=ANALYZER), has_records=True)
    kept = entity["terms"].split()
    assert kept == words[: len(kept)]
    assert len(entity["terms"].encode()) <= MAX_VARCHAR_BYTES
    if len(kept) < len(words):
        assert len(" ".join(words[: len(kept) + 1]).encode()) > MAX_VARCHAR_BYTES


def test_half_precision_vectors_go_and_come_back() -> None:
    vector = np.random.default_rng(0).standard_normal((1, 256)).astype(np.float32)
    [entity] = entities_of([CHUNK], vector, None, replace(SPEC, datatype="float16"), has_records=True)
    assert entity["vector"].dtype == np.float16
    for given_back in (entity["vector"].tobytes(), [entity["vector"].tobytes()]):
        np.testing.assert_allclose(vector_from(given_back), vector[0], atol=2e-3)
    assert vector_from(vector[0].tolist()).tolist() == vector[0].tolist()
