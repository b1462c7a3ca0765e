"""Analyze a chunk or a question into lexical terms: identifiers whole, in their parts, and the parts' stems.

`HTTPServer.max_pool_sizes` gives httpserver, http, server, serv, maxpoolsizes, max, pool, sizes, size: maxPoolSizes and
MaxPoolSizes share every term of it. A whole identifier is never stemmed, and a name in a question matches only
itself; plain words match by their stems, so that "how are routes registered" finds `register_route`. The names
that a text defines count more.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import lru_cache
from itertools import chain

import numpy as np

# Part of a collection's spec: change it whenever the same text may give other terms or weights.
ANALYZER = "code-2"
# Longer runs are data (hashes, base64), which nobody types.
MAX_TERM_CHARS = 64
# What a question may ask for; a longer one (a pasted file) is searched by its first terms.
MAX_QUERY_TERMS = 256
MAX_QUERY_CHARS = 2**16
# Okapi BM25's usual saturation and length normalization (Robertson & Zaragoza 2009, section 3.4).
K1 = 1.2
B = 0.75
# Roughly the mean of chunks; a constant, so that a row's weights depend on the row alone.
AVERAGE_TERMS = 130
# How often a word counts that stands in the path, and one that the chunk defines (BM25F's field weights).
PATH_WEIGHT = 2
DEFINITION_WEIGHT = 4

_WORD = re.compile(r"[^\W_]+(?:_+[^\W_]+)*")
_PART = re.compile(r"[A-Z]+(?![a-z])\d*|[A-Z]?[a-z]+\d*|\d+")
# Letters of scripts written without spaces (Chinese, Japanese, Thai, Lao, Burmese, Khmer), or in which particles are
# glued to the noun (Korean): these words are found by their pairs of letters.
UNSPACED = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uac00-\ud7a3"
_UNSPACED_RUN = re.compile(f"[{UNSPACED}]+")
# English inflections and the endings that turn a verb into a noun; what is left has at least four letters.
_ENDING = re.compile(
    r"([a-z]{4,}?)"
    r"(?:(?:izat|iz|at)(?:ions?|e[drs]?|ers|ing|ors?)|ions?|ings?|e[drs]?|ers|ors?|ies|y|(?<![siu])s)"
)
_STOP_WORDS = frozenset(
    """
    a about an and any are as at be been by can could did do does for from had has have how i if in into is it its me
    my of on or our should so than that the their them then there these they this those to was we were what when where
    which who whose why will with would you your
    """.split()  # noqa: SIM905
)


def document_terms(path: str, text: str) -> list[str]:
    """Return the terms of a chunk, repetitions kept, from its path and text alone.

    Each has at most `MAX_TERM_CHARS` characters, all lower-case letters or digits.
    """
    words = _words(path) * PATH_WEIGHT
    words += _words(text)
    words += _words(" ".join(defined_names(text))) * (DEFINITION_WEIGHT - 1)
    return list(chain.from_iterable(map(_document_forms, words)))


def query_terms(text: str) -> list[str]:
    """Return the distinct terms of a question in order of appearance, at most `MAX_QUERY_TERMS`.

    Words that only make it a question ("how", "the") are left out unless there are no others.
    """
    words = _words(text[:MAX_QUERY_CHARS])
    telling: dict[str, None] = {}
    others: dict[str, None] = {}
    for word in words:
        kept = others if word.lower() in _STOP_WORDS else telling
        if len(words) == 1:
            kept.update(dict.fromkeys(_document_forms(word)))
        else:
            kept.update(dict.fromkeys(_forms(word) if _is_name(word) else map(stem, _forms(word))))
    return list(telling or others)[:MAX_QUERY_TERMS]


def stems(text: str) -> tuple[str, ...]:
    """Return the distinct stems of a text's words and of their parts."""
    return tuple(dict.fromkeys(stem(form) for word in _words(text) for form in _forms(word)))


