"""A bar shows where somebody looks, and nowhere else."""

import io
import sys

import pytest

from c2llm_integrations._utils.progress import shown


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("asked", [True, False, None])
def test_without_a_terminal_nothing_is_drawn(asked, monkeypatch):
    monkeypatch.setattr(sys, "stderr", written := io.StringIO())
    with shown(asked) as report:
        assert report is None
    assert written.getvalue() == ""


def test_a_callback_is_called_as_it_is():
    seen = []
    with shown(lambda *step: seen.append(step)) as report:
        report(1, 2, "a.py")
    assert seen == [(1, 2, "a.py")]


def test_a_terminal_gets_a_bar_with_nothing_in_it_that_steers_it(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(sys, "stderr", written := Terminal())
    with shown() as report:
        report(3, 10, "src/\x1b[2Jevil.py")
    assert "3/10" in written.getvalue()
    assert "evil.py" in written.getvalue()
    assert "\x1b[2Jevil" not in written.getvalue()
