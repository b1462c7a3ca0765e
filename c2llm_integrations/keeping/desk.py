"""What agents ask of a set of checkouts, and the bounded text they get."""

from __future__ import annotations

import re
from collections.abc import Sequence

from c2llm_integrations.errors import InputError
from c2llm_integrations.keeping.checkout import Answer, Checkout
from c2llm_integrations.stores.base import Hit
from c2llm_integrations.terminal import clean, one_line

# What an agent can take in at once: hits, and of an answer the lines of one hit, characters of a line, and of it all.
MAX_HITS, MAX_LINES, MAX_LINE, MAX_CHARS = 50, 40, 300, 20_000
# Characters of a question that an answer repeats.
SHOWN_CHARS = 80


class Desk:
    """The tools: questions in, text out. Every error that an agent can mend is a C2LLMError."""

    def __init__(self, checkouts: Sequence[Checkout]) -> None:
        """`checkouts`: what may be searched."""
        self._checkouts = checkouts

    def search_code(
        self, query: str, limit: int, folder: str | None, language: str | None, path: str | None, kind: str | None
    ) -> str:
        """Return hits in all folders, or in one."""
        chosen = self._chosen(folder)
        answers = [(one, one.search(query, limit=limit, language=language, path=path, kind=kind)) for one in chosen]
        return self._text(f"for {_short(query)}", answers, limit)

    def find_similar(self, code: str | None, file: str | None, line: int, limit: int, folder: str | None) -> str:
        """Return what resembles a piece of code, or the code at a line of a file, which is left out itself."""
        if (code is None) == (file is None):
            raise InputError("give either code, or a file with a line")
        chosen = self._chosen(folder)
        chunk = None
        if file is not None:
            if len(chosen) > 1:
                raise InputError(f"say in which folder {file!r} is: {', '.join(map(self._name, chosen))}")
            chunk = chosen[0].chunk_at(file, line)
        question = chunk.text if chunk is not None else str(code)
        answers = []
        for one in chosen:
            answer = one.search(question, limit=limit + 1)
            others = [hit for hit in answer.hits if chunk is None or hit.chunk.id != chunk.id]
            answers.append((one, Answer(others[:limit], answer.notes)))
        return self._text(f"similar to {file}:{line}" if file else "similar to the code", answers, limit)

    def index_status(self) -> str:
        """Return what is indexed, where, and whether it is current."""
        lines = []
        for checkout in self._checkouts:
            for name, value in checkout.status().items():
                shown = "; ".join(value) or "current" if name == "notes" else value
                lines.append(one_line(f"{name.replace('_', ' ')}: {shown}"))
            lines.append("")
        return "\n".join(lines).strip()

    def _chosen(self, folder: str | None) -> Sequence[Checkout]:
        if folder is None:
            return self._checkouts
        wanted = [one for one in self._checkouts if folder in (self._name(one), str(one.folder))]
        if not wanted:
            names = ", ".join(map(self._name, self._checkouts))
            raise InputError(f"folder {_short(folder)} is not served, only {names}; leave it out to search all")
        return wanted

    def _name(self, checkout: Checkout) -> str:
        """A folder's own name where that is enough to tell it from the others."""
        names = [one.folder.name for one in self._checkouts]
        return checkout.folder.name if names.count(checkout.folder.name) == 1 else str(checkout.folder)

    def _text(self, what: str, answers: Sequence[tuple[Checkout, Answer]], limit: int) -> str:
        several = len(self._checkouts) > 1
        found = [(hit, checkout) for checkout, answer in answers for hit in answer.hits]
        found = sorted(found, key=lambda one: -one[0].score)[:limit]
        lines = [f"{len(found) or 'no'} {'hit' if len(found) == 1 else 'hits'} {what}"]
        for checkout, answer in answers:
            place = f" ({self._name(checkout)})" if several else ""
            lines += [f"note{place}: {one_line(note)}" for note in answer.notes]
        room = MAX_CHARS - sum(map(len, lines))
        for number, (hit, checkout) in enumerate(found):
            place = f"{self._name(checkout)}/{checkout.inside(hit)}" if several else checkout.inside(hit)
            shown = _hit_text(hit, place, room // (len(found) - number))
            room -= len(shown)
            lines += ["", shown]
        return "\n".join(lines)


def _hit_text(hit: Hit, place: str, room: int) -> str:
    """Return one hit in at most about `room` characters: where, what, and as much of the code as fits."""
    chunk = hit.chunk
    what = " ".join(part for part in (chunk.kind, chunk.symbol) if part)
    heading = one_line(f"{place}:{chunk.start_line}-{chunk.end_line}  {what}  score {hit.score:.3f}")
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", chunk.text)), default=0))
    room -= len(heading) + 2 * len(fence) + len(chunk.language) + 40
    lines = clean(chunk.text).rstrip().split("\n")
    shown: list[str] = []
    for line in lines[:MAX_LINES]:
        line = line if len(line) <= MAX_LINE else f"{line[:MAX_LINE]} …"
        room -= len(line) + 1
        if room < 0:
            break
        shown.append(line)
    left = len(lines) - len(shown)
    return "\n".join(
        [heading, fence + one_line(chunk.language), *shown, fence, *([f"… {left} more lines"] if left else [])]
    )


def _short(text: str) -> str:
    line = one_line(text[: 2 * SHOWN_CHARS])
    return repr(line if len(line) <= SHOWN_CHARS else line[:SHOWN_CHARS] + "…")
