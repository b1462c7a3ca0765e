"""Checkouts inside checkouts, parts of one, and indexes that cannot be written to."""

import json
import shlex
import shutil
import subprocess
import sys

import pytest

from c2llm_integrations.cli import context
from c2llm_integrations.cli.main import run
from c2llm_integrations.code.listing import _tracked_by
from c2llm_integrations.indexing.claims import Claim, index_of
from c2llm_integrations.stores import own_index
from c2llm_integrations.stores.file_checksums import checksum_of
from c2llm_integrations.stores.vector_store import VectorStore
from tests.cli.running import answer, command, complaint
from tests.repositories import git

pytestmark = pytest.mark.slow


@pytest.fixture
def app(tmp_path, tiny_model, monkeypatch, capsys):
    """An indexed git repository of three packages, and the current folder."""
    root = tmp_path / "app"
    for name in ("a", "b", "c"):
        (root / "packages" / name).mkdir(parents=True)
        (root / "packages" / name / "m.py").write_text(f"def fn_{name}():\n    return 'zebra {name}'\n")
    git(root, "init")
    git(root, "add", "-A")
    git(root, "commit", "-m", "all")
    monkeypatch.chdir(root)
    answer(capsys, "index", "--model", tiny_model)
    return root


def asked(capsys, *arguments):
    """Return the paths and the notes of an answer."""
    document = json.loads(answer(capsys, "search", "zebra", "--json", *arguments))
    return {hit["file"] for hit in document["hits"]}, document["notes"]


@pytest.mark.parametrize("kind", ["worktree", "clone", "submodule"])
@pytest.mark.parametrize("below", ["", "packages/a"])
def test_a_checkout_inside_another_has_its_own_answers_or_a_note(kind, below, app, tiny_model, monkeypatch, capsys):
    inner = app / "nested" / "x"
    if kind == "worktree":
        git(app, "worktree", "add", "-b", "x", str(inner))
    else:
        how = ["submodule", "add"] if kind == "submodule" else ["clone"]
        origin = app.with_name("origin")
        git(app.parent, "clone", str(app), str(origin))
        git(app, "-c", "protocol.file.allow=always", *how, str(origin), "nested/x")
    monkeypatch.chdir(inner / below)
    _, notes = asked(capsys)
    assert any("another checkout" in note and "c2llm index" in note for note in notes), notes
    (inner / "packages" / "a" / "m.py").write_text("def fn_inner():\n    return 'zebra inner'\n")
    answer(capsys, "index", inner, "--model", tiny_model)
    monkeypatch.chdir(inner)
    files, notes = asked(capsys)
    assert "packages/a/m.py" in files
    assert not any("another checkout" in note for note in notes)
    monkeypatch.chdir(app)
    files, _ = asked(capsys)
    assert ("nested/x/packages/a/m.py" in files) == (kind == "submodule")


def test_a_nested_repository_is_named_with_the_way_to_add_it(app, capsys, tiny_model):
    git(app.parent, "clone", str(app), str(app / "vendor"))
    git(app / "vendor", "remote", "set-url", "origin", "https://example.com/them/vendor.git")
    process = subprocess.run(command("index"), capture_output=True, text=True, check=True)
    line = next(line for line in process.stderr.splitlines() if "another repository" in line)
    assert "c2llm index vendor --store qdrant+edge://" in line
    answer(capsys, *line.partition("c2llm ")[2].split())
    files, notes = asked(capsys)
    assert "vendor/packages/a/m.py" in files
    assert notes == []


def test_the_name_of_a_nested_repository_is_no_option_of_an_advised_command(app, capsys, tiny_model):
    git(app.parent, "clone", str(app), str(app / "--include-secrets"))
    git(app / "--include-secrets", "remote", "set-url", "origin", "https://example.com/them/vendor.git")
    process = subprocess.run(command("index"), capture_output=True, text=True, check=True)
    assert "run: c2llm index ./--include-secrets --store qdrant+edge://" in process.stderr


