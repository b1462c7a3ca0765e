"""Questions from code alone: its error messages and its names."""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator

from benchmarks.development_set.archives import Tree
from benchmarks.development_set.documentation import ASIDE, all_definitions, unique_definitions
from benchmarks.development_set.languages import LANGUAGES, RAISES, Candidate, language
from c2llm_integrations.training.pairs import words

_NUMBER = re.compile(r"%[-+ 0-9.]*l*[dufixX]\b")
_HOLE = re.compile(
    r"%[-+#0-9.]*[a-zA-Z]|%\(\w+\)[a-z]|\$?\{[^{}]*\}|#\{[^{}]*\}|\\\([^()]*\)|(?<![\w$])\$\w+(?:->\w+)*|%\w+|~[pwsa]"
)
_VALUES = ("config.yml", "alpha", "user-17", "/tmp/input.dat", "example", "main", "node_3", "backup", "default", "x1")


def error(tree: Tree, seed: str = "") -> Iterator[Candidate]:
    """Yield error messages that one place raises, with values where that place fills them in."""
    found: list[tuple[str, str, int]] = []
    for path, text in tree.items():
        if language(path) in LANGUAGES:
            for match in RAISES.finditer(text):
                joined = (match[2] or "").strip() in ("+", ".")
                message = re.sub(r"\\(.)", r"\1", match[1][1:-1].replace("\\n", " ").replace("\\t", " "))
                found.append(
                    (" ".join(message.split()) + " {}" * joined, path, text.count("\n", 0, match.start(1)) + 1)
                )
    times = Counter(message for message, *_ in found)
    for message, path, line in found:
        said = re.sub(r"</?\w+>", "", _HOLE.sub("", message))
        if (
            times[message] == 1
            and len(re.findall(r"(?:^|\s)\W?[A-Za-z]{2,}\b", said)) >= 4
            and _is_plain(said)
            and not ASIDE.search(path)
        ):
            yield Candidate(filled(message, f"{seed} {message}"), path, line, line)


def _is_plain(said: str) -> bool:
    """Return whether nothing of a placeholder is left, as where a string within it ended the message."""
    return not re.search(r"[{}\\]|\$\w|\.\(|#\{", said)


def filled(message: str, seed: str) -> str:
    """Return a message whose placeholders have plausible values, drawn by `seed`."""
    rng = random.Random(seed)
    message = _NUMBER.sub(lambda _: str(rng.randrange(2, 500)), message.replace("%%", "%"))
    return _HOLE.sub(lambda _: rng.choice(_VALUES), message)


def symbol(tree: Tree) -> Iterator[Candidate]:
    """Yield names that one file defines, in turn whole and as words that no other name has next to one another."""
    homes = unique_definitions(tree)
    files: defaultdict[tuple[str, ...], set[str]] = defaultdict(set)
    for name, path, _ in all_definitions(tree):
        for run in _runs(name):
            files[run].add(path)
    everywhere = {path: f" {' '.join(words(path))} " for path in tree}
    asked = [name for name, (path, _) in sorted(homes.items()) if len(words(name)) > 1 and not ASIDE.search(path)]
    for number, name in enumerate(asked):
        path, line = homes[name]
        parts = [run for run in _runs(name) if len(files[run]) == 1 and not _in_other_path(run, path, everywhere)]
        if number % 2 == 0:
            yield Candidate(name, path, line, line)
        elif parts:
            yield Candidate(" ".join(parts[0]), path, line, line)


def _runs(name: str) -> list[tuple[str, ...]]:
    """Return the runs of two or three words of a name, but the whole of it, the shortest first."""
    whole = words(name)
    sizes = [size for size in (2, 3) if size < len(whole)]
    found = [tuple(whole[start : start + size]) for size in sizes for start in range(len(whole) - size + 1)]
    return [run for run in found if all(len(word) > 2 and word.isalpha() for word in run)]


def _in_other_path(run: tuple[str, ...], own: str, everywhere: dict[str, str]) -> bool:
    """Return whether another file's path has a run of words too."""
    return any(f" {' '.join(run)} " in said for path, said in everywhere.items() if path != own)
