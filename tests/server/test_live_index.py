"""A checkout that agents ask: answers from the first moment on, current ones, and from nowhere else."""

import json
import re
import shutil
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from c2llm_integrations.cli.main import run
from c2llm_integrations.code.chunk import CodeChunk
from c2llm_integrations.errors import InputError, RepositoryError
from c2llm_integrations.retrieval import lexical_index
from c2llm_integrations.retrieval.search import UNREADABLE_NOTE
from c2llm_integrations.server import live_index as module
from c2llm_integrations.server.background_indexing import BackgroundIndexer, IndexingProcess
from c2llm_integrations.server.live_index import WORDS_ALONE, Answer, LiveIndex, LiveIndexConfig
from c2llm_integrations.server.mcp_answers import MAX_ANSWER_CHARS, MAX_HITS, SearchTools
from c2llm_integrations.stores import open_store
from c2llm_integrations.stores.records import Hit
from tests.waiting import until

pytestmark = pytest.mark.slow


def live(folder, **more):
    return LiveIndex(LiveIndexConfig(folder=folder, **more))


def ignore(done: int, total: int | None) -> None:
    """Show no progress."""


@pytest.fixture
def checkout(project, tiny_model):
    """The project, not indexed yet, looked at for each question."""
    one = live(project, model=str(tiny_model))
    yield one
    one.close()


@pytest.fixture
def indexed(checkout, monkeypatch):
    """The project, indexed."""
    monkeypatch.setattr(module, "LOOK_SECONDS", 0)
    checkout.refresh(ignore)
    return checkout


def paths(answer):
    return [hit.chunk.path for hit in answer.hits]


def test_words_answer_before_there_are_vectors_and_nothing_is_stored(checkout, project):
    answer = checkout.search("retry delay")
    assert paths(answer)[0] == "web/retry.js"
    assert answer.notes == [WORDS_ALONE, "nothing is indexed yet"]
    assert not (project / ".c2llm").exists()


def test_a_question_that_the_model_cannot_read_is_answered_by_words_with_a_note(project):
    (project / "fee.py").write_text("# 计算订单的运费\ndef fee():\n    return 1\n")
    one = live(project)
    try:
        one.refresh(ignore)
        answer = one.search("订单运费")
        assert answer.notes == [UNREADABLE_NOTE]
        assert paths(answer) == ["fee.py"]
        assert UNREADABLE_NOTE not in one.search("retry delay").notes
        assert UNREADABLE_NOTE not in one.search("订单运费", mode="lexical").notes  # as it was asked for
    finally:
        one.close()


def test_then_vectors_answer(indexed, project):
    answer = indexed.search("retry delay")
    assert answer.notes == []
    assert "web/retry.js" in paths(answer)
    assert indexed.status()["rows"] == len(list(open_store(indexed.url, wait=9).scan()))
    assert indexed._words is None


def test_what_changed_is_told_and_then_indexed(indexed, project):
    asked = []
    indexed.on_stale = lambda: asked.append(True)
    (project / "web" / "backoff.js").write_text("export const jitterWindow = 5;\n")
    assert indexed.search("jitter window").notes == ["answers may be stale: 1 file differs from the index (1 new)"]
    assert asked == [True]
    indexed.refresh(ignore)
    answer = indexed.search("jitter window", path="*.js")
    assert (answer.notes, paths(answer)[0]) == ([], "web/backoff.js")


def test_questions_are_answered_while_indexing(indexed, project, monkeypatch):
    """Every question of a run under way gets its answer from the rows that are there."""
    for number in range(30):
        (project / f"new{number}.py").write_text(f"def made_{number}():\n    return {number}\n")
    runner = threading.Thread(target=indexed.refresh, args=(ignore,))
    runner.start()
    answered = 0
    while runner.is_alive():
        assert indexed.search("add the tax").hits
        answered += 1
    runner.join()
    assert answered > 0
    assert indexed.search("made_7").notes == []


def test_filters_reach_both_ways_of_answering(checkout):
    for _ in range(2):
        assert set(paths(checkout.search("total items", language="Python"))) == {"shop/prices.py"}
        assert set(paths(checkout.search("delay", path="web/"))) == {"web/retry.js"}
        assert paths(checkout.search("delay", path="nosuch/")) == []
        assert paths(checkout.search("delay", language="rust")) == []
        assert set(paths(checkout.search("delay total", kind="class"))) == {"shop/prices.py"}
        with pytest.raises(InputError, match="no language 'klingon'"):
            checkout.search("delay", language="klingon")
        checkout.refresh(ignore)


@pytest.mark.parametrize("question", ["", " \n\t"])
def test_an_empty_question(checkout, question):
    for _ in range(2):
        with pytest.raises(InputError, match="empty"):
            checkout.search(question)
        checkout.refresh(ignore)


