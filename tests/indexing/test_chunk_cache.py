"""The cache of what files gave changes how long a run takes and nothing that it stores or reports."""

import shutil
import subprocess
import tracemalloc
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from c2llm_integrations.code import exclude
from c2llm_integrations.code.chunking import chunk_source
from c2llm_integrations.code.repository import open_tree
from c2llm_integrations.indexing import chunk_cache, ingest
from c2llm_integrations.indexing.ingest import ingest as index
from c2llm_integrations.indexing.ingest import plan
from c2llm_integrations.indexing.options import IngestOptions
from c2llm_integrations.indexing.row_diff import StoredRows, rows_digest
from c2llm_integrations.model.embedder import C2LLMEmbedder
from c2llm_integrations.stores import open_store
from c2llm_integrations.stores.records import Row
from tests.golden import TIED

pytestmark = pytest.mark.slow

COUNTS = ("files", "chunks", "written", "moved", "unchanged", "deleted", "stored", "skipped", "encodings")


@pytest.fixture(scope="module")
def model() -> C2LLMEmbedder:
    return C2LLMEmbedder.from_pretrained(str(TIED), dtype="float32")


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture
def repo(tmp_path) -> Path:
    root = tmp_path / "repo"
    root.mkdir()
    for name in ("a", "b", "c"):
        (root / f"{name}.py").write_text(function(name))
    return root


@pytest.fixture(params=["qdrant+edge://{}/.c2llm", "milvus+lite://{}/store.db"])
def store(request, repo):
    with open_store(request.param.format(repo if "edge" in request.param else repo.parent)) as opened:
        yield opened


@pytest.fixture
def cut(monkeypatch) -> list[str]:
    """The paths that were cut."""
    paths: list[str] = []

    def counting(repository, path, text, **how):
        paths.append(path)
        return chunk_source(repository, path, text, **how)

    monkeypatch.setattr(ingest, "chunk_source", counting)
    return paths


def function(name: str) -> str:
    return f"def {name}():\n" + f"    print('{name} is called, and says so once more')\n" * 6


def counts(report) -> dict:
    return {name: getattr(report, name) for name in COUNTS}


def rows(store) -> dict:
    return {
        row.id: (row.path, row.symbol, row.kind, row.language, row.start_line, row.end_line) for row in store.scan()
    }


def test_only_what_changed_is_cut(repo, store, model, cut):
    first = index(repo, model, store)
    assert cut == ["a.py", "b.py", "c.py"]
    cut.clear()
    again = index(repo, model, store)
    assert cut == []
    assert counts(again) == {**counts(first), "written": 0, "unchanged": 3}
    (repo / "b.py").write_text("\n\n" + function("b"))
    (repo / "c.py").unlink()
    found = index(repo, model, store)
    assert cut == ["b.py"]
    assert (found.files, found.chunks, found.written, found.deleted, found.stored) == (2, 2, 1, 2, 2)
    cut.clear()
    assert plan(repo, store).unchanged == 2
    assert cut == []


def test_rows_that_another_program_changed_are_mended(repo, store, model, cut):
    index(repo, model, store)
    right = rows(store)
    lost, odd, extra = sorted(store.rows(), key=lambda row: row.chunk.path)
    store.delete([lost.chunk.id])
    store.update([replace(odd.chunk, symbol="odd", start_line=99)])
    more = chunk_source(extra.chunk.repository, "c.py", "def other():\n    return 'a row that no file gave'\n")[0]
    store.upsert([Row(more, extra.vector)])
    assert rows(store) != right
    cut.clear()
    found = index(repo, model, store)
    assert sorted(cut) == ["a.py", "b.py", "c.py"]
    assert (found.written, found.moved, found.deleted, found.unchanged) == (1, 1, 1, 1)
    assert rows(store) == right


def test_what_a_run_reports_of_a_file_is_reported_again(repo, store, model, cut):
    token = "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"
    (repo / "secret.py").write_text(f'TOKEN = "{token}"\n' + function("secret"))
    (repo / "latin.py").write_bytes("# café, déjà vu, naïve, élève, forêt\n".encode("latin-1") + function("l").encode())
    (repo / "blob.py").write_bytes(b"\0\1\2" * 50)
    first = index(repo, model, store)
    assert first.skipped[exclude.REDACTED] == ["secret.py"]
    assert first.skipped[exclude.BINARY] == ["blob.py"]
    assert "latin.py" in [path for paths in first.encodings.values() for path in paths]
    cut.clear()
    again = index(repo, model, store)
    assert sorted(cut) == ["latin.py", "secret.py"]
    assert counts(again) == {**counts(first), "written": 0, "unchanged": first.chunks}


