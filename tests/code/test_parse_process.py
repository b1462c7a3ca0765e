"""What a text makes a grammar do ends another process than this one, and costs the file its syntax alone."""

import os
import subprocess
import sys
import time

import pytest

from c2llm_integrations.code import parsing
from c2llm_integrations.code.chunking import chunk_source
from c2llm_integrations.code.parsing import _Trial

# Each makes its parser recover from an error over a deep stack: its time and memory are the square of the length.
HOSTILE = {
    "tree_sitter_python": ("x.py", ("/*" * 200 + "\n") * 20),
    "tree_sitter_rust": ("x.rs", "[a(=a(=\n" * 1_000),
    "tree_sitter_bash": ("x.sh", "a |> " * 20_000),
}


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux alone")
@pytest.mark.parametrize("grammar", HOSTILE)
def test_a_text_that_takes_memory_is_cut_by_lines(tmp_path, grammar):
    pytest.importorskip(grammar)
    path, text = HOSTILE[grammar]
    (tmp_path / path).write_text(text)
    (tmp_path / "chunk.py").write_text(
        "import resource\n"
        "from c2llm_integrations.code.chunking import chunk_source\n"
        "resource.setrlimit(resource.RLIMIT_DATA, (2**29,) * 2)\n"
        f"chunks = chunk_source('r', {path!r}, open({str(tmp_path / path)!r}).read())\n"
        "print(chunks[0].kind, chunk_source('r', 'good.py', 'def f():\\n    pass\\n')[0].symbol)\n"
    )
    done = subprocess.run([sys.executable, tmp_path / "chunk.py"], capture_output=True, text=True, timeout=300)
    assert done.stdout.split() == ["text", "f"]


@pytest.mark.skipif(sys.platform != "linux", reason="memory is limited on Linux alone")
def test_a_large_text_may_take_no_more_than_a_gigabyte():
    """A `.c2llmignore` takes back files of up to 64 MiB, which came to 32 GB."""
    limit = "import resource\nfrom c2llm_integrations.code.parsing import _limit\n_limit(1, 2**26)\n"
    done = subprocess.run(
        [sys.executable, "-c", f"{limit}print(*resource.getrlimit(resource.RLIMIT_DATA))"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert int(done.stdout.split()[0]) == 2**30


def test_a_death_is_survived():
    trial = _Trial()
    assert trial.survives(10, "python", b"x = 1\n", None)
    trial._process.kill()
    trial._process.wait()
    assert trial.survives(10, "python", b"x = 1\n" * 100_000, None)


def test_an_interrupt_leaves_no_answer_for_the_next_text(monkeypatch):
    trial = _Trial()
    assert trial.survives(10, "python", b"x = 1\n", None)
    asked = parsing._asked

    def interrupted(process, *what):
        asked(process, *what)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(parsing, "_asked", interrupted)
        with pytest.raises(KeyboardInterrupt):
            trial.survives(10, "python", b"x = 1\n", None)
    assert trial._process is None
    assert trial.survives(10, "python", b"x = 1\n", None)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="nothing forks here")
def test_a_forked_process_has_one_of_its_own():
    assert parsing.survives(10, "python", b"x = 1\n", None)
    with parsing._TRIAL._lock:  # as another thread may hold it
        child = os.fork()
        if not child:
            os._exit(0 if parsing.survives(10, "python", b"x = 1\n", None) else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert parsing.survives(10, "python", b"x = 1\n", None)


def test_an_answer_that_never_comes_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(parsing, "_START", SPIN)
    monkeypatch.setattr(parsing, "ANSWER_SECONDS", 0.5)
    monkeypatch.setattr(parsing, "ANSWER_TIMES", 0)
    assert not _Trial().survives(1000, "python", b"x = 1\n", None)


def test_a_language_that_only_this_process_has_is_parsed(monkeypatch):
    assert _Trial().survives(10, "no such language", b"x = 1\n", None)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="there is no such limit")
def test_a_parser_that_never_ends_is_ended(monkeypatch):
    monkeypatch.setattr(parsing, "_START", SPIN)
    trial = _Trial()
    begin = time.monotonic()
    assert not trial.survives(0.1, "python", b"x = 1\n", None)
    assert time.monotonic() - begin < 60


SPIN = """
import sys
sys.path[:] = sys.argv[1:]
from c2llm_integrations.code import parsing

def spin(*_):
    while True:
        pass

parsing.parse_within = spin
parsing._serve()
"""


def test_files_are_parsed_where_no_process_can_be_started(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/nowhere/python")
    monkeypatch.setattr("c2llm_integrations.code.parsing.survives", _Trial().survives)
    assert chunk_source("r", "x.py", "def f():\n    pass\n")[0].symbol == "f"


def test_nothing_is_imported_from_the_current_folder(tmp_path, monkeypatch):
    (tmp_path / "tree_sitter.py").write_text("raise SystemExit(1)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend("")
    trial = _Trial()
    assert trial.survives(10, "python", b"x = 1\n", None)
    assert trial._process is not None
