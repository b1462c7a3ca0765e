"""The steps of a distributed run, in one process and without a cluster."""

import errno
import json
import os
import shutil
import subprocess

import numpy as np
import pytest
import ray
from hypothesis import given
from hypothesis import strategies as st

from c2llm_integrations.code.chunking import chunk_source
from c2llm_integrations.code.git import MAX_OUTPUT
from c2llm_integrations.errors import InputError, StoreError
from c2llm_integrations.indexing.claims import Claim
from c2llm_integrations.indexing.ray import pipeline_stages
from c2llm_integrations.indexing.ray.batches import ChunkBatch, Destination, Sum
from c2llm_integrations.indexing.ray.cluster import Cluster, connected
from c2llm_integrations.stores.records import Row
from c2llm_integrations.stores.spec import CollectionSpec
from tests.ingesting import write_tree

SPEC = CollectionSpec(4, {"model": "none"})


@pytest.fixture
def destination(tmp_path):
    """A pass over an empty collection."""
    one = Destination("qdrant+memory://", token=str(tmp_path))
    one.open().create(SPEC)
    return one


def again(destination):
    """The next pass over the same store: whatever was read of it is forgotten."""
    Destination.claims.cache_clear()
    pipeline_stages._held_of.cache_clear()
    pipeline_stages._commit_of.cache_clear()
    return destination


def through(batch, destination):
    """Chunk and store a batch."""
    done = pipeline_stages.chunk(batch, destination)
    vectors = np.ones((len(done.new), 4), np.float32) if done.new else None
    return pipeline_stages.write(ChunkBatch(done.result, done.new, vectors, done.moved), destination)


def store_tree(folder, destination):
    again(destination)
    return [through(batch, destination) for batch in pipeline_stages.list_source(str(folder), destination, False)]


@given(st.lists(st.uuids().map(str), unique=True), st.randoms())
def test_a_sum_knows_a_set_of_ids_in_any_order_and_parts(ids, random):
    whole = Sum().add(ids)
    cut = random.randint(0, len(ids))
    random.shuffle(ids)
    assert Sum().add(ids[:cut]) + Sum().add(ids[cut:]) == whole
    assert whole - Sum().add(ids[:cut]) == Sum().add(ids[cut:])


def test_a_file_that_cannot_be_chunked_costs_itself_and_keeps_its_rows(destination, tmp_path, monkeypatch):
    tree = write_tree(tmp_path / "one", 0, files=6)
    store_tree(tree, destination)
    held = destination.open().count(source="one")

    def fail(name, path, text):
        if path == "file_3.py":
            raise RecursionError
        return chunk_source(name, path, text)

    monkeypatch.setattr(pipeline_stages, "chunk_source", fail)
    done = store_tree(tree, destination)
    assert sum((batch.ids for batch in done), Sum()).count == held
    assert [path for batch in done for path in batch.report.skipped.get("unreadable", [])] == ["file_3.py"]
    assert [id for batch in done for id in batch.stale] == []


def test_where_the_folder_is_not_mounted_nothing_is_stale(destination, tmp_path):
    tree = write_tree(tmp_path / "one", 0, files=6)
    store_tree(tree, destination)
    listed = list(pipeline_stages.list_source(str(tree), again(destination), False))
    shutil.rmtree(tree)
    done = [pipeline_stages.chunk(batch, destination) for batch in listed]
    assert "vanished" in done[1].result.failed
    assert [id for batch in done for id in batch.result.stale] == []


def test_nothing_is_deleted_while_a_new_row_is_missing(destination, tmp_path):
    tree = write_tree(tmp_path / "one", 0, files=6)
    store_tree(tree, destination)
    write_tree(tree, 1, files=6)
    done = store_tree(tree, destination)
    wanted = sum((batch.ids for batch in done), Sum())
    stale = [id for batch in done for id in batch.stale]
    assert stale
    [lost, *_] = [row.id for row in destination.open().scan(source="one") if row.id not in stale]
    vector = destination.open().vectors([lost])[lost]
    [chunk] = [row.chunk for row in destination.open().rows(source="one") if row.chunk.id == lost]
    destination.open().delete([lost])
    before = destination.open().count()
    with pytest.raises(StoreError, match=f"holds {wanted.count - 1} rows of 'one', expected {wanted.count}"):
        pipeline_stages.finish("one", destination, wanted, stale, None, Claim("me"))
    assert destination.open().count() == before
    destination.open().upsert([Row(chunk, vector)])
    for _ in range(2):  # a task may run twice
        pipeline_stages.finish("one", destination, wanted, stale, None, Claim("me"))
        assert destination.open().count() == wanted.count