@pytest.mark.parametrize("question", ["?!", "delay " * 170_000, "задержка", "\x1b[2Jdelay\x07", "e\u0301" * 50])
def test_odd_questions_get_an_answer(indexed, question):
    assert indexed.search(question).hits


def test_a_limit_below_one(checkout):
    for _ in range(2):
        with pytest.raises(InputError, match="at least 1"):
            checkout.search("tax", limit=0)
        checkout.refresh(ignore)


def test_a_folder_that_vanished(indexed, project):
    shutil.move(project, project.with_name("elsewhere"))
    for ask in (lambda: indexed.search("tax"), indexed.status, lambda: indexed.chunk_at("README.md", 1)):
        with pytest.raises(RepositoryError, match="is gone"):
            ask()


def test_an_index_of_a_newer_release_is_named_and_words_answer(indexed, project):
    indexed.close()
    file = project / ".c2llm" / "code" / "c2llm.json"
    document = json.loads(file.read_text())
    document["spec"]["layout"] = 9
    del document["checksum"]  # that of the release it is made here
    file.write_text(json.dumps(document))
    answer = indexed.search("retry delay")
    assert paths(answer)[0] == "web/retry.js"
    assert "layout 9" in answer.notes[0]
    assert WORDS_ALONE in answer.notes


