"""A repository on this machine that a Ray run clones gives what its own git folder holds, and nothing of another."""

import os
import shutil
import sys
import tempfile
import time

import pytest

from c2llm_integrations.code import git as git_module
from c2llm_integrations.indexing.ray import pipeline_stages
from c2llm_integrations.indexing.ray.batches import Destination
from c2llm_integrations.stores.spec import CollectionSpec
from tests.repositories import commit_all, git

pytestmark = pytest.mark.skipif(os.name != "posix", reason="needs POSIX links and pipes")


@pytest.fixture
def destination(tmp_path):
    one = Destination("qdrant+memory://", token=str(tmp_path))
    one.open().create(CollectionSpec(4, {"model": "none"}))
    return one


@pytest.fixture
def private(tmp_path):
    root = tmp_path.resolve() / "private"
    root.mkdir()
    (root / "secret.py").write_text("secret = 1\n")
    commit_all(root)
    return root


def texts_of(source, destination):
    batches = list(pipeline_stages.list_source(str(source), destination, False))
    assert [batch.result.failed for batch in batches] == [""] * len(batches)
    return {path for batch in batches for path in batch.texts}


def why_refused(source, destination):
    """Return why a source is not cloned, which is said at once."""
    began = time.monotonic()
    [batch] = pipeline_stages.list_source(str(source), destination, False)
    assert time.monotonic() - began < 10
    assert batch.texts is None
    assert "clone it yourself with git clone --no-local and give the clone's folder" in batch.result.failed
    assert "\n" not in batch.result.failed
    return batch.result.failed


@pytest.mark.parametrize("linked", [["objects", "refs"], ["objects"], ["refs"]])
def test_objects_or_refs_of_another_repository_are_refused(destination, private, tmp_path, linked):
    hostile = tmp_path / "hostile"
    shutil.copytree(private / ".git", hostile)
    for name in linked:
        shutil.rmtree(hostile / name)
        (hostile / name).symlink_to(private / ".git" / name)
    assert f"{hostile / linked[0]} is a link" in why_refused(hostile, destination)


@pytest.mark.parametrize("name", ["alternates", "http-alternates"])
def test_alternates_are_refused(destination, private, tmp_path, name):
    git(tmp_path, "clone", "-q", "--shared", "--bare", private, tmp_path / "hostile")
    info = tmp_path / "hostile" / "objects" / "info"
    (info / "alternates").rename(info / name)
    assert f"{info / name} names another repository's objects" in why_refused(tmp_path / "hostile", destination)


@pytest.mark.parametrize("how", [["--shared"], ["--reference", "private"]])
def test_why_a_clone_with_shared_objects_is_refused_and_its_way_out(destination, private, tmp_path, how):
    git(tmp_path, "clone", "-q", *how, private.as_uri() if len(how) > 1 else private, "shared")
    failed = why_refused((tmp_path / "shared").as_uri(), destination)
    assert (
        "shared/.git/objects/info/alternates names another repository's objects, as after git clone --shared or "
        in failed
    )
    git(tmp_path, "clone", "-q", "shared", "again")
    assert "alternates" in why_refused((tmp_path / "again").as_uri(), destination)
    git(tmp_path, "clone", "-q", "--no-local", "shared", "own")
    assert texts_of((tmp_path / "own").as_uri(), destination) == {"secret.py"}


@pytest.mark.parametrize("url", ["https://host/x", "ssh://git@host/x"])
def test_a_folder_of_a_urls_name_is_not_taken_for_it(private, tmp_path, monkeypatch, url):
    monkeypatch.chdir(tmp_path)
    shutil.copytree(private, tmp_path / url)
    with pipeline_stages._address(url) as (address, protocols):
        assert (address, protocols) == (url, "git:http:https:ssh")


@pytest.mark.parametrize("how", ["commondir", "gitdir", "worktree", "link"])
def test_a_git_folder_that_does_not_name_the_checkout_is_refused(destination, private, tmp_path, how):
    git(private, "worktree", "add", "-q", "-b", "side", tmp_path / "side")
    hostile = tmp_path / "hostile"
    hostile.mkdir()
    if how == "commondir":
        (hostile / ".git").mkdir()
        (hostile / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
        (hostile / ".git" / "commondir").write_text(f"{private}/.git\n")
    elif how == "link":
        (hostile / ".git").symlink_to(private / ".git")
    else:
        (hostile / ".git").write_text(f"gitdir: {private}/.git{'/worktrees/side' * (how == 'worktree')}\n")
    assert f"leads to {private}/.git, which does not name" in why_refused(hostile.as_uri(), destination)


@pytest.mark.parametrize("name", ["objects/pack/pack-x.idx", "refs/heads/main", "objects/info/alternates"])
def test_a_pipe_is_not_waited_for(destination, private, tmp_path, name):
    git(tmp_path, "clone", "-q", "--bare", private, tmp_path / "hostile")
    (tmp_path / "hostile" / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / "hostile" / name)
    why_refused(tmp_path / "hostile", destination)


@pytest.mark.parametrize("kind", ["itself", "bare", "git folder", "worktree", "submodule", "bare beside worktrees"])
def test_honest_repositories_are_cloned(destination, private, tmp_path, kind):
    source = tmp_path / "source"
    if kind == "bare":
        git(tmp_path, "clone", "-q", "--bare", private, source)
    elif kind == "worktree":
        git(private, "worktree", "add", "-q", "-b", "side", source)
    elif kind == "submodule":
        git(tmp_path, "clone", "-q", private, tmp_path / "outer")
        git(tmp_path / "outer", "submodule", "add", "-q", private, "inner")
        source = tmp_path / "outer" / "inner"
    elif kind == "bare beside worktrees":
        git(tmp_path, "clone", "-q", "--bare", private, source / ".bare")
        (source / ".git").write_text("gitdir: ./.bare\n")
    else:
        source = private if kind == "itself" else private / ".git"
    assert texts_of(source if kind == "bare" else source.as_uri(), destination) == {"secret.py"}


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux limits another process")
def test_a_clone_that_takes_too_much_disk_is_refused_and_leaves_nothing(destination, private, tmp_path, monkeypatch):
    for number in range(90):  # few enough that git would keep each in a file of its own
        (private / f"{number}.bin").write_bytes(os.urandom(40_000))
    commit_all(private)
    (temporary := tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setattr(git_module, "MAX_CHECKOUT", 10**6)
    [batch] = pipeline_stages.list_source(private.as_uri(), destination, False)
    way_out = f"it has over 1,000,000 bytes, and no more are fetched into {temporary}; clone it yourself"
    assert batch.result.failed == f"{private.as_uri()} cannot be read: {way_out}"
    assert list(temporary.iterdir()) == []