def test_secrets_asked_for_are_cut_with_them_and_without_them_again(repo, store, model):
    token = "ghp_" + "a1B2c3D4e5F6g7H8i9J0k1L2m3N4o5P6q7R8"
    (repo / "secret.py").write_text(f'TOKEN = "{token}"\n' + function("secret"))

    def texts() -> str:
        return "".join(row.chunk.text for row in store.rows())

    for with_secrets in (True, False, False, True):
        index(repo, model, store, include_secrets=with_secrets)
        assert (token in texts()) == with_secrets


def test_a_file_taken_back_from_a_guess_is_left_out_again(repo, store, model):
    generated = repo / "made.py"
    generated.write_text("# Code generated by protoc-gen-go. DO NOT EDIT.\n" + function("made"))
    (repo / ".c2llmignore").write_text("!made.py\n")
    for line in ("!made.py\n", "!made.py\n", "\n", "!made.py\n"):
        (repo / ".c2llmignore").write_text(line)
        index(repo, model, store)
        assert ("made.py" in {row.path for row in store.scan()}) == (line != "\n")


def test_another_name_of_the_repository_finds_nothing_to_keep(repo, store, model, cut):
    index(repo, model, store, repository="one")
    cut.clear()
    index(repo, model, store, repository="two", replace=True, force=True)
    assert len(cut) == 3
    assert {row.path for row in store.scan(source="two")} == {"a.py", "b.py", "c.py"}


def test_other_code_or_grammars_cut_everything_again(repo, store, model, cut, monkeypatch):
    index(repo, model, store)
    cut.clear()
    monkeypatch.setattr(chunk_cache, "chunking_version", lambda: "another")
    index(repo, model, store)
    assert len(cut) == 3
    cut.clear()
    index(repo, model, store)
    assert cut == []


def test_the_version_follows_the_code_that_cuts(tmp_path, monkeypatch):
    copy = tmp_path / "code"
    shutil.copytree(Path(str(chunk_cache.code.__file__)).parent, copy)
    versions = set()
    for text in ("", "", "# a comment\n"):
        (copy / "secrets" / "named.py").open("a").write(text)
        monkeypatch.setattr(chunk_cache.code, "__file__", str(copy / "__init__.py"))
        chunk_cache.chunking_version.cache_clear()
        versions.add(chunk_cache.chunking_version())
    chunk_cache.chunking_version.cache_clear()
    assert len(versions) == 2


def test_an_index_copied_into_a_clone_cuts_only_what_differs(repo, model, cut):
    def git(*words: str) -> None:
        subprocess.run(["git", "-c", "user.name=x", "-c", "user.email=x@example.org", *words], check=True)

    git("init", "-q", str(repo))
    git("-C", str(repo), "add", "-A")
    git("-C", str(repo), "commit", "-q", "-m", "x")
    with open_store(f"qdrant+edge://{repo}/.c2llm") as store:
        index(repo, model, store)
    clone = repo.parent / "clone"
    git("clone", "-q", str(repo), str(clone))
    shutil.copytree(repo / ".c2llm", clone / ".c2llm")
    (clone / "b.py").write_text(function("b") + function("again"))
    cut.clear()
    with open_store(f"qdrant+edge://{clone}/.c2llm") as store:
        found = index(clone, model, store)
    assert cut == ["b.py"]
    assert (found.files, found.unchanged, found.stored) == (3, 2 + found.chunks - 2 - found.written, found.chunks)
    assert found.written > 0


