"""Turn a Jupyter notebook into a script of its cells, without their outputs.

A comment `%% cell N`, counted from 1, precedes each cell. Prose becomes comments, and so do lines that are not in the
kernel's language (`%matplotlib inline`, `!pip install x`). The line numbers of a notebook's chunks are this script's.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Any

from c2llm_integrations._utils.json_lines import parse_json

SUFFIX = ".ipynb"
# Language → the mark that begins a comment; "#" for all others.
_SLASHES = "c cpp csharp cuda dart fsharp go groovy java javascript kotlin php rust scala swift typescript"
_COMMENTS = {**dict.fromkeys(_SLASHES.split(), "//"), **dict.fromkeys(("haskell", "lua", "sql"), "--")}
_COMMENTS |= {"matlab": "%", "octave": "%", "prolog": "%", "clojure": ";;", "lisp": ";;", "racket": ";;"}
# Any text can begin so, and each row repeats the language: it is as short and plain as those of `languages`.
_TITLE = re.compile(r"\W{1,2} %% notebook \(([a-z0-9+#._-]{1,40})\)\n")
_CELL = re.compile(r"\W{1,2} %% cell (\d+)")
# Lines that are not in the kernel's language; others than Python may begin one with "!" or "?" themselves.
_MAGIC = re.compile(r"[ \t]*%%?[A-Za-z]")
_PYTHON_MAGIC = re.compile(r"[ \t]*(?:%%?[A-Za-z]|[!?](?!=))")
# What a cell may begin with whose further lines are in the kernel's language.
_SAME_LANGUAGE = re.compile(
    r"\s*%%(?:(?:time(?:it)?|capture|[lm]?prun|memit|px|cython|python[23]?|ipytest|snakeviz)\b|(?:write)?file .*\.py\s)"
)
_NAME_CHARS = 80
# Half a character, which JSON can hold and no text may.
_SURROGATE = re.compile("[\ud800-\udfff]")


def script_of(text: str) -> str | None:
    """Return a notebook's cells as a script that begins with its language, or None if `text` is not a notebook."""
    try:
        notebook = parse_json(text.lstrip("\ufeff"))
        cells = list(_cells(notebook))
        language = _language(notebook)
    except (ValueError, TypeError, AttributeError, KeyError):
        return None
    mark = _COMMENTS.get(language, "#")
    magic = _PYTHON_MAGIC if language == "python" else _MAGIC
    lines = [f"{mark} %% notebook ({language})"]
    for number, (kind, source) in enumerate(cells, 1):
        lines += ["", f"{mark} %% cell {number}" + ("" if kind == "code" else f" ({kind})")]
        own = source.strip("\n").replace("\r\n", "\n").split("\n")
        is_code = kind == "code" and (not source.lstrip().startswith("%%") or bool(_SAME_LANGUAGE.match(source)))
        lines += [line if is_code and not magic.match(line) else f"{mark} {line}".rstrip() for line in own]
    return "\n".join(lines) + "\n"


def language_of_script(script: str) -> str | None:
    """Return the language of what `script_of` gave, None for any other text."""
    title = _TITLE.match(script)
    return title[1] if title else None


def cell_names(lines: Iterable[str]) -> list[str]:
    """Return for each line of a script the name of the cell that it belongs to, or of the first: "cell 3"."""
    found = [f"cell {match[1]}" if (match := _CELL.match(line)) else "" for line in lines]
    return list(accumulate(found, lambda before, own: own or before, initial=next(filter(None, found), "")))[1:]


def _cells(notebook: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield (type, source) of each cell of format 4, or of format 3 and before; raises KeyError for neither.

    A damaged cell does not spoil the others.
    """
    sheets = [notebook] if "cells" in notebook else notebook["worksheets"]
    for cell in (cell for sheet in sheets for cell in sheet["cells"] if isinstance(cell, dict)):
        source = cell.get("source", cell.get("input")) or ""
        parts = source if isinstance(source, list) else [source]
        text = "".join(part for part in parts if isinstance(part, str))
        kind = cell.get("cell_type")
        yield kind if kind in ("code", "markdown") else "raw", _SURROGATE.sub("\ufffd", text)


def _language(notebook: dict[str, Any]) -> str:
    """Return the kernel's language as `languages` calls it; Python if the notebook does not say."""
    from c2llm_integrations.code.languages import language_of, languages_called

    metadata = notebook.get("metadata") or {}
    about, kernel = metadata.get("language_info") or {}, metadata.get("kernelspec") or {}
    said = [str(one)[:_NAME_CHARS] for one in (about.get("name"), kernel.get("language")) if one]
    # A kernel is called after its language: ".net-csharp", "julia-1.9", "xcpp17", "iruby"; that of R is "ir".
    words = re.findall(r"[a-z#+]+", str(kernel.get("name", ""))[:_NAME_CHARS].lower())[::-1]
    for name in (*said, *words, *(word[1:] for word in words if word[0] in "ix")):
        if found := languages_called(name):
            return found[0]
    suffix = str(about.get("file_extension", "")).lstrip(".")
    return language_of(f"x.{suffix or said[0]}") if said else "python"
