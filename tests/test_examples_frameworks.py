"""The framework examples run, offline, on a small project with a small model."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.golden import TIED

EXAMPLES = Path(__file__).parents[1] / "examples"


def run(name, *arguments):
    done = subprocess.run(
        [sys.executable, EXAMPLES / name, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_langchain_chain_is_shown_three_places(project):
    answer = run("langchain_rag.py", project, "how long to wait?", "--model", TIED)
    assert len(re.findall(r"[\w./]+:\d+-\d+", answer)) == 3
    assert "web/retry.js:1-4" in answer or "shop/prices.py" in answer


def test_the_llama_index_pipeline_names_three_places(project):
    first, *places, last = run("llama_index_pipeline.py", project, "how long to wait?", "--model", TIED).splitlines()
    assert first.startswith("4 files")
    assert len(places) == 3
    assert all(re.match(r"-?\d\.\d{3}  [\w./]+:\d+-\d+  ", place) for place in places)
    assert int(re.search(r"\d+", last)[0]) > 100


@pytest.mark.parametrize("name", ["langchain_rag.py", "llama_index_pipeline.py"])
def test_an_example_fits_a_screen(name):
    assert len((EXAMPLES / name).read_text(encoding="utf-8").splitlines()) < 60
