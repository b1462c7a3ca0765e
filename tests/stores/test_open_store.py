from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pymilvus import MilvusClient
from qdrant_client import QdrantClient

from c2llm_integrations.cli.main import run
from c2llm_integrations.errors import C2LLMError, InputError
from c2llm_integrations.stores import DATABASES, _address, open_store, require_one_key
from c2llm_integrations.stores.foreign_collection import Layout
from c2llm_integrations.stores.milvus.foreign_collection import ForeignMilvusStore
from c2llm_integrations.stores.milvus.store import MilvusStore
from c2llm_integrations.stores.qdrant.edge import QdrantEdgeStore
from c2llm_integrations.stores.qdrant.foreign_collection import ForeignQdrantStore
from c2llm_integrations.stores.qdrant.store import QdrantStore
from c2llm_integrations.stores.spec import CollectionSpec


def edge_root(url: str) -> Path:
    with open_store(url) as store:
        assert isinstance(store, QdrantEdgeStore)
        assert store.spec is None
        return store.root


def test_edge_paths_are_taken_as_they_stand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("USERPROFILE", str(tmp_path))
    assert edge_root("qdrant+edge://.c2llm") == tmp_path / ".c2llm"
    assert edge_root("qdrant+edge://a/../b c%20d#e@f") == tmp_path / "b c%20d#e@f"
    assert edge_root(f"qdrant+edge://{tmp_path}/x") == tmp_path / "x"
    assert edge_root("qdrant+edge://~/y") == tmp_path / "y"
    assert list(tmp_path.iterdir()) == []


def test_a_relative_store_stays_where_it_was_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with open_store("qdrant+edge://here") as store:
        (tmp_path / "elsewhere").mkdir()
        monkeypatch.chdir(tmp_path / "elsewhere")
        store.create(CollectionSpec(4, {}))
    assert (tmp_path / "here" / "code" / "c2llm.json").exists()


def test_every_memory_store_is_its_own() -> None:
    with open_store("qdrant+memory://") as one, open_store("qdrant+memory://") as two:
        assert isinstance(one, QdrantStore)
        one.create(CollectionSpec(4, {}))
        assert two.spec is None


@pytest.mark.parametrize("url", ["", ".c2llm", "sqlite://x", "qdrant+edge", "milvus://x.db", "http://x:6333", "://"])
def test_unknown_urls_name_the_known_ones(url: str) -> None:
    with pytest.raises(
        InputError, match=r"qdrant\+edge://PATH, .*milvus\+lite://PATH\.db, milvus\+http\(s\)://HOST:PORT"
    ):
        open_store(url)


@pytest.mark.parametrize("url", [None, 5, Path("here"), b"qdrant+memory://"])
def test_a_url_is_a_string(url: Any) -> None:
    with pytest.raises(InputError, match=r"expected a URL such as 'qdrant\+edge://PATH', got"):
        open_store(url)
    with pytest.raises(InputError, match="collection name"):
        open_store("qdrant+memory://", url)


@pytest.mark.parametrize("url", ["qdrant+edge://", "qdrant+memory://x", "milvus+lite://"])
def test_incomplete_urls_are_refused(url: str) -> None:
    with pytest.raises(InputError, match=r"qdrant\+(edge|memory)://|milvus\+lite://PATH\.db"):
        open_store(url)


@pytest.mark.parametrize("scheme", ["qdrant+http", "qdrant+https", "milvus+http", "milvus+https"])
@pytest.mark.parametrize(
    "rest",
    ["", ":6333", "host:port", "host:99999", "host/s3cret", "host?key=s3cret", "host#s3cret", "s3cret@host", "[::1"],
)
def test_a_server_is_a_host_and_a_port(scheme: str, rest: str) -> None:
    with pytest.raises(InputError, match="HOST:PORT") as caught:
        open_store(f"{scheme}://{rest}")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize(
    ("scheme", "rest", "address"),
    [
        ("qdrant+http", "localhost", "http://localhost:6333"),
        ("qdrant+https", "x.cloud.qdrant.io:6333/", "https://x.cloud.qdrant.io:6333"),
        ("milvus+http", "10.0.0.1:1", "http://10.0.0.1:1"),
        ("milvus+http", "[::1]", "http://[::1]:19530"),
        ("milvus+https", "x.zillizcloud.com", "https://x.zillizcloud.com:443"),
    ],
)
def test_the_port_has_a_default(scheme: str, rest: str, address: str) -> None:
    assert _address(scheme, rest, DATABASES[scheme].port) == address