@pytest.mark.parametrize("parts", [["packages/a"], ["packages/b", "packages/a"], ["packages/a", "packages/c"]])
def test_a_part_stays_a_part(parts, app, tiny_model, capsys):
    for number, part in enumerate(parts):
        answer(capsys, "index", part, *([] if number else ["--replace"]))
    (app / parts[0] / "m.py").write_text("def changed():\n    return 'zebra changed'\n")
    _, notes = asked(capsys)
    wanted = " && ".join(f"c2llm index {part}" for part in sorted(parts))
    assert notes[0].endswith(f"run: {wanted}")
    for record in (app / ".c2llm").glob(".*.states"):
        record.unlink()  # as a killed run leaves it
    files, notes = asked(capsys, "--index")
    assert (files, notes) == ({f"{part}/m.py" for part in parts}, [])


@pytest.mark.parametrize("here", ["packages/b", "packages/b/new"])
def test_who_asks_beside_the_part_that_is_indexed_is_told(here, app, tiny_model, monkeypatch, capsys):
    answer(capsys, "index", "packages/a", "--replace")
    (app / here).mkdir(exist_ok=True)
    for place in (app, app / "packages", app / "packages/a"):
        monkeypatch.chdir(place)
        assert asked(capsys)[1] == []
    monkeypatch.chdir(app / here)
    assert asked(capsys)[1] == [f"of this checkout only packages/a is indexed, not {app / here}; run: c2llm index"]
    answer(capsys, "index")
    assert asked(capsys)[1] == []


@pytest.mark.parametrize("change", ["add origin", "change origin", "rename folder", "remove origin"])
def test_the_stored_name_is_kept(change, app, monkeypatch, capsys, tiny_model):
    if change in ("change origin", "remove origin"):
        git(app, "remote", "add", "origin", "git@github.com:acme/svc.git")
        answer(capsys, "index", "--replace", "--model", tiny_model)
    name = json.loads(answer(capsys, "index", "--json"))["repository"]
    if change == "rename folder":
        monkeypatch.chdir(app.parent)
        app.rename(app.with_name("renamed"))
        monkeypatch.chdir(app.with_name("renamed"))
    elif change == "remove origin":
        git(app, "remote", "remove", "origin")
    else:
        git(app, "remote", *change.split(), "git@github.com:newco/svc.git") if change == "add origin" else git(
            app, "remote", "set-url", "origin", "git@github.com:newco/svc.git"
        )
    report = json.loads(answer(capsys, "index", "--json"))
    assert (report["repository"], report["written"]) == (name, 0)
    assert asked(capsys, "--index")[1] == []


# Lets even root be refused, then becomes the command: CAP_DAC_OVERRIDE and CAP_DAC_READ_SEARCH are dropped.
DROP_PRIVILEGES = """
import ctypes, os, sys
for capability in (1, 2):
    ctypes.CDLL(None).prctl(24, capability, 0, 0, 0)
os.execv(sys.argv[1], sys.argv[1:])
"""


def unprivileged(*arguments):
    started = [sys.executable, "-c", DROP_PRIVILEGES, *command(*arguments)]
    return subprocess.run(started, capture_output=True, text=True, check=False)


@pytest.mark.skipif(sys.platform != "linux", reason="root is refused differently there")
@pytest.mark.parametrize("closed", [[".c2llm"], ["."], [".c2llm/code/shard"]])
def test_an_index_that_cannot_be_written_to_is_searched(closed, app, tmp_path_factory, monkeypatch):
    copies = tmp_path_factory.mktemp("copies")
    monkeypatch.setenv("TMPDIR", str(copies))

    folders = [one for top in closed for one in (app / top, *(app / top).rglob("*")) if ".git" not in one.parts]
    modes = {one: one.stat().st_mode for one in folders}
    for one in reversed(folders):
        one.chmod(modes[one] & ~0o222)
    try:
        found = unprivileged("search", "zebra", "--json")
        assert found.returncode == 0, found.stderr
        assert len(json.loads(found.stdout)["hits"]) == 3
        assert unprivileged("status").returncode == 0
        (said,) = unprivileged("index", "--replace").stderr.splitlines()[-1:]
        assert "--store qdrant+edge://PATH" in said
    finally:
        for one in folders:
            one.chmod(modes[one])
    assert not list(copies.glob("c2llm-*/segments"))


