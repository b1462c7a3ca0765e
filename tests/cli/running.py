"""Command lines, run for real."""

import sys

from c2llm_integrations.cli.main import run


def command(*arguments):
    """Return the argument list that runs `c2llm` in a process of its own."""
    return [sys.executable, "-m", "c2llm_integrations", *map(str, arguments)]


def answer(capsys, *arguments):
    """Run a command that must succeed and return what it printed."""
    capsys.readouterr()
    assert run(list(map(str, arguments))) == 0
    return capsys.readouterr().out


def complaint(capsys, code, *arguments):
    """Run a command that must fail with `code` and return its one line."""
    capsys.readouterr()
    assert run(list(map(str, arguments))) == code
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
    assert "Traceback" not in printed.err
    return printed.err
