"""C2LLM in LangChain: its own standard tests, and what they do not ask."""

import asyncio
import copy
import pickle
import subprocess
import sys
import threading
import uuid
from datetime import datetime

import numpy as np
import pytest
from langchain_core.documents import Document
from langchain_core.indexing import InMemoryRecordManager, index
from langchain_core.vectorstores import InMemoryVectorStore
from langchain_qdrant import QdrantVectorStore
from langchain_tests.integration_tests import EmbeddingsIntegrationTests, RetrieversIntegrationTests
from langchain_tests.unit_tests import EmbeddingsUnitTests
from pydantic import ValidationError
from qdrant_client import models

from c2llm_integrations.errors import InputError, SpecMismatch, StoreError
from c2llm_integrations.indexing.ingest import ingest
from c2llm_integrations.langchain import C2LLMCodeLoader, C2LLMCodeSplitter, C2LLMEmbeddings, C2LLMRetriever
from c2llm_integrations.model.embedder import C2LLMEmbedder
from c2llm_integrations.model.heads_and_projections import fit_projection
from c2llm_integrations.retrieval.options import SearchOptions
from c2llm_integrations.retrieval.search import search
from c2llm_integrations.retrieval.store_handles import shared_store
from c2llm_integrations.stores import open_store
from c2llm_integrations.stores.qdrant.store import QdrantStore
from c2llm_integrations.stores.row_fields import unit
from tests.event_loop import run_beside
from tests.frameworks.stores import filled_qdrant
from tests.golden import TIED

TINY = {"model": str(TIED), "dtype": "float32", "device": "cpu"}
CODE = "def f(x):\n    if x:\n        return 1\n    return 2\n"


@pytest.fixture(scope="module")
def embedder():
    return C2LLMEmbedder.from_pretrained(str(TIED), dtype="float32", device="cpu")


@pytest.fixture(scope="module")
def embeddings():
    return C2LLMEmbeddings(**TINY)


@pytest.fixture(scope="module")
def indexed(tmp_path_factory, embedder):
    """The URL of a store on disk that holds four chunks."""
    root, rows = tmp_path_factory.mktemp("langchain"), tmp_path_factory.mktemp("rows")
    for name in ("one", "two", "three"):
        (root / f"{name}.py").write_text(f"def {name}():\n    return '{name}'\n")
    (root / "four.go").write_text("package main\n\nfunc Four() int { return 4 }\n")
    url = f"qdrant+edge://{rows}"
    with open_store(url) as store:
        ingest(root, embedder, store, repository="here")
    return url


class TestStandardUnit(EmbeddingsUnitTests):
    @property
    def embeddings_class(self):
        return C2LLMEmbeddings

    @property
    def embedding_model_params(self):
        return TINY


class TestStandardIntegration(EmbeddingsIntegrationTests):
    @property
    def embeddings_class(self):
        return C2LLMEmbeddings

    @property
    def embedding_model_params(self):
        return TINY


class TestStandardRetriever(RetrieversIntegrationTests):
    @pytest.fixture(autouse=True)
    def _store(self, indexed):
        self.url = indexed

    @property
    def retriever_constructor(self):
        return C2LLMRetriever

    @property
    def retriever_constructor_params(self):
        return {"store": self.url, "embeddings": C2LLMEmbeddings(**TINY)}

    @property
    def retriever_query_example(self):
        return "return two"


# ---- embeddings


def test_vectors_are_the_embedders_own_newlines_and_all(embeddings, embedder):
    assert embeddings.embed_documents([CODE]) == embedder.encode_documents([CODE]).tolist()
    assert embeddings.embed_query(CODE) == embedder.encode_queries([CODE])[0].tolist()
    assert embeddings.embed_documents([CODE]) != embeddings.embed_documents([CODE.replace("\n", " ")])
    assert all(type(number) is float for number in embeddings.embed_query(CODE))


def test_settings_reach_the_model(embedder):
    raw = C2LLMEmbeddings(**TINY, normalize=False, max_length=3, query_task="CosQA")
    assert np.linalg.norm(raw.embed_query("a b c d e f")) > 1.5
    assert raw.shared.embedder.max_length == 3
    asked = C2LLMEmbeddings(**TINY, query_task="CosQA").embed_query("sort a list")
    assert asked == embedder.encode_queries(["sort a list"], "CosQA")[0].tolist()


