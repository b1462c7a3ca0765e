"""The page's blocks run, each by the program that it is for."""

import subprocess
import sys

from c2llm_integrations.cli import main
from tests.docs.pages import DOCS, blocks, command_lines


def test_the_page_runs_from_top_to_bottom(tmp_path, monkeypatch, fastembed_python, transformers_js):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "node_modules").symlink_to(transformers_js.parents[1])
    names = {}
    for number, block in enumerate(blocks(DOCS / "onnx.md")):
        if block.language == "sh":
            for line in command_lines(block.code):
                assert main.run(line[1:]) == 0
        elif block.language == "python" and "fastembed" not in block.code:
            exec(compile(block.code, "onnx.md", "exec"), names)
        else:
            program, end = (fastembed_python, "py") if block.language == "python" else ("node", "mjs")
            (tmp_path / f"block{number}.{end}").write_text(block.code, encoding="utf-8")
            run(program, f"block{number}.{end}")


def run(*command):
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    print(done.stdout, file=sys.stderr)