def _damages(text: str) -> dict[str, str]:
    version, *lines = text.splitlines()
    columns = [line.split(" ", 2) for line in lines]
    contents, given, paths = zip(*columns, strict=True) if columns else ((), (), ())

    def of(*table) -> str:
        return "\n".join((version, *map(" ".join, zip(*table, strict=False)), ""))

    return {
        "empty": "",
        "cut": text[: len(text) // 2],
        "cut in the last path": text[:-2],
        "JSON": "[]",
        "no lines": f"{version}\n",
        "empty lines": f"{version}\n\n\n",
        "no paths": of(contents, given),
        "one column": of(paths),
        "long digests": of(["x" * 100] * 3, given, paths),
        "half a character": text.replace("a.py", "\udcff.py"),
        "others' rows": of(contents, given[::-1], paths),
        "others' contents": of(contents[::-1], given, paths),
        "no such paths": of(contents, given, ["../x", "/etc/passwd", "\0"]),
    }


@pytest.mark.parametrize("kind", list(_damages("version\n")))
def test_a_damaged_cache_costs_time_only(repo, model, kind):
    with open_store(f"qdrant+edge://{repo}/.c2llm") as store:
        index(repo, model, store)
        right = rows(store)
        (file,) = (repo / ".c2llm").glob("*.chunks")
        file.write_bytes(_damages(file.read_text())[kind].encode("utf-8", "surrogateescape"))
        (repo / "b.py").write_text(function("b") + "\n")
        found = index(repo, model, store)
        assert (found.files, found.chunks, found.deleted) == (3, 3, found.written)
        assert rows(store).keys() >= {id for id, row in right.items() if row[0] != "b.py"}
        assert found.stored == 3
        assert index(repo, model, store).unchanged == 3


@pytest.mark.parametrize("filling", ["[],", "\n", "x y z\n", f"{'x' * 32} {'y' * 32} \n", "x"])
def test_a_cache_takes_no_more_memory_than_its_size_explains(repo, model, filling):
    with open_store(f"qdrant+edge://{repo}/.c2llm") as store:
        index(repo, model, store)
        (file,) = (repo / ".c2llm").glob("*.chunks")
        version = chunk_cache.chunking_version()
        size = 2**22
        fill = filling * (size // len(filling))
        for text in (f"{version}\n{fill}", f'{{"version": "{version}", "paths": [{fill}[]]}}'):
            file.write_text(text)
            tracemalloc.start()
            try:
                chunk_cache.ChunkCache(open_tree(repo), store)
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
            assert peak < 4 * size


def test_a_run_on_some_files_leaves_the_cache_alone(repo, store, model, cut, tmp_path):
    index(repo, model, store)
    (file,) = tmp_path.rglob("*.chunks")
    before = file.stat()
    (repo / "b.py").write_text(function("other"))
    found = index(repo, model, store, only=["b.py"])
    assert (found.files, found.written, found.deleted, found.stored) == (1, 1, 1, 3)
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    cut.clear()
    for expected in (["b.py"], []):
        cut.clear()
        assert index(repo, model, store).unchanged == 3
        assert cut == expected


def test_names_of_all_kinds(repo, store, model, cut):
    names = ["with space.py", "käse.py", "x\ry.py", "x\u2028y.py", " .py"]
    for name in (*names, "a\nb.py"):
        (repo / name).write_text(function("odd"))
    first = index(repo, model, store)
    cut.clear()
    assert counts(index(repo, model, store)) == {**counts(first), "written": 0, "unchanged": first.chunks}
    assert cut == ["a\nb.py"]


def test_a_plan_needs_no_home(repo, model, monkeypatch):
    with open_store(f"milvus+lite://{repo.parent}/home.db") as store:
        index(repo, model, store)
        for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
            monkeypatch.delenv(name, raising=False)

        def homeless():
            raise RuntimeError("Could not determine home directory.")

        monkeypatch.setattr(Path, "home", homeless)
        assert plan(repo, store).unchanged == 3


def test_a_cache_that_is_too_large_is_not_read(repo, model, cut, monkeypatch):
    with open_store(f"qdrant+edge://{repo}/.c2llm") as store:
        index(repo, model, store)
        (file,) = (repo / ".c2llm").glob("*.chunks")
        monkeypatch.setattr(chunk_cache, "MAX_OWN_BYTES", file.stat().st_size - 1)
        cut.clear()
        index(repo, model, store)
    assert len(cut) == 3


edits = st.lists(
    st.tuples(st.sampled_from(["a.py", "d/b.py", "c.md", "e.txt"]), st.integers(-1, 4)), min_size=1, max_size=5
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(edits, min_size=2, max_size=4))
def test_runs_with_the_cache_equal_one_without(tmp_path_factory, model, turns):
    root = tmp_path_factory.mktemp("turns")
    with open_store(f"qdrant+edge://{root}/.c2llm") as store:
        for turn in turns:
            for path, content in turn:
                (root / path).parent.mkdir(exist_ok=True)
                if content < 0:
                    (root / path).unlink(missing_ok=True)
                else:
                    (root / path).write_text("\n" * content + "".join(map(function, "xyzuv"[: content + 1])))
            found = index(root, model, store, repository="turns")
            without = plan(root, options=IngestOptions(repository="turns"))
            assert (found.files, found.chunks, found.stored) == (without.files, without.chunks, without.chunks)
        kept = rows(store)
    with open_store("qdrant+memory://") as anew:
        index(root, model, anew, repository="turns")
        assert rows(anew) == kept


def test_rows_of_a_file_are_taken_only_by_their_digest():
    one, two = (chunk_source("r", path, function("f") + function("g") * 9) for path in ("one.py", "two.py"))
    held = StoredRows([*two, *one])
    assert held.take_file("one.py", rows_digest(two)) == 0
    assert held.take_file("three.py", rows_digest(one)) == 0
    assert held.take_file("one.py", "") == 0
    assert held.take_file("one.py", rows_digest(one[::-1])) == len(one)
    assert {path for _, path in held.left()} == {"two.py"}
