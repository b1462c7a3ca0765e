"""What the README shows works."""

import re
from pathlib import Path

import pytest

from c2llm_integrations.cli import run

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"^```{language}\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)


def commands(program):
    lines = "\n".join(blocks("sh")).splitlines() + re.findall(r"`([^`\n]+)`", README)
    return sorted({line.split("  #")[0].strip() for line in lines if line.startswith(f"{program} ")})


@pytest.mark.parametrize("code", blocks("python"), ids=lambda code: code.splitlines()[-1].strip()[:40])
def test_python_blocks_run(code, project, monkeypatch, capsys):
    monkeypatch.chdir(project)
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out.strip()


def test_the_library_block_finds_the_answer(project, monkeypatch, capsys):
    monkeypatch.chdir(project)
    exec(compile(blocks("python")[0], "README.md", "exec"), {})
    assert " web/retry.js:" in capsys.readouterr().out.splitlines()[1]


@pytest.mark.parametrize("line", commands("c2llm"))
def test_command_lines_use_options_that_exist(line, capsys):
    _, name, *_ = line.split()
    assert run([name, "--help"]) == 0
    assert set(re.findall(r"--[a-z-]+", line)) <= set(re.findall(r"--[a-z-]+", capsys.readouterr().out))


@pytest.mark.parametrize("line", commands("make"))
def test_make_targets_and_variables_exist(line):
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for word in line.split()[1:]:
        name, is_variable, _ = word.partition("=")
        assert re.search(rf"^{name} \?=" if is_variable else rf"^{name}:", makefile, re.MULTILINE)


def test_every_linked_file_exists():
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    assert all(link.startswith("https://") or (ROOT / link).exists() for link in links)
