"""Questions from code alone: its error messages and its names."""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator

from benchmarks.development_set.archives import Tree
from benchmarks.development_set.documentation import ASIDE, all_definitions, unique_definitions
from benchmarks.development_set.languages import LANGUAGES, RAISES, Candidate, language
from c2llm_integrations.training.docstring_pairs import words

_NUMBER = re.compile(r"%[-+ 0-9.]*l*[dufixX]\b")
_HOLE = re.compile(
    r"%[-+#0-9.]*[a-zA-Z]|%\(\w+\)[a-z]|\$?\{[^{}]*\}|#\{[^{}]*\}|\\\([^()]*\)|(?<![\w$])\$\w+(?:->\w+)*|%\w+|~[pwsa]"
)
_VALUES = ("config.yml", "alpha", "user-17", "/tmp/input.dat", "example", "main", "node_3", "backup", "default", "x1")


def error(tree: Tree, seed: str = "") -> Iterator[Candidate]:
    """Yield error messages that one place raises, with values where that place fills them in."""
    found = [one for path, text in tree.items() if language(path) in LANGUAGES for one in _messages(path, text)]
    times = Counter(message for message, *_ in found)
    for message, path, line in found:
        said = re.sub(r"</?\w+>", "", _HOLE.sub("", message))
        # What is left of a placeholder shows that a string within it ended the message.
        is_good = len(re.findall(r"(?:^|\s)\W?[A-Za-z]{2,}\b", said)) >= 4 and not re.search(r"[{}\\]|\$\w|\.\(", said)
        if is_good and times[message] == 1 and not ASIDE.search(path):
            yield Candidate(filled(message, f"{seed} {message}"), path, line)


def _messages(path: str, text: str) -> Iterator[tuple[str, str, int]]:
    for match in RAISES.finditer(text):
        message = re.sub(r"\\(.)", r"\1", match[1][1:-1].replace("\\n", " ").replace("\\t", " "))
        joined = " {}" * ((match[2] or "").strip() in ("+", "."))
        yield " ".join(message.split()) + joined, path, text.count("\n", 0, match.start(1)) + 1


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
    paths = {path: f" {' '.join(words(path))} " for path in tree}
    asked = [name for name, (path, _) in sorted(homes.items()) if len(words(name)) > 1 and not ASIDE.search(path)]
    for number, name in enumerate(asked):
        path, line = homes[name]
        parts = [" ".join(run) for run in _runs(name) if len(files[run]) == 1]
        parts = [one for one in parts if not any(f" {one} " in said for other, said in paths.items() if other != path)]
        for question in [name] if number % 2 == 0 else parts[:1]:
            yield Candidate(question, path, line)


def _runs(name: str) -> list[tuple[str, ...]]:
    """Return the runs of two or three words of a name, but the whole of it, the shortest first."""
    whole = words(name)
    sizes = [size for size in (2, 3) if size < len(whole)]
    found = [tuple(whole[start : start + size]) for size in sizes for start in range(len(whole) - size + 1)]
    return [run for run in found if all(len(word) > 2 and word.isalpha() for word in run)]
