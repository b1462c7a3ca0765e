"""An index that came with a checkout may say anything of itself: each wrong value is one line, or does no harm."""

import json
from contextlib import suppress

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from c2llm_integrations.cli.main import run
from c2llm_integrations.errors import StoreError
from c2llm_integrations.indexing.claims import claim_of
from c2llm_integrations.indexing.ingest import ingest
from c2llm_integrations.model.embedder import C2LLMEmbedder
from c2llm_integrations.server.background_indexing import BackgroundIndexer, run_once
from c2llm_integrations.server.live_index import LiveIndex, LiveIndexConfig
from c2llm_integrations.stores import open_store, own_index
from c2llm_integrations.stores.file_checksums import checksum_of
from c2llm_integrations.stores.spec import CollectionSpec
from tests.golden import TIED
from tests.ingesting import write_tree
from tests.waiting import until

VALUES = st.one_of(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(),
    st.sampled_from(["", "\0", "\ud800", "%00", "../..", ":@.", "a" * 5_000, "head ", "first 9", "first ²", "probe:x"]),
    st.text(max_size=9) | st.lists(st.integers(), max_size=2) | st.dictionaries(st.text(max_size=3), st.none()),
)


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A small indexed tree; what its index says of itself is its file's content."""
    folder = write_tree(tmp_path_factory.mktemp("trust") / "one", 0, files=2)
    with open_store(own_index(folder)) as store:
        ingest(folder, C2LLMEmbedder.from_pretrained(str(TIED), dtype="float32"), store)
    return folder


@pytest.fixture
def says(tree, tmp_path, monkeypatch):
    """Return a function that changes what the index says, as if it had been written so."""
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path / "cache"))
    monkeypatch.chdir(tree)
    file = tree / ".c2llm" / "code" / "c2llm.json"
    whole = file.read_text()

    def change(path, value):
        data = json.loads(whole)
        del data["checksum"]
        inner = data
        for name in path[:-1]:
            inner = inner[name]
        inner[path[-1]] = value
        file.write_text(json.dumps({**data, "checksum": checksum_of(data)}))

    yield change
    file.write_text(whole)


def places():
    """Yield the path of each field of a c2llm.json."""
    names = ("width", "datatype", "quantization", "rescore", "analyzer", "long_text", "fields", "layout", "index")
    yield from ((name,) for name in ("spec", "claims", "shard"))
    yield from (("spec", name) for name in (*names, "fingerprint", "unknown"))
    yield from (("spec", "fields", "votes"), ("claims", "one"), ("claims", "\x1b[31m"), ("claims", "\ud800"))
    members = ("model", "max_length", "normalize", "weights", "output_dim", "truncate_dim", "head", "projection", "new")
    yield from (("spec", "fingerprint", name) for name in members)


@pytest.mark.slow
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.sampled_from(list(places())), VALUES)
def test_whatever_an_index_says_of_itself_no_command_fails_unexpectedly(says, capsys, path, value):
    says(path, value)
    for arguments in (["status"], ["search", "--lexical", "file"], ["search", "file"], ["index", "--dry-run"]):
        capsys.readouterr()
        code = run(arguments)
        printed = capsys.readouterr().err
        assert "C2LLM_DEBUG" not in printed
        assert code == 0 or len(printed.splitlines()) < 4


@settings(max_examples=400, deadline=None)
@given(st.sampled_from([place[1:] for place in places() if place[0] == "spec" and len(place) > 1]), VALUES)
def test_a_spec_is_read_or_refused(place, value):
    spec = json.loads(CollectionSpec(4, {"model": "nano"}, fields={"votes": "integer"}, index={"m": 4}).to_json())
    inner = spec if len(place) == 1 else spec[place[0]]
    inner[place[-1]] = value
    with suppress(StoreError):
        read = CollectionSpec.from_json(json.dumps(spec))
        assert CollectionSpec.from_json(read.to_json()) == read
        for one in (*read.fingerprint.values(), read.datatype, read.quantization, read.analyzer):
            assert one is None or isinstance(one, (str, int))


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *((("claims", "one"), value) for value in (5, None, 1.5, [], {}, True, "\0", "a:%00", "\ud800")),
        *((("claims",), value) for value in (5, [], {"a": 1})),
        *((("spec", "fingerprint", "max_length"), value) for value in (float("inf"), 1.5, [], 2**70)),
        *((("spec", "rescore"), value) for value in (float("nan"), 10**400, -1)),
        *((("spec", "datatype"), []), (("spec", "width"), True)),
    ],
)
def test_a_wrong_value_is_named_with_what_belongs_there(says, tree, path, value):
    says(path, value)
    with pytest.raises(StoreError, match=f"{path[0]}.*, expected ") as caught, open_store(own_index(tree)) as store:
        claim_of(tree, store)
    assert "index again" in str(caught.value)


@pytest.mark.parametrize("place", ["look", "warm"])
def test_the_thread_that_indexes_survives_what_nobody_foresaw(place, tree, monkeypatch):
    index = LiveIndex(LiveIndexConfig(folder=tree))
    indexer = BackgroundIndexer([index], index=False, idle_seconds=60)
    monkeypatch.setattr("c2llm_integrations.server.background_indexing.RETRY_SECONDS", 0.01)
    with monkeypatch.context() as broken:
        broken.setattr(index, place, lambda: {}["surprise"])
        indexer.start()
        until(lambda: "unexpected KeyError" in index.state.problem)
    indexer.wake()
    until(lambda: index.state.problem == "")
    assert indexer.stop(60)
    index.close()


def test_a_run_says_what_nobody_foresaw(tree, monkeypatch, capsys):
    monkeypatch.setattr(LiveIndex, "refresh", lambda *_: [].pop())
    run_once(json.dumps({"folder": str(tree)}))
    assert json.loads(capsys.readouterr().out)["problem"].startswith("indexing failed: unexpected IndexError")
