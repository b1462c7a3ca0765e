"""Fields of the frameworks' metadata that are named like one of the store's own ("id", "vector", …).

They are stored with `PREFIX` before the name; filters and results use the original name.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from c2llm_integrations.stores.filter import Filter
from c2llm_integrations.stores.records import AnyRecord
from c2llm_integrations.stores.row_fields import RESERVED
from c2llm_integrations.stores.vector_store import Where

PREFIX = "c2llm_field_"


def given_metadata(record: AnyRecord, own: frozenset[str] = frozenset()) -> dict[str, Any]:
    """Return the metadata of a row under their original names, without the adapter's `own` fields."""
    reserved = RESERVED | own
    return {
        name.removeprefix(PREFIX) if _bare(name) in reserved else name: value
        for name, value in record.metadata.items()
        if name not in own
    }


def stored_where(chosen: Where | None, own: frozenset[str] = frozenset()) -> Filter:
    """Translate a filter from original to stored names; `own` fields keep theirs."""
    return Filter(_renamed(chosen, own) if isinstance(chosen, Mapping) else chosen)


def _renamed(chosen: Any, own: frozenset[str]) -> Any:
    if not isinstance(chosen, Mapping):
        return chosen
    renamed: dict[Any, Any] = {}
    for key, value in chosen.items():
        if key in ("and", "or") and isinstance(value, list | tuple):
            value = [_renamed(one, own) for one in value]
        elif key == "not":
            value = _renamed(value, own)
        elif isinstance(key, str):
            key = stored_key(key, own)
        renamed[key] = value
    return renamed


def stored_key(key: str, own: frozenset[str]) -> str:
    """Return the dotted key under which a field of this original name is stored."""
    first, dot, rest = key.partition(".")
    name: str = first if first in own else stored_name(first, own)
    return name + dot + rest


def stored_name(name: Any, own: frozenset[str]) -> Any:
    """Return the name under which a field is stored."""
    return f"{PREFIX}{name}" if isinstance(name, str) and _bare(name) in RESERVED | own else name


def _bare(name: str) -> str:
    while name.startswith(PREFIX):
        name = name.removeprefix(PREFIX)
    return name