@pytest.mark.skipif(sys.platform != "linux", reason="root is refused differently there")
def test_an_index_that_cannot_be_searched_says_why(app, tmp_path, tiny_model, capsys):
    lite = tmp_path / "rows.db"
    answer(capsys, "index", "--store", f"milvus+lite://{lite}", "--model", tiny_model)
    for folder, mode, why in [
        (app / ".c2llm", 0o000, "cannot be read (Permission denied); ask its owner"),
        (app / ".c2llm" / "code", 0o000, "cannot be read (Permission denied); ask its owner"),
        (lite, 0o555, "rows.db cannot be written to, as Milvus Lite has to even for a search"),
    ]:
        folder.chmod(mode)
        try:
            url = f"milvus+lite://{lite}" if folder == lite else f"qdrant+edge://{app / '.c2llm'}"
            said = unprivileged("search", "zebra", "--store", url)
            assert (said.returncode, len(said.stderr.splitlines())) == (1, 1), said.stderr
            assert why in said.stderr
        finally:
            folder.chmod(0o755)


def test_vectors_are_copied_from_a_store_that_is_named(app, tiny_model, tmp_path, monkeypatch, capsys):
    shared = f"qdrant+edge://{tmp_path / 'shared'}"
    git(app, "remote", "add", "origin", "https://example.org/acme/app.git")
    answer(capsys, "index", "--store", shared, "--repository", "app", "--model", tiny_model)
    clone = tmp_path / "clone"
    git(tmp_path, "clone", str(app), str(clone))
    (clone / "packages" / "a" / "m.py").write_text("def fn_local():\n    return 'zebra local'\n")
    monkeypatch.chdir(clone)
    assert run(["index", "--repository", "app", "--vectors-from", shared, "--model", tiny_model]) == 0
    assert f"2 vectors were copied from {shared}" in capsys.readouterr().err
    assert asked(capsys)[0] >= {"packages/a/m.py", "packages/b/m.py", "packages/c/m.py"}


def test_a_store_that_holds_nothing_gives_no_vectors(app, tiny_model, tmp_path, monkeypatch, capsys):
    clone, empty = tmp_path / "clone", f"qdrant+edge://{tmp_path / 'empty'}"
    git(tmp_path, "clone", str(app), str(clone))
    monkeypatch.chdir(clone)
    refused = complaint(capsys, 1, "index", "--vectors-from", empty, "--model", tiny_model)
    assert "holds no collection 'code' to take vectors from" in refused
    assert not (clone / ".c2llm" / "code").exists()


def ship(app, claims):
    """Let the index of the checkout claim more, as one that came along may."""
    file = app / ".c2llm" / "code" / "c2llm.json"
    document = json.loads(file.read_text())
    del document["checksum"]
    document["claims"].update(claims)
    file.write_text(json.dumps({**document, "checksum": checksum_of(document)}))


def test_a_claimed_checkout_that_is_gone_is_a_note(app, capsys):
    ship(app, {"empty": "./empty", "out": "./../../etc"})
    files, notes = asked(capsys)
    assert len(files) == 3
    assert notes == []  # nothing of what is not there is found
    answer(capsys, "search", "zebra", "--index")
    answer(capsys, "status")


