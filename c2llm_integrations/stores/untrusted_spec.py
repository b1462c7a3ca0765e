"""What a collection's stored spec and claims may hold, checked as they are read: they may come with a checkout."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

# No width, token count or version has more.
MAX_NUMBER = 2**31 - 1
# Characters of a wrong value that a message shows.
SHOWN_CHARS = 40


def checked_spec(data: object) -> dict[str, Any]:
    """Return the fields of a stored spec; raises TypeError for a value of another type than that field has."""
    fields = _mapping("spec", data)
    for name, value in fields.items():
        if name in _KINDS:
            what, is_one = _KINDS[name]
            if not is_one(value):
                raise _wrong(f"spec.{name}", value, what)
    for name, (what, is_one) in _MEMBERS.items():
        for key, value in _mapping(f"spec.{name}", fields.get(name, {})).items():
            if not is_one(value):
                raise _wrong(f"spec.{name}.{key[:SHOWN_CHARS]}", value, what)
    return fields


def checked_claims(data: object) -> dict[str, str]:
    """Return stored claims, repository → what fills it; raises TypeError for anything else."""
    claims = _mapping("claims", data)
    for name, value in claims.items():
        # Folders stand in it, in which an escape may be anything.
        if not _is_text(value) or not _is_text(unquote(value)):
            raise _wrong(f"claims.{name[:SHOWN_CHARS]}", value, "text")
    return claims


def _mapping(name: str, data: object) -> dict[str, Any]:
    if not isinstance(data, Mapping) or not all(map(_is_text, data)):
        raise _wrong(name, data, "an object whose names are text")
    return dict(data)


def _wrong(name: str, value: object, what: str) -> TypeError:
    return TypeError(f"{name} is {ascii(value)[:SHOWN_CHARS]}, expected {what}")


def _is_text(value: object) -> bool:
    """Return whether a value is text that any file and terminal takes: no half of a surrogate pair, and no NUL."""
    return isinstance(value, str) and "\0" not in value and not any("\ud800" <= one <= "\udfff" for one in value)


def _is_number(value: Any, least: int, *kinds: type) -> bool:
    return type(value) in kinds and least <= value <= MAX_NUMBER


_Kind = tuple[str, Callable[[object], bool]]
_TEXT: _Kind = ("text", _is_text)
_TEXT_OR_NONE: _Kind = ("text or null", lambda value: value is None or _is_text(value))
_COUNT: _Kind = (f"an integer of 0 to {MAX_NUMBER}", lambda value: _is_number(value, 0, int))
_KINDS: dict[str, _Kind] = {
    "width": _COUNT,
    "datatype": _TEXT,
    "quantization": _TEXT_OR_NONE,
    "rescore": (f"a number of 0 to {MAX_NUMBER}", lambda value: _is_number(value, 0, int, float)),
    "analyzer": _TEXT_OR_NONE,
    "long_text": _TEXT,
    "layout": _COUNT,
}
_MEMBERS: dict[str, _Kind] = {
    "fingerprint": (
        f"text, an integer of {-MAX_NUMBER} to {MAX_NUMBER}, true, false or null",
        lambda value: value is None or type(value) is bool or _is_number(value, -MAX_NUMBER, int) or _is_text(value),
    ),
    "fields": _TEXT,
    "index": _COUNT,
}