def test_fewer_dimensions_and_smaller_batches(embedder, tmp_path):
    texts = [f"def f{n}(x):\n    return x + {n}\n" for n in range(80)]
    whole = embedder.encode_documents(texts)
    projection = fit_projection(whole, 16, str(embedder.fingerprint["weights"]))
    projection.save(tmp_path / "p.safetensors")
    projected = C2LLMEmbeddings(**TINY, projection=str(tmp_path / "p.safetensors")).embed_documents(texts)
    np.testing.assert_allclose(projected, unit(whole @ projection.matrix), atol=1e-5)
    np.testing.assert_allclose(
        C2LLMEmbeddings(**TINY, truncate_dim=8).embed_documents(texts), unit(whole[:, :8]), atol=1e-5
    )
    np.testing.assert_allclose(C2LLMEmbeddings(**TINY, batch_tokens=32).embed_documents(texts), whole, atol=1e-5)
    with pytest.raises(InputError, match="batch_tokens is 0"):
        C2LLMEmbeddings(**TINY, batch_tokens=0).embed_query("x")


def test_no_texts_give_no_vectors(embeddings):
    assert embeddings.embed_documents([]) == []
    assert asyncio.run(embeddings.aembed_documents([])) == []


def test_both_names_of_the_model_and_no_unknown_field():
    assert C2LLMEmbeddings(model="x/y") == C2LLMEmbeddings(model_name="x/y")
    assert C2LLMEmbeddings().model_name == C2LLMEmbeddings(model="nano").model == "nano"
    with pytest.raises(ValidationError, match="batch_sise"):
        C2LLMEmbeddings(batch_sise=3)


def test_the_model_loads_on_first_use_and_errors_are_our_own():
    lazy = C2LLMEmbeddings(model="/nowhere/at all")
    with pytest.raises(InputError, match="no model folder"):
        lazy.embed_query("x")
    with pytest.raises(InputError, match="no model folder"):
        asyncio.run(lazy.aembed_query("x"))


def test_equal_settings_share_one_model_and_others_do_not(embeddings):
    same = C2LLMEmbeddings(**TINY, query_task="CosQA")
    assert same.shared.embedder is embeddings.shared.embedder
    assert C2LLMEmbeddings(**TINY, max_length=9).shared is not embeddings.shared


def test_a_field_set_later_takes_effect():
    changed = C2LLMEmbeddings(**TINY)
    before = changed.embed_query("a longer question of many words")
    changed.max_length = 4
    assert changed.embed_query("a longer question of many words") != before


def test_copies_and_pickles_work_and_share_the_model(embeddings):
    vector = embeddings.embed_query("x")
    for twin in (pickle.loads(pickle.dumps(embeddings)), copy.deepcopy(embeddings), embeddings.model_copy(deep=True)):
        assert twin == embeddings
        assert twin.embed_query("x") == vector
        assert twin.shared is embeddings.shared


def test_another_process_loads_its_own(embeddings):
    code = "import pickle, sys; print(pickle.load(sys.stdin.buffer).embed_query('x'))"
    embeddings.embed_query("x")
    done = subprocess.run([sys.executable, "-c", code], input=pickle.dumps(embeddings), capture_output=True, check=True)
    np.testing.assert_allclose(eval(done.stdout), embeddings.embed_query("x"), atol=1e-5)


async def test_concurrent_queries_are_answered_in_few_batches(embeddings, monkeypatch):
    texts = [f"question {number}" for number in range(64)]
    alone = [embeddings.embed_query(text) for text in texts]
    sizes = []
    queries = embeddings.shared.queries

    def counted(texts, task=None):
        sizes.append(len(texts))
        return queries(texts, task)

    monkeypatch.setattr(embeddings.shared, "queries", counted)
    together = await asyncio.gather(*(embeddings.aembed_query(text) for text in texts))
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert sum(sizes) == 64
    assert len(sizes) <= 16


async def test_a_bad_query_and_a_cancelled_one_leave_the_others_alone(embeddings):
    tasks = [asyncio.ensure_future(embeddings.aembed_query(text)) for text in ("good", "bad \ud800", "gone", "fine")]
    await asyncio.sleep(0)
    tasks[2].cancel()
    good, bad, gone, fine = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(bad, InputError)
    assert isinstance(gone, asyncio.CancelledError)
    np.testing.assert_allclose(
        [good, fine], [embeddings.embed_query("good"), embeddings.embed_query("fine")], atol=1e-5
    )