@pytest.mark.parametrize("kind", ["submodule", "clone"])
def test_what_is_gone_is_told_with_the_way_to_drop_it(kind, app, tiny_model, monkeypatch, capsys):
    origin = app.with_name("gone of x")
    git(app.parent, "clone", str(app), str(origin))
    how = ["submodule", "add"] if kind == "submodule" else ["clone"]
    git(app, "-c", "protocol.file.allow=always", *how, str(origin), "x")
    answer(capsys, "index", "x", "--store", own_index(app), "--model", tiny_model)
    rows = json.loads(answer(capsys, "status", "--json"))["rows"]
    shutil.rmtree(app / "x")
    there = json.loads(answer(capsys, "status", "--json"))["repositories"]
    [name] = [one["repository"] for one in there if one["folder"] != str(app)]
    _, notes = asked(capsys)
    [note] = [note for note in notes if "is gone" in note]
    told, _, advice = note.partition("; to drop it, run: c2llm ")
    assert told == f"{app / 'x'} is gone, and what was indexed of it is still found as {name!r}"
    assert "did you mean" in complaint(capsys, 1, "drop", "code", "--repository", name[:-1], "--yes")
    assert "--yes" in complaint(capsys, 2, *shlex.split(advice))
    assert run([*shlex.split(advice), "--yes"]) == 0
    assert f"dropped {name!r} in 'code', 3 rows" in capsys.readouterr().err
    files, notes = asked(capsys)
    assert (len(files), [note for note in notes if "is gone" in note]) == (3, [])
    assert json.loads(answer(capsys, "status", "--json"))["rows"] == rows - 3


def test_a_submodule_that_is_not_checked_out_is_told_with_the_way_to_get_it(app, tiny_model, capsys):
    origin = app.with_name("origin")
    git(app.parent, "clone", str(app), str(origin))
    git(app, "-c", "protocol.file.allow=always", "submodule", "add", str(origin), "libs/x")
    git(app, "commit", "-m", "x")
    git(app, "submodule", "deinit", "-f", "libs/x")
    process = subprocess.run(command("index"), capture_output=True, text=True, check=True)
    [line] = [line for line in process.stderr.splitlines() if "submodule" in line]
    assert line.startswith("libs/x is a submodule that is not checked out; to search it too, run: git submodule update")
    git(app, "-c", "protocol.file.allow=always", *shlex.split(line.partition("run: git ")[2].partition(" && ")[0]))
    answer(capsys, *shlex.split(line.partition(" && c2llm ")[2]))
    assert "libs/x/packages/a/m.py" in asked(capsys)[0]


def test_a_folder_in_an_advised_command_is_never_an_option(app, tiny_model, capsys):
    commit = git(app, "rev-parse", "HEAD").strip()
    git(app, "update-index", "--add", "--cacheinfo", f"160000,{commit},--upload-pack=x")
    (app / "--upload-pack=x").mkdir()
    process = subprocess.run(command("index"), capture_output=True, text=True, check=True)
    [line] = [line for line in process.stderr.splitlines() if "submodule" in line]
    assert "git submodule update --init ./--upload-pack=x && c2llm index ./--upload-pack=x" in line


def test_a_claim_that_names_no_path_is_damage(app, capsys):
    ship(app, {"odd": "./a%00b"})
    assert "claims.odd is './a%00b', expected text" in complaint(capsys, 1, "search", "zebra")


def test_hundreds_of_claims_are_parsed_once_and_few_are_told(app, capsys, monkeypatch):
    for number in range(500):
        (app / f"a{number}").mkdir()
    ship(app, {f"n{number}": f"./a{number}" for number in range(500)})
    (app / "packages" / "a" / "m.py").write_text("def changed():\n    return 'zebra changed'\n")
    parsed, real = [], Claim.parse
    monkeypatch.setattr(Claim, "parse", lambda text: (parsed.append(text), real(text))[1])
    _, notes = asked(capsys)
    assert "1 changed" in notes[0]  # the current checkout is looked at first
    assert len(notes) == context.MAX_NOTES + 1
    assert notes[-1] == f"{501 - context.MAX_NOTES:,} more checkouts of this index were not looked at"
    assert len(parsed) < 3 * 501


def test_a_claim_of_many_long_folders_makes_a_short_note(app, capsys):
    folders = [f"n{number}/{'/'.join(['d' * 200] * 15)}" for number in range(20)]
    for folder in folders:
        (app / folder).mkdir(parents=True)
    ship(app, {"app": str(Claim(".", None, ("packages", *folders)))})
    (app / "packages" / "a" / "m.py").write_text("def changed():\n    return 'zebra changed'\n")
    _, notes = asked(capsys)
    assert any("1 changed" in note and "the same of 20 more folders" in note for note in notes), notes
    assert all(len(note) <= context.MAX_NOTE for note in notes)