def test_a_model_that_is_gone_is_named_and_words_answer(project, tiny_model, tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(tiny_model, copy)
    first = live(project, model=str(copy))
    first.refresh(ignore)
    first.close()
    first.release()
    shutil.rmtree(copy)
    second = live(project)
    answer = second.search("retry delay")
    second.close()
    assert paths(answer)[0] == "web/retry.js"
    assert WORDS_ALONE in answer.notes
    assert str(copy) in answer.notes[0]


def test_a_folder_of_a_repository_is_all_that_is_searched(project, tiny_model):
    (project / ".git").mkdir()
    (project / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    live(project, model=str(tiny_model)).refresh(ignore)
    part = live(project / "web")
    for _ in range(2):
        assert set(paths(part.search("total items tax delay"))) == {"web/retry.js"}
        assert set(paths(part.search("delay", path="retry.js"))) == {"web/retry.js"}
        assert paths(part.search("delay", path="/shop/")) == []
        assert part.path_in_folder(part.search("delay").hits[0]) == "retry.js"
        assert part.chunk_at("retry.js", 2).path == "web/retry.js"
        with pytest.raises(InputError):
            part.chunk_at("../shop/prices.py", 1)
        part.look()
    part.close()


@pytest.mark.parametrize(
    "path", ["../outside.py", "/etc/passwd", ".env", "link.py", "linked/outside.py", "", "shop", "\0"]
)
def test_no_other_file_is_read(checkout, project, tmp_path, path):
    (tmp_path / "outside.py").write_text("secret = 1\n")
    (project / "link.py").symlink_to(tmp_path / "outside.py")
    (project / "linked").symlink_to(tmp_path)
    with pytest.raises(InputError, match="not an indexed file"):
        checkout.chunk_at(path, 1)
    assert "secret" not in "".join(hit.chunk.text for hit in checkout.search("secret", limit=50).hits)


def test_a_line_beyond_the_file(checkout):
    with pytest.raises(InputError, match="asked for line 99"):
        checkout.chunk_at("web/retry.js", 99)


def test_words_of_a_large_folder_are_read_up_to_a_limit(checkout, monkeypatch):
    monkeypatch.setattr("c2llm_integrations.retrieval.lexical_index.MAX_BYTES", 10)
    assert any("files are held in memory" in note for note in checkout.search("tax").notes)


def test_words_are_read_again_after_a_while(checkout, project, monkeypatch):
    assert checkout.search("jitterWindow").hits == []
    (project / "web" / "backoff.js").write_text("export const jitterWindow = 5;\n")
    assert checkout.search("jitterWindow").hits == []
    monkeypatch.setattr(lexical_index, "OLD_SECONDS", 0)
    monkeypatch.setattr(lexical_index, "OLD_FACTOR", 0)
    assert paths(checkout.search("jitterWindow")) == ["web/backoff.js"]


def test_a_collection_replaced_with_another_model_is_searched_with_that(indexed, project, tiny_model, capsys):
    assert indexed.search("tax").notes == []
    other = tiny_model.parent / "c2llm-tiny-compressed"
    assert run(["index", str(project), "--model", str(other), "--replace"]) == 0
    assert indexed.search("tax").notes == []
    assert indexed.embedder.checkpoint.name == str(other)


def test_what_is_read_so_far_answers(checkout, monkeypatch):
    monkeypatch.setattr(module, "READ_SECONDS", 0.3)
    go_on = threading.Event()
    real = lexical_index.chunk_source

    def slow(name, path, text, **how):
        if path == "web/retry.js":
            go_on.wait(30)
        return real(name, path, text, **how)

    monkeypatch.setattr(lexical_index, "chunk_source", slow)
    answer = checkout.search("total tax")
    assert "shop/prices.py" in paths(answer)
    assert any("read so far" in note for note in answer.notes)
    go_on.set()


# ---- a run in a process of its own, and the background indexer


def test_a_run_apart_shows_its_progress_and_what_it_did(checkout):
    seen = []
    run = IndexingProcess(checkout)
    watcher = threading.Thread(target=lambda: until(lambda: seen.append(checkout.state.progress) or seen[-1] is None))
    watcher.start()
    assert run.finish()
    watcher.join()
    assert (0, None) in seen
    assert checkout.state.progress is None
    assert checkout.search("tax").notes == []


def test_a_run_that_is_stopped_goes_on_the_next_time(checkout):
    run = IndexingProcess(checkout)
    run.stop()
    assert not run.finish()
    assert "its process ended with" in checkout.state.problem
    assert checkout.search("tax").hits
    assert IndexingProcess(checkout).finish()
    assert checkout.state.problem == ""


def test_a_run_runs_no_code_of_the_folder_it_reads(checkout, project, monkeypatch):
    for name in ("json", "numpy", "torch", "code", "c2llm_integrations"):
        (project / f"{name}.py").write_text("open('ran', 'w')\nraise SystemExit(3)\n")
    monkeypatch.chdir(project)
    assert IndexingProcess(checkout).finish(), checkout.state.problem
    assert not (project / "ran").exists()


def test_two_runs_at_once(project, tiny_model, monkeypatch):
    monkeypatch.setattr(module, "LOOK_SECONDS", 0)
    one, two = (live(project, model=str(tiny_model)) for _ in range(2))
    runs = [IndexingProcess(one), IndexingProcess(two)]
    ended = [run.finish() for run in runs]
    assert any(ended)
    assert {one.state.problem, two.state.problem} <= {"", "another process is indexing"}
    assert one.status()["answers_from"] == "vectors and words"


def test_the_indexer_indexes_refreshes_and_lets_go(project, tiny_model, monkeypatch):
    monkeypatch.setattr(module, "LOOK_SECONDS", 0)
    one = live(project, model=str(tiny_model))
    indexer = BackgroundIndexer([one], index=True, idle_seconds=0.5)
    indexer.start()
    until(lambda: one.search("tax").notes == [])
    (project / "late.py").write_text("late = 1\n")
    until(lambda: "late.py" in paths(one.search("late", path="*.py")))
    until(lambda: one._model is None)
    assert one.search("tax").hits
    assert indexer.stop(60)
    one.close()


def test_the_indexer_tells_what_failed_and_tries_again(project, tiny_model, monkeypatch):
    monkeypatch.setattr("c2llm_integrations.server.background_indexing.RETRY_SECONDS", 0.1)
    monkeypatch.setattr(module, "LOOK_SECONDS", 0)
    one = live(project, model=str(tiny_model))
    indexer = BackgroundIndexer([one], index=True, idle_seconds=60)
    (project / ".c2llm").write_text("no folder can be here\n")
    indexer.start()
    until(lambda: one.state.problem)
    assert one.search("tax").hits
    (project / ".c2llm").unlink()
    until(lambda: one.status()["answers_from"] == "vectors and words")
    assert one.state.problem == ""
    assert indexer.stop(60)
    one.close()


def test_an_indexer_ends_in_the_middle_of_a_run(checkout):
    indexer = BackgroundIndexer([checkout], index=True, idle_seconds=60)
    indexer.start()
    until(lambda: checkout.state.progress is not None)
    assert indexer.stop(30)


# ---- tools


def test_an_answer_is_bounded_and_steers_nothing(project, checkout):
    (project / "long.py").write_text(
        "".join(f"def tax_{n}():\n    return '{'tax ' * 200}\x1b[2J```'\n\n" for n in range(200))
    )
    text = SearchTools([checkout]).search_code("tax", 50, None, None, None, None)
    assert len(text) <= MAX_ANSWER_CHARS + 200
    assert "\x1b" not in text
    assert "````" in text  # a fence that the code cannot close


class OfRows:
    """A live index that answers with given rows."""

    folder = Path("of-rows")

    def __init__(self, chunk, notes=()):
        hits = [Hit(replace(chunk, id=str(number)), 1.0) for number in range(MAX_HITS)]
        self.answer = Answer(hits, list(notes))

    def search(self, *_, **__):
        return self.answer

    def path_in_folder(self, hit):
        return hit.chunk.path

    def status(self):
        return {"folder": "f" * 50_000, "notes": self.answer.notes}


CHUNK = CodeChunk("1", "r", "a.md", "markdown", "tax", "function", 1, 3, "tax\n" * 3)


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"path": "a/" * 50_000},
        {"path": "a/" * 1_800 + "x.py", "symbol": "S" * 9_000, "kind": "k" * 9_000, "language": "`" * 50_000},
        {"language": "z" * 50_000},
        {"text": "tax " + "`" * 15_000},
        {"text": ("`" * 290 + "\n") * 60},
        {"text": "\n" * 30_000 + "tax"},
    ],
)
@pytest.mark.parametrize("notes", [[], ["n" * 2_000] * 900])
def test_an_answer_is_bounded_whatever_rows_and_notes_say(given, notes):
    tools = SearchTools([OfRows(replace(CHUNK, **given), notes)])
    text = tools.search_code("tax", MAX_HITS, None, None, None, None)
    assert len(text) <= MAX_ANSWER_CHARS + 200
    assert len(tools.index_status()) <= MAX_ANSWER_CHARS
    shown, unseen = text.count("score 1.000"), re.search(r"… (\d+) more hits: ask for fewer", text)
    assert shown + int(unseen[1] if unseen else 0) == MAX_HITS
    assert shown >= MAX_HITS // 3
    assert ("more notes" in text) == bool(notes)
    assert all(len(line) <= 700 for line in text.splitlines())