async def test_tasks_that_wait_together_keep_their_own_prompts(embeddings):
    other = C2LLMEmbeddings(**TINY, query_task="CosQA")
    first, second = await asyncio.gather(embeddings.aembed_query("x"), other.aembed_query("x"))
    np.testing.assert_allclose(first, embeddings.embed_query("x"), atol=1e-5)
    np.testing.assert_allclose(second, other.embed_query("x"), atol=1e-5)
    assert first != second


async def test_the_event_loop_goes_on_while_documents_are_embedded(embeddings):
    texts = [f"{CODE * (1 + n % 5)}{n}" for n in range(1000)]  # all different: equal ones are computed once
    vectors, turns, longest = await run_beside(embeddings.aembed_documents(texts))
    assert len(vectors) == 1000
    assert turns > 1
    assert longest < 0.05


async def test_a_question_is_answered_while_documents_are_embedded(embeddings):
    documents = asyncio.ensure_future(embeddings.aembed_documents([f"{CODE * 8}{n}" for n in range(500)]))
    await asyncio.sleep(0)
    np.testing.assert_allclose(await embeddings.aembed_query("x"), embeddings.embed_query("x"), atol=1e-5)
    assert not documents.done()
    assert len(await documents) == 500


def test_many_threads_and_loops_may_ask_at_once(embeddings):
    wanted = embeddings.embed_query("x")
    got = []
    threads = [threading.Thread(target=lambda: got.append(asyncio.run(embeddings.aembed_query("x")))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 8
    np.testing.assert_allclose(got, [wanted] * 8, atol=1e-5)


# ---- retriever


def test_documents_carry_place_symbol_score_and_a_stable_id(indexed):
    retriever = C2LLMRetriever(store=indexed, k=2)  # the model is the collection's own
    found = retriever.invoke("return two")
    hits = shared_store(indexed).search("return two", SearchOptions(limit=2))
    assert [document.id for document in found] == [hit.chunk.id for hit in hits]
    for document, hit in zip(found, hits, strict=True):
        assert document.page_content == hit.chunk.text
        assert document.metadata == {
            "repository": "here",
            "path": hit.chunk.path,
            "language": hit.chunk.language,
            "symbol": hit.chunk.symbol,
            "kind": hit.chunk.kind,
            "start_line": hit.chunk.start_line,
            "end_line": hit.chunk.end_line,
            "score": hit.score,
            "_id": hit.record.row_id,
        }


def test_filters_and_threshold(indexed):
    def paths(**fields):
        return sorted(document.metadata["path"] for document in C2LLMRetriever(store=indexed, **fields).invoke("x"))

    assert paths() == ["four.go", "one.py", "three.py", "two.py"]
    assert paths(language="go") == ["four.go"]
    assert paths(path="t*.py") == ["three.py", "two.py"]
    assert paths(repository="elsewhere") == []
    assert paths(score_threshold=1) == []
    assert len(paths(score_threshold=0)) == 4
    assert [d.metadata["path"] for d in C2LLMRetriever(store=indexed).invoke("x", language="go")] == ["four.go"]
    for wrong in ("s", float("nan"), -1, 7):
        with pytest.raises(InputError, match=f"score_threshold is {wrong!r}, must be a number in 0…1"):
            C2LLMRetriever(store=indexed).invoke("x", score_threshold=wrong)
    with pytest.raises(InputError, match="wait is nan, must be at least 0 seconds"):
        shared_store("qdrant+edge://rows", wait=float("nan"))


async def test_retrieving_many_at_once_is_the_same_as_one_by_one(indexed):
    retriever = C2LLMRetriever(store=indexed, k=2)
    questions = [f"question {number}" for number in range(8)]
    one_by_one = [retriever.invoke(question) for question in questions]
    for together in (await retriever.abatch(questions), retriever.batch(questions)):
        for found, alone in zip(together, one_by_one, strict=True):
            assert [document.id for document in found] == [document.id for document in alone]
            scores = [document.metadata["score"] for document in alone]
            np.testing.assert_allclose([document.metadata["score"] for document in found], scores, atol=1e-5)


def test_the_retriever_asks_with_the_prompt_of_its_embeddings(indexed):
    def scores(task):
        retriever = C2LLMRetriever(store=indexed, embeddings=C2LLMEmbeddings(**TINY, query_task=task))
        return [document.metadata["score"] for document in retriever.invoke("return two")]

    assert scores("CosQA") != scores(None) == scores(None)


def test_a_model_that_did_not_make_the_collection_is_refused(indexed):
    with pytest.raises(SpecMismatch, match="max_length"):
        C2LLMRetriever(store=indexed, embeddings=C2LLMEmbeddings(**TINY, max_length=7)).invoke("x")


@pytest.mark.parametrize("unknown", [{"lang": "go"}, {"kinds": "function"}, {"filters": {"k": 1}}])
def test_a_filter_that_the_retriever_does_not_know_is_not_left_out_silently(unknown, indexed):
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        C2LLMRetriever(store=indexed, **unknown)


def test_copies_of_a_retriever_share_the_open_store(indexed):
    retriever = C2LLMRetriever(store=indexed, k=1)
    found = retriever.invoke("x")
    assert pickle.loads(pickle.dumps(retriever)).invoke("x") == found
    assert copy.deepcopy(retriever).invoke("x") == found


def test_the_store_is_free_again_once_no_retriever_is_left(indexed):
    retriever = C2LLMRetriever(store=indexed)
    assert retriever.invoke("x")
    del retriever
    with open_store(indexed) as store:
        assert store.count() == 4


def test_an_open_store_can_be_given(project, embedder):
    with open_store("qdrant+memory://") as store:
        ingest(project, embedder, store, repository="shop")
        retriever = C2LLMRetriever(store=store, embeddings=C2LLMEmbeddings(**TINY), k=3)
        assert [document.id for document in retriever.invoke("sum")] == [
            hit.chunk.id for hit in search("sum", embedder, store, limit=3)
        ]


def test_nothing_indexed_says_what_to_run(tmp_path):
    with pytest.raises(StoreError, match="c2llm index"):
        C2LLMRetriever(store=f"qdrant+edge://{tmp_path / 'none'}").invoke("x")


# ---- loader and splitter


def test_the_loader_gives_the_chunks_of_ingest(project, embedder):
    documents = C2LLMCodeLoader(project, repository="shop").load()
    with open_store("qdrant+memory://") as store:
        ingest(project, embedder, store, repository="shop")
        rows = [(row.chunk.text, row.record.metadata) for row in store.rows()]
    assert sorted(((one.page_content, one.metadata) for one in documents), key=str) == sorted(rows, key=str)
    cart = next(document for document in documents if "Cart" in document.metadata["symbol"])
    assert cart.metadata["path"] == "shop/prices.py"
    assert "class Cart" in cart.page_content


def test_the_splitter_keeps_every_character_and_the_documents_metadata():
    text = "".join(f"def f{n}(x):\n    return x + {n}\n\n\n" for n in range(80))
    whole = Document(page_content=text, metadata={"source": "many.py", "author": "me"})
    pieces = C2LLMCodeSplitter(max_chars=400).split_documents([whole])
    assert len(pieces) > 5
    assert "".join(piece.page_content for piece in pieces) == text
    assert all(piece.metadata["author"] == "me" and piece.metadata["language"] == "python" for piece in pieces)
    assert pieces == C2LLMCodeSplitter(max_chars=400).transform_documents([whole])
    assert len({piece.id for piece in pieces}) == len(pieces)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"metadata": {"title": "A"}}, {"metadata": {"title": "B"}}),
        ({"metadata": {"source": "x.py", "tenant": "a"}}, {"metadata": {"source": "x.py", "tenant": "b"}}),
        ({"id": "a", "metadata": {"source": "x.py"}}, {"id": "b", "metadata": {"source": "x.py"}}),
        ({"metadata": {"source": "x.py"}}, {"metadata": {"source": "y.py"}}),
        ({"metadata": {"when": datetime(2026, 1, 1)}}, {"metadata": {"when": datetime(2026, 1, 2)}}),
    ],
)
def test_equal_texts_of_two_documents_are_two_pieces(one, other):
    text = "def f(x):\n    return x\n"
    first, second = (Document(page_content=text, **fields) for fields in (one, other))
    both = [piece.id for piece in C2LLMCodeSplitter().split_documents([first, second])]
    assert len(set(both)) == 2
    assert [piece.id for piece in C2LLMCodeSplitter().split_documents([second, first])] == both[::-1]