@pytest.mark.parametrize("parts", [1, 3, 8, 12])
def test_a_command_in_a_note_is_whole_or_not_there(app, capsys, parts):
    """A shell takes the middle of a quoted path for a command, once the quotes around it are cut away."""
    odd = "/".join(["'" * 60 + ";touch PWNED;#" + "a" * 60] * parts)
    (app / odd).mkdir(parents=True)
    ship(app, {"app": str(Claim(".", None, (odd,)))})
    (app / odd / "m.py").write_text("def changed():\n    return 'zebra changed'\n")
    _, notes = asked(capsys)
    (note,) = (note for note in notes if "1 new" in note)
    _, has_command, advised = note.partition("; run: ")
    assert has_command or "index the folder again" in note
    if has_command:
        assert shlex.split(advised)[:3] == ["c2llm", "index", odd]
    assert len(note) <= context.MAX_NOTE
    assert bool(has_command) == (len(shlex.quote(odd)) < context.MAX_COMMANDS - 30)


@pytest.mark.parametrize("kind", ["dead", "anothers", "clone"])
def test_a_git_file_alone_does_not_choose_the_outer_index(app, tiny_model, capsys, kind):
    """Only the repository that keeps a submodule's git folder may have its rows."""
    inner = app / "mine"
    inner.mkdir()
    (inner / "secret.py").write_text("def inner():\n    return 'zebra inner'\n")
    modules = {"dead": "/nonexistent", "anothers": str(inner / "g"), "clone": str(app.with_name("other"))}[kind]
    if kind != "dead":
        git(app.parent, "clone", "--bare", str(app), f"{modules}/modules/m")
        git(f"{modules}/modules/m", "config", "core.bare", "false")
    (inner / ".git").write_text(f"gitdir: {modules}/modules/m\n")
    assert index_of(inner) == own_index(inner)


def test_a_name_of_any_length_makes_a_short_note(app, capsys, monkeypatch):
    ship(app, {"n" * 1_000_000: "./gone"})
    monkeypatch.setattr(VectorStore, "count", lambda *_, **__: 1)
    _, notes = asked(capsys)
    [note] = [note for note in notes if note.startswith(f"{app / 'gone'} is gone")]
    assert len(note) == context.MAX_NOTE


def test_all_checkouts_share_a_time_limit(app, capsys, monkeypatch):
    for name in ("one", "two", "three"):
        (app / name).mkdir()
        (app / name / "a.py").write_text(f"def {name}():\n    return 'zebra {name}'\n")
        git(app / name, "init")
        answer(capsys, "index", app / name, "--store", f"qdrant+edge://{app / '.c2llm'}")
    assert asked(capsys)[1] == []
    monkeypatch.setattr(context, "NOTES_SECONDS", 0.0)
    files, notes = asked(capsys)
    assert len(files) == 6
    assert notes == ["4 more checkouts of this index were not looked at"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs pipes")
def test_a_git_folder_that_never_answers_takes_what_is_left_of_the_time(app, capsys, monkeypatch):
    """Each of its calls would take git's whole time limit."""
    for name in ("one", "two"):
        (app / name).mkdir()
        (app / name / "a.py").write_text("def zebra():\n    return 'zebra'\n")
        git(app / name, "init")
        git(app / name, "add", ".")
        answer(capsys, "index", app / name, "--store", f"qdrant+edge://{app / '.c2llm'}")
    real = subprocess.Popen
    hanging = ["sh", "-c", "exec sleep 600"]
    monkeypatch.setattr(
        "c2llm_integrations.code.git.subprocess.Popen",
        lambda arguments, **how: real(hanging if "ls-files" in arguments else arguments, **how),
    )
    monkeypatch.setattr(context, "NOTES_SECONDS", 1.0)
    _tracked_by.cache_clear()
    _, notes = asked(capsys)
    assert "git did not answer within" in notes[0]
    assert notes[1:] == ["2 more checkouts of this index were not looked at"]
