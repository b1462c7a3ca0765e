"""Candidates → the questions that are committed: drawn by seed, split by package."""

from __future__ import annotations

import json
import random
import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from benchmarks.development_set.archives import Package, Tree
from benchmarks.development_set.code import error, symbol
from benchmarks.development_set.documentation import behavior, central, changelog
from benchmarks.development_set.languages import Candidate, are_related, language
from c2llm_integrations.training.docstring_pairs import words

QUESTIONS = Path(__file__).parents[1] / "data" / "development_questions.jsonl"
EACH = 12
# Half of the packages, a quarter, a quarter: dealt out in this order over the packages of one language after another.
_DEAL = ("tune", "choose", "tune", "report")
SPLITS = ("tune", "choose", "report")

Finder = Callable[[Tree], Iterator[Candidate]]


@dataclass(frozen=True, slots=True)
class Question:
    """A question to a package, the files and lines (PATH:FIRST-LAST) that answer it, and its split.

    `removed` are spans that the indexed copy must not have, because they hold the question's own words.
    """

    package: str
    kind: str
    language: str
    question: str
    files: list[str]
    lines: list[str]
    split: str
    removed: list[str]


def splits(packages: Iterable[Package], seed: int) -> dict[str, str]:
    """Return each package's split."""
    order = sorted(packages, key=lambda one: (one.language, random.Random(f"{seed} {one.name}").random()))
    return {package.name: _DEAL[number % len(_DEAL)] for number, package in enumerate(order)}


def draw(package: Package, tree: Tree, split: str, seed: int) -> list[Question]:
    """Return up to `EACH` questions of each kind about a package, no more than one for a line or of the same words."""
    messages: Finder = partial(error, seed=f"{seed} {package.name}")
    finders = {"behavior": behavior, "central": central, "changelog": changelog, "error": messages, "symbol": symbol}
    plain = {path: _plain(text) for path, text in tree.items()}
    drawn = []
    for kind, find in finders.items():
        candidates = sorted(find(tree), key=lambda one: (one.path, one.line, one.question))
        random.Random(f"{seed} {package.name} {kind}").shuffle(candidates)
        taken: list[Candidate] = []
        for one in candidates:
            if len(taken) == EACH:
                break
            is_new = all(one.question != other.question and one.path != other.path for other in taken)
            if is_new and (kind != "behavior" or sum(text.count(_plain(one.question)) for text in plain.values()) == 1):
                taken.append(one)
        for one in taken:
            where = [one.path], [f"{one.path}:{one.line}-{one.line}"], split, [one.removed] * bool(one.removed)
            drawn.append(Question(package.name, kind, language(one.path), one.question, *where))
    return drawn


def _plain(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", " ", text.lower()).strip()


def vocabulary(tree: Tree) -> frozenset[str]:
    """Return the words that a package has anywhere, whole and as parts of names."""
    return frozenset(word for path, text in tree.items() for word in words(f"{path} {text}"))


def unanswerable(
    packages: Mapping[str, Package], known: Mapping[str, frozenset[str]], asked: Sequence[Question], seed: int
) -> list[Question]:
    """Return up to `EACH` questions for each package that belong to packages of another family of languages.

    Each has a word that the package does not have anywhere. They come from the same split, so that no split shows
    questions of another.
    """
    split_of = {one.package: one.split for one in asked}
    found = []
    for name, package in packages.items():
        others = [
            one
            for one in asked
            if one.split == split_of.get(name)
            and not any(
                are_related(spoken, package.language) for spoken in (packages[one.package].language, one.language)
            )
            and any(len(word) > 3 and word not in known[name] for word in words(one.question))
        ]
        few = random.Random(f"{seed} {name} none").sample(others, min(EACH, len(others)))
        found += [Question(name, "none", package.language, one.question, [], [], one.split, []) for one in few]
    return found


def write(questions: Iterable[Question], file: Path) -> None:
    """Write one JSON object per line."""
    file.write_text("".join(json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in questions), encoding="utf-8")


def read(split: str, file: Path = QUESTIONS) -> dict[str, list[Question]]:
    """Return package → its questions, for the packages of a split.

    Raises SystemExit for a split that does not exist.
    """
    if split not in SPLITS:
        raise SystemExit(f"there is no split {split!r}; choose one of {', '.join(SPLITS)}")
    found: defaultdict[str, list[Question]] = defaultdict(list)
    for question in (Question(**json.loads(line)) for line in file.read_text(encoding="utf-8").splitlines()):
        if question.split == split:
            found[question.package].append(question)
    return found
