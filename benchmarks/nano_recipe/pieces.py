"""Mined definitions as token ids end to end, and of each training pair the pieces that its two texts consist of."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

from benchmarks.nano_recipe.data import SHORTEST_BODY, head_of
from c2llm_integrations.training.docstring_pairs import MAX_CODE, masked, uncomment, words

FIELDS = ("doc", "whole", "name", "bare", "masked")
KINDS = {"doc": 0.40, "name": 0.25, "body": 0.15, "whole body": 0.10, "whole": 0.10}
"""How often a batch asks for code by the first paragraph of its documentation, for code with its name masked by the
words of the name, for bodies by first lines and documentation (its first paragraph, or all of it), or for code by all
of its documentation."""
LONGEST = 512
CHARACTERS, DOCUMENTATION = 1900, 1500  # kept of code and of documentation: about what `LONGEST` tokens hold
_DOCSTRING = re.compile(r"""^[ \t]*[rRuUbB]{0,2}(\"\"\"|\'\'\')(.*?)\1""", re.DOTALL | re.MULTILINE)


def texts_of(pair: dict[str, Any], seed: int) -> dict[str, str]:
    """A mined pair's package, language and `FIELDS`; half of the masked sources keep their documentation."""
    hidden = masked(pair["source" if random.Random(seed).random() < 0.5 else "bare"], pair["name"])
    return {
        "package": pair["package"],
        "language": pair["language"],
        "doc": pair["doc"],
        "whole": whole_documentation(pair),
        "name": " ".join(words(pair["name"])),
        "bare": pair["bare"][:CHARACTERS],
        "masked": hidden[:CHARACTERS] if pair["name"] else "",
    }


def whole_documentation(pair: dict[str, Any]) -> str:
    """All of a definition's documentation without its marks; its first paragraph where no more is found."""
    source = pair["source"]
    if pair["language"] == "python":
        found = _DOCSTRING.search(source)
        text = found[2] if found else ""
    elif source.startswith("/*"):
        text = uncomment(source[: source.find("*/") + 2])
    else:
        lines = source.splitlines()
        code = next((place for place, line in enumerate(lines) if not line.strip().startswith("//")), 0)
        text = uncomment("\n".join(lines[:code]))
    text = "\n".join(line.strip() for line in text.strip().splitlines()).strip()
    is_whole = len(source) < MAX_CODE and len(text) > len(pair["doc"])
    return text[:DOCUMENTATION] if is_whole else pair["doc"]


@dataclass(frozen=True)
class Table:
    """Token ids of all definitions by one tokenizer.

    `flat`: (ids,) uint16, beginning with the padding token; `starts`, `lengths`: (fields, n) where in it each text is;
    `heads`: (n,) the tokens of `bare` that come before its body, 0 where it has none.
    """

    flat: np.ndarray
    starts: np.ndarray
    lengths: np.ndarray
    heads: np.ndarray

    def parts(self, field: str, rows: np.ndarray, longest: int, skip: np.ndarray | int = 0) -> np.ndarray:
        """(rows, 2): start and length of a field's ids, without the first `skip`, cut at `longest`."""
        number = FIELDS.index(field)
        starts, lengths = self.starts[number, rows] + skip, self.lengths[number, rows] - skip
        return np.stack([starts, np.clip(lengths, 0, longest)], 1)

    def draw(self, kind: str, rows: np.ndarray, query_length: int, code_length: int) -> np.ndarray:
        """(2 · rows, 4): for `packed.pack`, the questions and then what they ask for."""
        nothing = np.zeros((len(rows), 2), np.int64)
        if kind in ("body", "whole body"):
            heads = self.heads[rows]
            first = self.parts("bare", rows, code_length)
            first[:, 1] = np.minimum(first[:, 1], heads)
            more = self.parts("doc" if kind == "body" else "whole", rows, code_length)
            more[:, 1] = np.minimum(more[:, 1], code_length - first[:, 1])
            questions = np.concatenate([first, more], 1)
            code = np.concatenate([self.parts("bare", rows, code_length, heads), nothing], 1)
        else:
            length = code_length if kind == "whole" else query_length
            questions = np.concatenate([self.parts(kind, rows, length), nothing], 1)
            code = np.concatenate([self.parts("masked" if kind == "name" else "bare", rows, code_length), nothing], 1)
        found = np.concatenate([questions, code])
        found[found[:, 1] + found[:, 3] == 0] = (0, 1, 0, 0)  # an empty text is a padding token
        return found


def join(tables: Sequence[Table]) -> Table:
    """One table of several."""
    begins = np.cumsum([1, *(len(table.flat) - 1 for table in tables)])
    starts = [table.starts - 1 + begin for table, begin in zip(tables, begins, strict=False)]
    flat = np.concatenate([tables[0].flat[:1], *(table.flat[1:] for table in tables)])
    lengths = np.concatenate([table.lengths for table in tables], 1)
    return Table(flat, np.concatenate(starts, 1), lengths, np.concatenate([table.heads for table in tables]))


def tabulate(file: Path, rows: Sequence[dict[str, str]], least_body: int = SHORTEST_BODY) -> Table:
    """Cut the fields of definitions into tokens by a tokenizer.json, whose ids fit 16 bits."""
    tokenizer = Tokenizer.from_file(str(file))
    tokenizer.no_truncation()
    tokenizer.no_padding()
    ids: list[np.ndarray] = [np.zeros(1, np.uint16)]
    lengths = np.zeros((len(FIELDS), len(rows)), np.int64)
    for number, field in enumerate(FIELDS):
        found = tokenizer.encode_batch_fast([row[field] for row in rows], add_special_tokens=False)
        for place, encoding in enumerate(found):
            cut = np.array(encoding.ids[:LONGEST], np.uint16)
            lengths[number, place] = len(cut)
            ids.append(cut)
    flat = np.concatenate(ids)
    starts = 1 + np.concatenate([[0], np.cumsum(lengths.ravel())[:-1]]).reshape(lengths.shape)
    firsts = tokenizer.encode_batch_fast([head_of(row["bare"]) for row in rows], add_special_tokens=False)
    heads = np.array([len(encoding.ids) for encoding in firsts], np.int64)
    bare = lengths[FIELDS.index("bare")]
    return Table(flat, starts, lengths, np.where(bare - heads < least_body, 0, np.minimum(heads, bare)))