@pytest.mark.parametrize("url", ["qdrant+edge://x", "qdrant+memory://", "milvus+lite://x.db"])
def test_a_local_store_takes_no_key(url: str) -> None:
    with pytest.raises(InputError, match="takes no API key") as caught:
        open_store(url, api_key="s3cret")
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("key", ["s3cret\nx: y", "s3crét"])
def test_a_key_that_no_header_can_hold_is_not_shown(key: str) -> None:
    for url in ("qdrant+http://localhost", "milvus+http://localhost"):
        with pytest.raises(InputError, match="API key") as caught:
            open_store(url, api_key=key)
        assert "s3cr" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "qdrant+https://user:s3cret@host:6333",
        "qdrant+edge://user:s3cret@host/x",
        "qdrant+memory://s3cret",
        "milvus+http://:s3cret@host",
        "user:s3cret@host",
        "qdrant+https://host?api_key=s3cret",
    ],
)
def test_credentials_are_refused_and_never_repeated(url: str) -> None:
    with pytest.raises(C2LLMError) as caught:
        open_store(url)
    assert "s3cret" not in str(caught.value)


@pytest.mark.parametrize("name", ["code", "a", "_x", "my-repo_2.v1", "x" * 128])
def test_usable_collection_names(tmp_path: Path, name: str) -> None:
    with open_store(f"qdrant+edge://{tmp_path}", name) as store:
        store.create(CollectionSpec(4, {}))
        assert store.collection == name


@pytest.mark.parametrize(
    "name", ["", ".", "..", "a..b", "../x", "a/b", "a\\b", ".git", "a.", "x" * 129, "a b", "é", "a\n", "-x", "C:"]
)
def test_unusable_collection_names(tmp_path: Path, name: str) -> None:
    with pytest.raises(InputError, match="cannot be used"):
        open_store(f"qdrant+edge://{tmp_path}", name)


def test_a_client_is_loaded_only_when_named() -> None:
    code = (
        "import sys, c2llm_integrations.stores as s\n"
        "assert not {'qdrant_edge', 'qdrant_client', 'pymilvus'} & sys.modules.keys()\n"
        "s.open_store('qdrant+edge://nowhere')\n"
        "assert not {'qdrant_client', 'pymilvus'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_missing_client_names_the_extra() -> None:
    code = (
        "import sys; sys.modules['qdrant_client'] = None\n"
        "from c2llm_integrations.errors import MissingExtra\n"
        "from c2llm_integrations.stores import open_store\n"
        "try: open_store('qdrant+memory://')\n"
        "except MissingExtra as error: print(error)\n"
    )
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert 'pip install "c2llm-integrations[qdrant]"' in shown


@pytest.mark.parametrize(
    ("mine", "theirs", "is_refused"),
    [
        ("qdrant+https://mine.example.org", "qdrant+https://team.example.org", True),
        ("qdrant+https://mine.example.org", "qdrant+http://mine.example.org", True),
        ("milvus+https://mine.example.org", "milvus+http://team.example.org", True),
        ("qdrant+https://mine.example.org", "qdrant+https://mine.example.org:6333/", False),
        ("qdrant+https://mine.example.org", "milvus+https://team.example.org", False),
        ("qdrant+edge://mine", "qdrant+https://team.example.org", False),
    ],
)
def test_a_key_is_sent_to_one_server(mine: str, theirs: str, is_refused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    require_one_key(mine, theirs)  # without any
    for name in ("QDRANT_API_KEY", "MILVUS_TOKEN"):
        monkeypatch.setenv(name, "secret-key")
    if not is_refused:
        require_one_key(mine, theirs)
        return
    with pytest.raises(InputError, match=r"(QDRANT_API_KEY|MILVUS_TOKEN) would be sent to http.* and http") as raised:
        require_one_key(mine, theirs)
    assert "secret-key" not in str(raised.value)
    place = ["--store", mine, "--vectors-from", theirs]
    assert run(["index", str(Path(__file__).parent), *place]) == 1  # before any server is asked


def test_a_client_of_another_database_is_refused(tmp_path: Path) -> None:
    theirs: Any = MilvusClient(str(tmp_path / "rows.db")), QdrantClient(":memory:")
    makers = (
        (QdrantStore.from_client, lambda client: ForeignQdrantStore(client, "docs", Layout())),
        (MilvusStore.from_client, lambda client: ForeignMilvusStore(client, "docs", Layout())),
    )
    for client, made in zip(theirs, makers, strict=True):
        for make in made:
            with pytest.raises(InputError, match=r"expected a (Qdrant|Milvus)Client, got"):
                make(client)
        client.close()


@pytest.mark.parametrize("address", ["qdrant+edge://{}", "qdrant+edge://{}/below", "milvus+lite://{}/rows.db"])
def test_a_file_where_a_folder_must_be_is_named(tmp_path: Path, address: str) -> None:
    (tmp_path / "file").touch()
    with (
        open_store(address.format(tmp_path / "file")) as store,
        pytest.raises(C2LLMError, match=f"{tmp_path}/file.* needs a folder; name another"),
    ):
        store.create(CollectionSpec(4, {}))