def test_the_same_folder_and_url_have_one_owner_wherever_they_are_read():
    here, there = Destination("x", host="driver"), Destination("x", host="driver", token="other")
    for source in ("/shared/one", "https://example.org/a/b.git"):
        assert here.owner_of(source) == there.owner_of(source)
    assert here.owner_of("/shared/one") != Destination("x", host="other").owner_of("/shared/one")
    assert here.owner_of("https://example.org/a/b.git") == Destination("x").owner_of("https://me@example.org/a/b.git")


def test_texts_are_left_out_as_files_are(destination):
    paths = ["a.py", "b.py", "c.py", "id_rsa", "e.py", "f.py", "g.unknown", "h.ipynb", "i.py"]
    notebook = json.dumps({"cells": [{"cell_type": "code", "source": "x = 3", "outputs": ["y" * 2_000_000]}]})
    texts = ["x = 1\n", None, "y" * 2_000_000, "secret", "\ud800", "x = 2\n", "words " * 2_000, notebook, "x\0y = 1\n"]
    batch = pipeline_stages.list_texts("one", paths, texts, "x.parquet", destination, False)
    assert (batch.result.files, batch.result.rows) == (["a.py", "f.py", "h.ipynb"], 9)
    assert batch.result.report.skipped == {
        "no text": ["b.py"],
        "too large": ["c.py"],
        "secret": ["id_rsa"],
        "binary": ["e.py", "i.py"],
        "minified": ["g.unknown"],
    }
    assert "yyy" not in batch.texts["h.ipynb"]


def test_texts_of_a_repository_that_another_source_fills_are_refused_without_force(destination, tmp_path):
    store_tree(write_tree(tmp_path / "one", 0, files=6), destination)
    refused = pipeline_stages.list_texts("one", ["a.py"], ["x = 1\n"], "x.parquet", again(destination), False)
    assert "--force" in refused.result.failed
    taken = pipeline_stages.list_texts("one", ["a.py"], ["x = 1\n"], "x.parquet", again(destination), True)
    assert (taken.result.failed, destination.open().claims()["one"]) == ("", taken.result.owner)


def test_a_symbolic_link_in_a_clone_is_no_text(destination, tmp_path):
    tree = write_tree(tmp_path / "work", 0, files=2)
    (tree / "link.py").symlink_to("file_1.py")
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    for arguments in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "one"]):
        subprocess.run(["git", *arguments], cwd=tree, check=True)
    listed = list(pipeline_stages.list_source((tree).as_uri(), destination, False))
    assert [path for batch in listed for path in batch.texts] == ["file_1.py"]
    assert len({batch.result.commit for batch in listed}) == 1


def commit_all(tree):
    identity = ["-c", "user.name=t", "-c", "user.email=t@example.org"]
    for arguments in (["init", "-q"], ["add", "."], [*identity, "commit", "-qm", "one"]):
        subprocess.run(["git", *arguments], cwd=tree, check=True)


def test_a_ref_that_is_not_utf_8_does_not_end_the_run(destination, tmp_path):
    tree = write_tree(tmp_path / "work", 0, files=2)
    commit_all(tree)
    head = subprocess.run(["git", "rev-parse", "HEAD"], cwd=tree, check=True, capture_output=True, text=True).stdout
    for name in (b"a", b"\xff"):
        folder = os.path.join(os.fsencode(tree), b".git/refs/heads", name)
        os.mkdir(folder)
        with open(os.path.join(folder, b"HEAD"), "w") as ref:
            ref.write(head)
    listed = list(pipeline_stages.list_source(tree.as_uri(), destination, False))
    assert [path for batch in listed for path in batch.texts] == ["file_1.py"]


