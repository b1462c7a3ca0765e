"""The answers of the tools that agents call: questions about a set of live indexes in, bounded text out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from itertools import accumulate

from c2llm_integrations._utils.printable import clean, one_line, shortened
from c2llm_integrations.code.chunk import CodeChunk
from c2llm_integrations.code.exclude import within_limits
from c2llm_integrations.code.path_filter import without_lines
from c2llm_integrations.errors import InputError
from c2llm_integrations.retrieval.search import Answer
from c2llm_integrations.server.live_index import LiveIndex
from c2llm_integrations.stores.records import Hit

# What an agent can take in at once: hits, and of an answer the lines of one hit, characters of a line, and of it all.
MAX_HITS, MAX_LINES, MAX_LINE, MAX_ANSWER_CHARS = 50, 40, 300, 20_000
# Characters of a question that an answer repeats.
SHOWN_CHARS = 80
# A path is shown whole, so that it can be given back, with lines behind it; of one that no file of ours has, which only
# rows of others hold, so many characters.
MAX_PLACE, MAX_OTHER_PLACE = 4000, 300
# Rows and repositories may hold names of any length: characters shown of a kind with a symbol, of a language and of a
# note, and backticks of a fence.
MAX_WHAT, MAX_LANGUAGE, MAX_NOTE, MAX_FENCE = 150, 40, 600, 40
_LONG_RUN = re.compile(f"`{{{MAX_FENCE},}}")


class SearchTools:
    """The tools: questions in, text out. An error that an agent can correct is a C2LLMError."""

    def __init__(self, indexes: Sequence[LiveIndex]) -> None:
        """`indexes`: what may be searched."""
        self._indexes = indexes
        counts = Counter(one.folder.name for one in indexes)
        # A folder's own name where that is enough to tell it from the others.
        self._names = {one: one.folder.name if counts[one.folder.name] == 1 else str(one.folder) for one in indexes}

    def search_code(
        self, query: str, limit: int, folder: str | None, language: str | None, path: str | None, kind: str | None
    ) -> str:
        """Return hits as text; `mcp_tools` explains the arguments. A blank option counts as None."""
        language, path, kind = map(_given, (language, path, kind))
        answers = []
        for one in self._chosen(folder):
            inner = path if path is None else self._in_folder(one, path) or path
            answers.append((one, one.search(query, limit=limit, language=language, path=inner, kind=kind)))
        text = self._text(f"for {_short(query)}", answers, limit)
        failed = {answer.unmatched for _, answer in answers}
        if any(answer.hits for _, answer in answers) or not all(failed):
            return text
        given = {"language": language, "path": path, "kind": kind}
        notes = (f"note: nothing indexed has the {name} {_short(str(given[name]))}" for name in failed)
        return "\n".join([text, *notes])

    def find_similar(self, code: str | None, file: str | None, line: int, limit: int, folder: str | None) -> str:
        """Return what resembles a piece of code, or the code at a line of a file, which is left out itself."""
        code, file = map(_given, (code, file))
        if (code is None) == (file is None):
            raise InputError("give either code, or a file with a line")
        chunk = None
        if file is not None:
            file, shown = without_lines(file)
            line = shown if shown and line == 1 else line
            chunk = self._chunk_at(file, line, self._chosen(folder))
        question = chunk.text if chunk is not None else str(code)
        answers = []
        for one in self._chosen(folder):
            answer = one.search(question, limit=limit + 1)
            others = [hit for hit in answer.hits if chunk is None or hit.chunk.id != chunk.id]
            answers.append((one, replace(answer, hits=others[:limit])))
        return self._text(f"similar to {_place(file)}:{line}" if file else "similar to the code", answers, limit)

    def index_status(self) -> str:
        """Return what is indexed, where, and whether it is current."""
        lines: list[str] = []
        for index in self._indexes:
            for name, value in index.status().items():
                shown = "; ".join(value) or "current" if name == "notes" else value
                lines.append(shortened(f"{name.replace('_', ' ')}: {shown}", MAX_NOTE))
            lines.append("")
        return "\n".join(lines).strip()[:MAX_ANSWER_CHARS]

    def _chosen(self, folder: str | None) -> Sequence[LiveIndex]:
        name = (_given(folder) or "").rstrip("/\\").removeprefix("./")
        if name in ("", "."):
            return self._indexes
        wanted = [one for one in self._indexes if name in (self._names[one], str(one.folder))]
        if not wanted:
            names = ", ".join(self._names.values())
            raise InputError(f"folder {_short(name)} is not served, only {names}; leave it out to search all")
        return wanted

    def _chunk_at(self, file: str, line: int, chosen: Sequence[LiveIndex]) -> CodeChunk:
        if len(chosen) > 1:
            chosen = [one for one in chosen if self._in_folder(one, file)] or chosen
        if len(chosen) > 1:
            raise InputError(f"say in which folder {file!r} is: {', '.join(self._names[one] for one in chosen)}")
        (one,) = chosen
        return one.chunk_at(file, line, self._in_folder(one, file))

    def _in_folder(self, index: LiveIndex, path: str) -> str | None:
        """Return a path in a folder whose name it begins with, as answers show it where there are several."""
        for name in dict.fromkeys((self._names[index], str(index.folder))):
            if path.startswith(f"{name}/"):
                return path.removeprefix(f"{name}/") or "/"
        return None

    def _text(self, what: str, answers: Sequence[tuple[LiveIndex, Answer]], limit: int) -> str:
        several = len(self._indexes) > 1
        found = [(hit, index) for index, answer in answers for hit in answer.hits]
        found = sorted(found, key=lambda one: -one[0].score)[:limit]
        lines = [f"{len(found) or 'no'} {'hit' if len(found) == 1 else 'hits'} {what}"]
        places = {index: f" ({self._names[index]})" if several else "" for index, _ in answers}
        notes = (f"note{places[index]}: {note}" for index, answer in answers for note in answer.notes)
        lines += _noted(notes, MAX_ANSWER_CHARS // 4)
        room = MAX_ANSWER_CHARS - sum(len(line) + 1 for line in lines)
        for number, (hit, index) in enumerate(found):
            place = f"{self._names[index]}/{index.path_in_folder(hit)}" if several else index.path_in_folder(hit)
            left = len(found) - number
            shown = _hit_text(hit, place, room // left - 2)
            room -= len(shown) + 2
            if room < 0:
                lines += ["", f"… {left} more {'hit' if left == 1 else 'hits'}: ask for fewer, or narrow the question"]
                break
            lines += ["", shown]
        return "\n".join(lines)


def _hit_text(hit: Hit, place: str, room: int) -> str:
    """Return one hit: where, what, and as much of the code as `room` characters leave, none if there are too few."""
    chunk = hit.chunk
    what = shortened(" ".join(part for part in (chunk.kind, chunk.symbol) if part), MAX_WHAT)
    heading = f"{_place(place)}:{chunk.start_line}-{chunk.end_line}  {what}  score {hit.score:.3f}"
    language = shortened(chunk.language, MAX_LANGUAGE).replace("`", "'")  # one would end the fence
    lines = clean(chunk.text).rstrip().split("\n")
    cut = [line if len(line) <= MAX_LINE else f"{line[:MAX_LINE]} …" for line in lines[:MAX_LINES]]
    cut = [_LONG_RUN.sub("`" * (MAX_FENCE - 1) + "…", line) for line in cut]
    fence = "`" * min(MAX_FENCE, max(3, 1 + max(map(len, re.findall("`+", chunk.text)), default=0)))
    room -= len(heading) + 2 * len(fence) + len(language) + 3 + len(f"… {len(lines)} more lines")
    shown: list[str] = []
    for line in cut:
        room -= len(line) + 1
        if room < 0:
            break
        shown.append(line)
    left = len(lines) - len(shown)
    return "\n".join([heading, fence + language, *shown, fence, *([f"… {left} more lines"] if left else [])])


def _place(path: str) -> str:
    is_ours = within_limits(path) and len(path) <= MAX_PLACE
    return shortened(path, MAX_PLACE if is_ours else MAX_OTHER_PLACE)


def _noted(notes: Iterable[str], room: int) -> list[str]:
    """Return notes as lines that `room` characters hold, and a line that counts the others."""
    lines = [shortened(note, MAX_NOTE) for note in notes]
    ends = list(accumulate(len(line) + 1 for line in lines))
    count = sum(end <= room for end in ends)
    return [*lines[:count], *([f"note: {len(lines) - count} more notes"] if count < len(lines) else [])]


def _given(text: str | None) -> str | None:
    """Some agents send every option, blank where they mean none."""
    return text if text and text.strip() else None


def _short(text: str) -> str:
    line = one_line(text[: 2 * SHOWN_CHARS])
    return repr(line if len(line) <= SHOWN_CHARS else line[:SHOWN_CHARS] + "…")