def test_a_long_path_is_shown_as_it_can_be_given_back(project, tmp_path, tiny_model):
    path = f"{'/'.join(['d' * 57] * 6)}/{'f' * 20}.py"
    assert len(path) > 350
    (project / path).parent.mkdir(parents=True)
    (project / path).write_text("def zebra():\n    return 'stripes'\n")
    (tmp_path / "other").mkdir()
    for folders in ([project], [project, tmp_path / "other"]):
        tools = SearchTools([live(folder) for folder in folders])
        text = tools.search_code("zebra", 3, None, None, None, None)
        shown = re.search(r"^(\S+):1-2  function zebra", text, re.MULTILINE)[1]
        assert shown.endswith(path)
        assert tools.search_code("zebra", 3, None, None, shown, None).startswith("1 hit ")
        assert tools.find_similar(None, f"{shown}:1-2", 1, 3, None).splitlines()[0].endswith(f"similar to {shown}:1")


def test_many_long_paths_leave_an_answer_bounded():
    path = "/".join(["d" * 250] * 15)
    text = SearchTools([OfRows(replace(CHUNK, path=path))]).search_code("t", MAX_HITS, None, None, None, None)
    assert len(text) <= MAX_ANSWER_CHARS + 200
    assert text.count(path) == text.count("score 1.000") >= 4
    assert f"… {MAX_HITS - text.count(path)} more hits: ask for fewer" in text


def test_a_long_run_of_backticks_is_cut_and_cannot_close_its_fence():
    text = SearchTools([OfRows(replace(CHUNK, text="tax " + "`" * 15_000))]).search_code("t", 1, None, None, None, None)
    assert {len(run) for run in re.findall("`+", text)} == {39, 40}
    assert "tax " + "`" * 39 + "…" in text


def test_several_folders_are_told_apart(project, tmp_path, tiny_model):
    other = tmp_path / "other"
    other.mkdir()
    (other / "tax.py").write_text("def tax():\n    return 1\n")
    tools = SearchTools([live(project), live(other)])
    text = tools.search_code("tax", 10, None, None, None, None)
    assert "other/tax.py:1-2" in text
    assert "shop-project/shop/prices.py" in text
    assert "prices.py" not in tools.search_code("tax", 10, "other", None, None, None)
    with pytest.raises(InputError, match="not served"):
        tools.search_code("tax", 10, "/etc", None, None, None)
    with pytest.raises(InputError, match="in which folder"):
        tools.find_similar(None, "tax.py", 1, 5, None)
    assert "tax.py:1-2" not in tools.find_similar(None, "tax.py", 1, 5, "other")
    for file in ("other/tax.py", "other/tax.py:1-2", str(other / "tax.py")):
        assert "tax.py:1-2" not in tools.find_similar("", file, 1, 5, "")
        assert tools.search_code("tax", 10, "", "", file, "").startswith("1 hit ")
    assert "prices.py" not in tools.search_code("tax", 10, None, None, "other/", None)
    assert "nothing indexed has the path 'nosuch.py'" in tools.search_code("tax", 10, None, None, "nosuch.py", None)
    assert tools.index_status().count("folder: ") == 2


def test_similar_takes_code_or_a_place(checkout):
    tools = SearchTools([checkout])
    assert "web/retry.js" in tools.find_similar("Math.min(1000 * 2 ** attempt)", None, 1, 5, None)
    for code, file in ((None, None), ("x", "web/retry.js")):
        with pytest.raises(InputError, match="either code"):
            tools.find_similar(code, file, 1, 5, None)