def test_what_nobody_foresaw_costs_its_source_alone(destination, tmp_path, monkeypatch):
    tree = write_tree(tmp_path / "work", 0, files=2)

    def full(*_, **__):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(pipeline_stages, "TemporaryDirectory", full)
    commit_all(tree)
    (batch,) = pipeline_stages.list_source(tree.as_uri(), destination, False)
    assert "No space left" in batch.result.failed


def test_a_clone_runs_no_filter_of_the_user_and_keeps_every_byte(destination, tmp_path, monkeypatch):
    tree = write_tree(tmp_path / "work", 0, files=2)
    text = "first = 1\n# $Id$\n"
    (tree / "x.py").write_text(text)
    commit_all(tree)
    (tree / ".gitattributes").write_text("* filter=mine ident text eol=crlf\n[attr]own filter=mine\nx.py own\n")
    commit_all(tree)
    settings = tmp_path / "gitconfig"
    settings.write_text(f'[filter "mine"]\nsmudge = touch {tmp_path}/ran; cat\nrequired\n[core]\nautocrlf = true\n')
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", str(settings))
    texts = {
        path: one
        for batch in pipeline_stages.list_source(tree.as_uri(), destination, False)
        for path, one in batch.texts.items()
    }
    assert not (tmp_path / "ran").exists()
    assert texts["x.py"] == text


def bare(folder, levels, width, text):
    """Make a bare repository of one text, `width` times in a folder, which stands as often in the next, and so on."""
    subprocess.run(["git", "init", "-q", "--bare", folder], check=True)

    def git(*arguments, given=""):
        command = ["git", "-C", folder, "-c", "user.name=t", "-c", "user.email=t@example.org", *arguments]
        return subprocess.run(command, input=given, capture_output=True, check=True, text=True).stdout.strip()

    kind, one = "100644 blob", git("hash-object", "-w", "--stdin", given=text)
    for _ in range(levels):
        one = git("mktree", given="".join(f"{kind} {one}\tf{number}.py\n" for number in range(width)))
        kind = "040000 tree"
    git("update-ref", "HEAD", git("commit-tree", one, "-m", "one"))
    return folder


@pytest.mark.parametrize(
    ("levels", "lines", "said"),
    [
        (6, 1, f"git printed over {MAX_OUTPUT:,} bytes"),
        (3, 2**19, "have 103,079,215,104 bytes, at most"),
    ],
)
def test_a_few_objects_that_stand_for_far_more_files_are_not_laid_out(destination, tmp_path, levels, lines, said):
    [batch] = pipeline_stages.list_source(
        str(bare(tmp_path / "bomb.git", levels, 32, "x = 1\n" * lines)), destination, False
    )
    assert said in batch.result.failed


def test_a_repository_without_a_commit_has_no_files(destination, tmp_path):
    subprocess.run(["git", "init", "-q", "--bare", tmp_path / "empty.git"], check=True)
    [batch] = pipeline_stages.list_source(str(tmp_path / "empty.git"), destination, False)
    assert (batch.result.failed, batch.texts) == ("", {})


def test_an_empty_folder_is_one_batch(destination, tmp_path):
    (tmp_path / "empty").mkdir()
    [batch] = store_tree(tmp_path / "empty", destination)
    assert (batch.batches, batch.ids, batch.failed) == (1, Sum(), "")


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("https://example.org/Org/Repo.git", "example.org/Org/Repo"),
        ("file:///srv/repo/.git", "repo"),
        ("/srv/repo/.git", "repo"),
        ("https://example.org/ghp_" + "aBcDeF" * 6, "digest"),
        ("https://example.org/glpat-" + "aBcDeF" * 4 + ".git", "digest"),
        ("https://me:s3cret@example.org/", "digest"),
    ],
)
def test_a_remote_without_a_safe_name_is_named_by_its_digest(source, name):
    assert pipeline_stages.name_of_remote(source, "digest") == name


@pytest.mark.parametrize("address", [None, "local"])
def test_a_ray_that_asks_nobody_for_a_token_is_not_started(address, monkeypatch):
    monkeypatch.setattr(ray, "__version__", "2.58.3")
    monkeypatch.setattr(ray, "init", lambda *_, **__: pytest.fail("every machine of the network could run code here"))
    with pytest.raises(InputError, match=r"Ray 2\.58\.3 would let .*'ray>=2\.59'"), connected(Cluster(address)):
        pass
