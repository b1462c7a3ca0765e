"""Filters and ids in Milvus's filter language: every value is written by `literal`, and nowhere else."""

from __future__ import annotations

from c2llm_integrations.stores.rows import Filter

_ESCAPES = str.maketrans({'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"})


def literal(value: str) -> str:
    r"""Return a string as Milvus's filter language writes it.

    Every other character stands for itself, control characters and non-ASCII ones included: they find exactly
    themselves on Milvus Lite and on servers, whereas Lite refuses ``\u`` and servers refuse escaped surrogates.
    """
    return f'"{value.translate(_ESCAPES)}"'


def expression(where: Filter, *, ours: bool = False, after: str = "") -> str:
    """Return a Filter in Milvus's filter language; "" if it restricts nothing.

    `ours` leaves out what others wrote: lines count from 1, and their rows have none. `after` leaves out ids up to it.
    """
    parts = [f"{name} in [{', '.join(map(literal, values))}]" for name, values in where.conditions().items()]
    if ours:
        parts.append("start_line > 0")
    if after:
        parts.append(f"id > {literal(after)}")
    return " and ".join(parts)