def test_the_metadata_of_a_document_are_never_overwritten():
    own = {
        "source": "a.py",
        "language": "Python 3.12",
        "kind": "tutorial",
        "start_line": 1000,
        "symbol": None,
        "path": 7,
    }
    [piece] = C2LLMCodeSplitter().split_documents([Document(page_content="def f():\n    pass\n", metadata=own)])
    assert {name: piece.metadata[name] for name in own} == own
    added = {"chunk_language": "text", "chunk_start_line": 1, "chunk_path": "7", "end_line": 2}
    assert {name: piece.metadata[name] for name in added} == added


@pytest.mark.parametrize("ids", ["our own", "by content"])
def test_moved_lines_leave_no_stale_places_behind(tmp_path, embeddings, ids):
    file = tmp_path / "code.py"
    body = "".join(f'def f{n}(x):\n    """{"word " * 200}"""\n    return x + {n}\n\n\n' for n in range(3))
    records, store = InMemoryRecordManager("moved"), InMemoryVectorStore(embeddings)
    records.create_schema()
    options = {"key_encoder": lambda document: document.id} if ids == "our own" else {"key_encoder": "sha256"}
    for head in ("", "import os\n\n\n" * 300, "", "# licence\n" * 3):
        file.write_text(head + body)
        documents = C2LLMCodeLoader(tmp_path, repository="r").load()
        index(documents, records, store, cleanup="full", source_id_key="path", **options)
        lines = file.read_text().splitlines()
        assert len(store.store) == len(documents)
        for kept in store.store.values():
            first = kept["metadata"]["start_line"]
            assert kept["text"].splitlines()[0] == lines[first - 1]


