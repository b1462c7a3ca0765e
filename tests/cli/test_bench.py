"""The figures of a machine as a table, and as JSON."""

import json

import pytest

from c2llm_integrations.cli.main import run
from tests.golden import TIED

pytestmark = pytest.mark.slow


def test_the_command_prints_a_table_and_json(capsys):
    assert run(["bench", "--model", str(TIED), "--seconds", "5", "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["best"] == document["settings"][0]
    assert run(["bench", "--model", str(TIED), "--seconds", "5"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].split()[:3] == ["dtype", "batch_tokens", "tokens_per_second"]
    assert len(lines) == 1 + len(document["settings"])