def sparse(documents: Sequence[Sequence[str]]) -> list[tuple[list[int], list[float]]]:
    """Return the terms of each chunk as a sparse vector: 32-bit hashes, ascending, and their BM25 weights without IDF.

    Weight of a term that stands f times among n: f·(k1 + 1) / (f + k1·(1 - b + b·n / `AVERAGE_TERMS`)).
    """
    lengths = np.fromiter(map(len, documents), np.int64, len(documents))
    hashes = np.fromiter(map(_hash, chain.from_iterable(documents)), np.int64, lengths.sum())
    # One sort for all: the document in the upper half, the hash in the lower.
    keys, counts = np.unique(np.repeat(np.arange(len(documents)) << 32, lengths) | hashes, return_counts=True)
    owners = keys >> 32
    norms = K1 * (1 - B + B * lengths / AVERAGE_TERMS)
    weights = (counts * (K1 + 1) / (counts + norms[owners])).tolist()
    indices = (keys & 0xFFFFFFFF).tolist()
    ends = np.cumsum(np.bincount(owners, minlength=len(documents))).tolist()
    return [(indices[start:end], weights[start:end]) for start, end in zip([0, *ends], ends, strict=False)]


def sparse_texts(texts: Iterable[str]) -> list[tuple[list[int], list[float]]]:
    """Return the sparse vectors of texts without a path."""
    return sparse([document_terms("", text) for text in texts])


def sparse_query(terms: Iterable[str]) -> tuple[list[int], list[float]]:
    """Return a question's terms as a sparse vector: the same hashes, ascending, each with weight 1."""
    indices = sorted(set(map(_hash, terms)))
    return indices, [1.0] * len(indices)


@lru_cache(2**16)
def stem(term: str) -> str:
    """Return an English word without its endings: routes, routing and router give "rout"."""
    while ending := _ENDING.fullmatch(term):
        term = ending[1]
    return term


@lru_cache(2**16)
def _hash(term: str) -> int:
    return zlib.crc32(term.encode())


def _is_name(word: str) -> bool:
    """Return whether a word can only be an identifier: in camelCase, with "_" or digits, or in capitals."""
    return (len(word) > 1 and not word[1:].islower()) or "_" in word


def _words(text: str) -> list[str]:
    if not text.isascii():
        # Full-width and composed forms are the same letters to a reader.
        text = unicodedata.normalize("NFKC", text)
    return _WORD.findall(text)


def _kept(forms: Callable[[str], tuple[str, ...]]) -> Callable[[str], tuple[str, ...]]:
    """Cache the results for short words only: a repository can hold any number of words of any length."""
    known = lru_cache(2**16)(forms)
    return lambda word: known(word) if len(word) <= MAX_TERM_CHARS else forms(word)


@_kept
def _document_forms(word: str) -> tuple[str, ...]:
    """Return a word, its parts, and the parts' stems where they differ."""
    forms = _forms(word)
    known = set(forms)
    stems = [stem(part) for part in forms[1:] or forms]
    return (*forms, *(one for one in stems if one not in known))


@_kept
def _forms(word: str) -> tuple[str, ...]:
    """Return a word whole and, if it has several, its parts."""
    parts = _parts(_PART.findall(word)) if word.isascii() else _foreign_parts(word)
    cleaned = (_clean(term) for term in (word, *parts))
    return tuple(dict.fromkeys(term for term in cleaned if 0 < len(term) <= MAX_TERM_CHARS))


def _parts(found: list[str]) -> Iterator[str]:
    """Yield parts: a lone letter only with the next (OAuth, IFace), one with digits also without (utf8, utf)."""
    before = ""
    for part in found:
        if len(before) == 1:
            yield before + part
        if len(part) > 1:
            yield part
        bare = part.rstrip("0123456789")
        if bare != part and len(bare) > 1:
            yield bare
        before = part