# ---- LangChain's own Qdrant store


@pytest.fixture
def shared_client(project, embedder):
    """An in-memory Qdrant that our ingest has filled."""
    with filled_qdrant(project, embedder) as client:
        yield client


def test_our_collection_opens_in_langchains_store(shared_client, embeddings, embedder):
    store = QdrantVectorStore(shared_client, "code", embedding=embeddings)
    ours = QdrantStore.from_client(shared_client)
    hits = ours.search(embedder.encode_queries(["sum up prices"])[0], 3)
    found = store.similarity_search_with_score("sum up prices", k=3)
    assert [document.metadata["_id"] for document, _ in found] == [hit.chunk.id for hit in hits]
    np.testing.assert_allclose([score for _, score in found], [hit.score for hit in hits], atol=1e-5)
    assert found[0][0].page_content == hits[0].chunk.text
    assert found[0][0].metadata["path"] == hits[0].chunk.path
    assert len(store.max_marginal_relevance_search("sum up prices", k=2)) == 2
    (same,) = store.get_by_ids([hits[0].chunk.id])
    assert same.page_content == hits[0].chunk.text
    javascript = models.FieldCondition(key="metadata.language", match=models.MatchValue(value="javascript"))
    only = store.similarity_search("wait", filter=models.Filter(must=[javascript]))
    assert {document.metadata["path"] for document in only} == {"web/retry.js"}


def test_documents_of_others_are_indexed_once_found_and_never_deleted(shared_client, project, embeddings, embedder):
    store = QdrantVectorStore(shared_client, "code", embedding=embeddings)
    records = InMemoryRecordManager("c2llm")
    records.create_schema()
    documents = [Document(page_content="def other(): ...", metadata={"source": "elsewhere"})]

    def key(document):
        return str(uuid.uuid5(uuid.NAMESPACE_URL, document.page_content))  # Qdrant takes UUIDs only

    first, again = (
        index(documents, records, store, cleanup="incremental", source_id_key="source", key_encoder=key)
        for _ in range(2)
    )
    assert (first["num_added"], again["num_added"], again["num_skipped"]) == (1, 0, 1)
    ours = QdrantStore.from_client(shared_client)
    (found,) = (hit.chunk for hit in search("def other(): ...", embedder, ours, limit=50) if "other" in hit.chunk.text)
    assert (found.text, found.path, found.symbol, found.start_line) == ("def other(): ...", "", "", 0)
    (project / "web/retry.js").unlink()
    report = ingest(project, embedder, ours, repository="shop")
    assert (report.written, report.deleted, ours.count()) == (0, 1, report.unchanged)
    assert any(document.page_content == "def other(): ..." for document in store.similarity_search("x", k=50))


def test_without_the_framework_the_extra_is_named():
    code = """
import sys
sys.modules["langchain_core"] = None
import c2llm_integrations.langchain
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stderr.splitlines()[-1].endswith('run: pip install "c2llm-integrations[langchain]"')
