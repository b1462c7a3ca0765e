"""Fuse two ranked lists into one, by a few rules that can each be switched off.

A score lies in 0…1. The lists are fused to `(1 - w)·cosine + w·BM25 / best BM25`, where w depends on the kind of
question. The rules are:

- `kind`: w and some rules depend on the kind of question; without it every question counts as words.
- `definition`, `symbol`, `path`, `location`, `phrase`: each closes a share of the gap to 1.
- `tests`, `generated`, `legacy`, `prose`: each takes a share of the score away.
- `exact`: 1 for a text that is the question.
- `file`: closes a share of the gap for the best hit of a file, and takes a share from the file's others.
- `coverage`: lowers all scores by one factor if even the best lexical hit holds only some of the question's terms. The
  order stays, and scores of different questions become comparable.
- `copies`: leaves out a hit with nearly the lines of a better one.

A hit's `explanation` has the amount that each step added or took; its values sum to the score.

The constants lie where their neighbors score alike, on labeled questions about repositories of the development set.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from typing import get_args

from c2llm_integrations.code.chunk import CodeChunk
from c2llm_integrations.code.languages import is_prose
from c2llm_integrations.code.lexical_terms import defines, document_terms, stems
from c2llm_integrations.errors import InputError, did_you_mean
from c2llm_integrations.retrieval.options import RULES, Mode
from c2llm_integrations.retrieval.question import Kind, Question, read, words_of
from c2llm_integrations.stores.ids import RecordId
from c2llm_integrations.stores.records import AnyRecord, Candidates, Hit

# The weight of the lexical list: names, messages and copied code are found by their exact words. A name's is lower,
# so that a mere use of it cannot score above its definition.
LEXICAL_WEIGHT: dict[Kind, float] = {"words": 0.35, "symbol": 0.6, "code": 0.8, "error": 0.8}
# Shares of the gap to 1 that are closed by a chunk which …
DEFINITION = 0.95  # defines the name that is asked for
SYMBOL = 0.15  # has a symbol all of whose words are in the question
FILE_NAME = 0.3  # lies in a file all of whose name's words are in the question
PATH = 0.3  # has a path that holds all words of the question
LOCATION = 0.9  # holds the line that a stack trace names
PHRASE = 0.9  # holds words of the question in a row, as a message's source does, times the square of their share
FILE = 0.3  # is its file's best hit, times the sum of the other hits' scores, each halved once more than the one before
FILE_DECAY = 0.5
# Fewer words in a row prove nothing; only texts with this share of the best lexical score are searched for them.
PHRASE_WORDS, PHRASE_LEXICAL = 4, 0.5
# A file's second hit keeps this share of its score, the third the square of it, …, so that a page shows more files.
FURTHER = 0.8
# Shares of the score that are left to tests and examples; to generated, vendored and declaration files; to older copies
# kept for compatibility; and to running text, which speaks the question's language and would otherwise hide the code
# that it describes.
LEFT = {"tests": 0.5, "generated": 0.7, "legacy": 0.7, "prose": 0.8}
# Two hits are copies if they share this part of their lines.
COPY = 0.9

_TESTS = re.compile(
    r"(^|/)(tests?|__tests__|testing|testdata|specs?|__mocks__|mocks?|fixtures?|examples?|samples?|demos?|"
    r"bench|benchmarks?)/|(^|/)(test_[^/]*|conftest\.py|[^/]*([._-](test|tests|spec|bench)|Tests?|Spec)\.[^/.]+)$"
)
_GENERATED = re.compile(
    r"(^|/)(_?vendor(ed)?|third_party|node_modules|dist|(__)?generated(__)?|locales?)/"
    r"|\.(d\.[mc]?ts|pyi|min\.js|pb\.go|g\.dart)$|(_pb2(_grpc)?\.py|[._]generated\.[^/.]+)$"
)
_LEGACY = re.compile(r"(^|/)_?(legacy|deprecated|compat|v1)/")
_stems = lru_cache(2**14)(stems)
# A question with one of these words asks for the files that a rule would put last.
_TEST_WORDS = frozenset(stems("test spec example sample demo benchmark mock fixture"))
_LEGACY_WORDS = frozenset(stems("legacy deprecated compat compatibility v1 old older"))
_PROSE_WORDS = frozenset(stems("readme docs documentation documented changelog license guide tutorial"))


@lru_cache(3 * 2**14)
def _matches(places: re.Pattern[str], path: str) -> bool:
    return places.search(path) is not None


@dataclass(slots=True)
class _Scored:
    record: AnyRecord
    chunk: CodeChunk
    score: float = 0.0
    steps: dict[str, float] = field(default_factory=dict)
    is_exact: bool = False

    def add(self, step: str, amount: float) -> None:
        """Change the score by an amount, and explain it by the step."""
        if amount:
            self.steps[step] = self.steps.get(step, 0.0) + amount
            self.score += amount

    def approach_one(self, step: str, share: float) -> None:
        """Close a share (at most all) of the gap between the score and 1."""
        self.add(step, (1 - self.score) * min(share, 1.0))


def rank(
    query: str,
    found: Candidates,
    limit: int,
    mode: Mode = "hybrid",
    rules: Collection[str] = RULES,
    weight: float | None = None,
) -> list[Hit]:
    """Return the `limit` best of the candidates, best first, with scores in 0…1 and their explanations.

    "dense" and "lexical" use one list only. `rules`: those of `RULES` to apply. `weight` (0…1) of the lexical list
    replaces, in mode "hybrid", the weight of the question's kind.
    Raises InputError for a mode or a rule that does not exist, or a weight outside its bounds.
    """
    require_known(mode, rules)
    if weight is not None and not 0 <= weight <= 1:
        raise InputError(f"the weight of words is {weight}, must be in 0…1; the weight of vectors is the rest")
    question = read(query) if "kind" in rules else replace(read(query), kind="words")
    lexical_weight = _lexical_weight(mode, question.kind, weight)
    scored = _fused([] if mode == "lexical" else found.dense, [] if mode == "dense" else found.lexical, lexical_weight)
    whole = query.strip()
    for hit in scored:
        lexical = hit.steps.get("lexical", 0.0)
        _apply(hit, question, rules, is_lexically_close=lexical > 0 and lexical >= PHRASE_LEXICAL * lexical_weight)
        hit.is_exact = "exact" in rules and hit.chunk.text.strip() == whole
        hit.approach_one("exact", float(hit.is_exact))  # also for rows of other programs, which have no lexical terms
    scored.sort(key=_order)
    if "file" in rules:
        _add_files(scored)
        scored.sort(key=_order)
    if "coverage" in rules and lexical_weight and found.lexical:
        best = found.lexical[0].chunk
        lost = lexical_weight * (1 - _share(question.terms, set(document_terms(best.path, best.text))))
        for hit in scored:
            hit.add("coverage", -lost * hit.score)
    kept = _without_copies(scored, limit) if "copies" in rules else scored[:limit]
    return [Hit(hit.record, hit.score, hit.steps) for hit in kept]


def _lexical_weight(mode: Mode, kind: Kind, given: float | None) -> float:
    """Return the weight of the lexical list. One list alone is scaled as if the other had found nothing."""
    if mode == "dense":
        return 0.0
    if mode == "lexical":  # not 1, so that the rules have room above it
        return max(LEXICAL_WEIGHT.values())
    return LEXICAL_WEIGHT[kind] if given is None else given


def require_known(mode: str, rules: Collection[str]) -> None:
    """Raise InputError for a mode or a rule that does not exist."""
    if mode not in get_args(Mode):
        raise InputError(f"mode is {mode!r}, must be one of: {', '.join(get_args(Mode))}")
    for rule in rules:
        if rule not in RULES:
            raise InputError(f"there is no ranking rule {rule!r}{did_you_mean(rule, RULES)}")


def _order(hit: _Scored) -> tuple[float, bool, str, int, str]:
    # Places and ids decide between equal scores, so that every store gives the same order.
    return -hit.score, not hit.is_exact, hit.chunk.path, hit.chunk.start_line, str(hit.record.row_id)


def _fused(dense: Sequence[Hit], lexical: Sequence[Hit], weight: float) -> list[_Scored]:
    """Merge the lists by row; a negative cosine counts as 0."""
    scored: dict[RecordId, _Scored] = {}
    for hit in dense:
        amount = (1 - weight) * min(max(hit.score, 0.0), 1.0)
        scored.setdefault(hit.record.row_id, _Scored(hit.record, hit.chunk)).add("dense", amount)
    best = max((hit.score for hit in lexical), default=0.0)
    for hit in lexical if best > 0 else ():
        amount = weight * max(hit.score, 0.0) / best
        scored.setdefault(hit.record.row_id, _Scored(hit.record, hit.chunk)).add("lexical", amount)
    return list(scored.values())


def _apply(hit: _Scored, question: Question, rules: Collection[str], is_lexically_close: bool) -> None:
    chunk = hit.chunk
    if question.kind == "symbol" and "definition" in rules:
        hit.approach_one("definition", DEFINITION * _defined(chunk, question.name))
    if question.kind == "words" and "symbol" in rules:
        hit.approach_one("symbol", SYMBOL * _share(_stems(chunk.symbol), question.stems))
    if question.kind in ("words", "symbol") and "path" in rules:
        folders, _, name = chunk.path.rpartition("/")
        name_stems = _stems(name.partition(".")[0])
        hit.approach_one("path", FILE_NAME * _share(name_stems, question.stems))
        hit.approach_one("path", PATH * _share(question.stems, {*name_stems, *_stems(folders)}))
    if question.locations and "location" in rules:
        hit.approach_one("location", LOCATION * any(_holds(chunk, *place) for place in question.locations))
    if question.kind in ("words", "error") and is_lexically_close and "phrase" in rules:
        hit.approach_one("phrase", PHRASE * _quoted(question.words, chunk.text) ** 2)
    for rule in _penalties(chunk, question):
        if rule in rules:
            hit.add(rule, (LEFT[rule] - 1) * hit.score)


def _penalties(chunk: CodeChunk, question: Question) -> Iterator[str]:
    if _matches(_TESTS, chunk.path) and not question.stems & _TEST_WORDS:
        yield "tests"
    if _matches(_GENERATED, chunk.path):
        yield "generated"
    if _matches(_LEGACY, chunk.path) and not question.stems & _LEGACY_WORDS:
        yield "legacy"
    if is_prose(chunk.path, chunk.language) and not question.stems & _PROSE_WORDS:
        yield "prose"


def _defined(chunk: CodeChunk, name: Sequence[str]) -> float:
    """Return how much of a qualified name, from its end, the chunk defines: 0…1."""
    symbol = list(map(_plain, chunk.symbol.split(".")))
    asked = list(map(_plain, name[-len(symbol) :]))
    equal = 0
    while equal < len(asked) and asked[-1 - equal] == symbol[-1 - equal]:
        equal += 1
    return equal / len(name) if equal else float(defines(chunk.text, name[-1]))


def _plain(name: str) -> str:
    return name.replace("_", "").rstrip("?!").lower()


def _share(part: Collection[str], whole: Collection[str]) -> float:
    return sum(word in whole for word in part) / len(part) if part else 0.0


def _quoted(words: Sequence[str], text: str) -> float:
    """Return the largest share of the words that stands in a text one after the other; 0 for fewer than a phrase."""
    text, longest = f" {' '.join(words_of(text))} ", 0
    for start in range(len(words)):
        while start + longest < len(words) and f" {' '.join(words[start : start + longest + 1])} " in text:
            longest += 1
    return longest / len(words) if longest >= PHRASE_WORDS else 0.0


def _holds(chunk: CodeChunk, path: str, line: int) -> bool:
    """Return whether a chunk holds a line; a trace may name the file by its absolute path or by its name only."""
    same = f"/{path}".endswith(f"/{chunk.path}") or f"/{chunk.path}".endswith(f"/{path}")
    return same and chunk.start_line <= line <= chunk.end_line


def _add_files(scored: Sequence[_Scored]) -> None:
    """Raise each file's best hit by the scores of its other hits, and lower these; `scored`: best first."""
    files: defaultdict[tuple[str, str], list[_Scored]] = defaultdict(list)
    for hit in scored:
        files[hit.chunk.repository, hit.chunk.path].append(hit)
    for best, *others in files.values():
        if best.chunk.path:
            worth = sum(hit.score * FILE_DECAY**place for place, hit in enumerate(others))
            best.approach_one("file", FILE * worth)
            for place, hit in enumerate(others, 1):
                if not hit.is_exact:
                    hit.add("file", (FURTHER**place - 1) * hit.score)


def _without_copies(scored: Sequence[_Scored], limit: int) -> list[_Scored]:
    kept: list[_Scored] = []
    seen: list[frozenset[str]] = []
    for hit in scored:
        if len(kept) >= limit:
            break
        lines = frozenset(filter(None, map(str.strip, hit.chunk.text.splitlines())))
        if not lines or not any(_alike(lines, other) for other in seen):
            kept.append(hit)
            seen.append(lines)
    return kept


def _alike(one: frozenset[str], other: frozenset[str]) -> bool:
    if min(len(one), len(other)) < COPY * max(len(one), len(other)):
        return False
    return len(one & other) >= COPY * len(one | other)