def _foreign_parts(word: str) -> Iterator[str]:
    """Cut where the case rises, at "_" and at digits; unspaced scripts into pairs."""
    for run in _UNSPACED_RUN.findall(word):
        yield from (run[at : at + 2] for at in range(len(run) - 1))
    for run in _UNSPACED_RUN.sub("_", word).split("_"):
        start = 0
        for at in range(1, len(run)):
            if (run[at].isupper() and not run[at - 1].isupper()) or run[at].isdecimal() != run[at - 1].isdecimal():
                yield run[start:at]
                start = at
        yield run[start:]


def _clean(word: str) -> str:
    lowered = word.lower()
    return lowered if lowered.isalnum() else "".join(filter(str.isalnum, lowered))


# ---- the names that a text defines, found without a grammar: by the keyword in front of them, or the body behind

# Keywords in front of a name where it is defined.
_KEYWORDS = [
    *("class", "interface", "type", "struct", "enum", "union", "trait", "impl", "protocol", "record", "object"),
    *("def", "defp", "function", "function*", "fn", "fun", "func", "sub", "#define", "macro_rules!"),
    *("module", "defmodule", "namespace", "package"),
]
# These also name every local variable, so in counting definitions they need to begin a line.
_VARIABLES = ["const", "let", "var", "val", "static", "final"]
_DEFINERS = frozenset([*_KEYWORDS, *_VARIABLES])
# Keywords that may stand in front of "(…) {", where they are not names.
_STATEMENTS = {
    *("catch", "do", "else", "for", "foreach", "if", "lock", "match", "new", "return", "switch", "synchronized"),
    *("using", "when", "while", *_DEFINERS),
}


def _any_of(words: list[str]) -> str:
    """Return a pattern that matches one of the words at its beginning.

    They are sorted by their first letters, so that the engine dismisses most places of a text at once: twice as fast.
    """
    groups: dict[str, list[str]] = {}
    for word in sorted(words, reverse=True):  # the longer of two goes first
        groups.setdefault(word[0], []).append(re.escape(word[1:]))
    whole = (rf"{first}(?<![\w.]{first})(?:{'|'.join(rest)})" for first, rest in groups.items())
    return f"(?:{'|'.join(whole)})"


# The bounds keep the time linear in long lines.
_BY_KEYWORD = re.compile(rf"{_any_of(_KEYWORDS)}\s+(?:\([^)\n]{{0,100}}\)\s*)?([^\W\d][\w$.:]*)")
_VARIABLE = re.compile(rf"^(?:export\s+)?(?:{'|'.join(_VARIABLES)})\s+([^\W\d][\w$]*)", re.MULTILINE)
# A method without a keyword: `int size(…) {`, as in C, C++, Java, C# and JavaScript classes.
_BODY = r"\)[^\n(){};]{0,80}\n?[ \t]{0,80}\{"
_METHOD = re.compile(rf"^[^\n=(]{{0,200}}?\b([^\W\d]\w*)\s*(?:<[^\n>]{{0,80}}>)?\([^\n]{{0,300}}{_BODY}", re.MULTILINE)
_HAS_BODY = re.compile(_BODY)


def defined_names(text: str) -> list[str]:
    """Return the names that look defined; dots and colons in them are kept."""
    patterns = [_BY_KEYWORD, _VARIABLE]
    if _HAS_BODY.search(text):  # the next costs most
        patterns.append(_METHOD)
    return [name for pattern in patterns for name in pattern.findall(text) if name not in _STATEMENTS]


def defines(text: str, name: str) -> bool:
    """Return whether a defining keyword precedes `name` somewhere; cheap if none does."""
    if name not in text:
        return False
    uses = re.finditer(rf"(?<![\w$]){re.escape(name)}(?![\w$])", text)
    before = (text[max(use.start() - 40, 0) : use.start()].split() for use in uses)
    return any(words and words[-1] in _DEFINERS for words in before)
