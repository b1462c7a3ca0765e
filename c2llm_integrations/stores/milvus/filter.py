"""Filters and ids in Milvus's filter language: every value is written by `literal`, and nowhere else.

Fields of a chunk are columns with the default "" or 0; all others are dynamic, where Milvus Lite computes with unknown
values as SQL does and servers do not, so that "not" is only ever put in front of a condition on a field that is there.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta, timezone
from typing import NamedTuple

from c2llm_integrations.code.chunk import CHUNK_FIELDS
from c2llm_integrations.stores.filter import All, AnyOf, Condition, Exists, Filter, In, Not, Period, Range
from c2llm_integrations.stores.ids import RecordId
from c2llm_integrations.stores.row_fields import OwnField

_ESCAPES = str.maketrans({'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"})
_EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_SIGNS = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}
# What no row of a collection made here is, and every one.
NOTHING, EVERYTHING = 'id == ""', 'id != ""'
# Words of the language, which as the name of a field would be read as themselves.
_WORDS = frozenset({"and", "or", "not", "in", "like", "exists", "is", "null", "true", "false", "id"})


def literal(value: str | float) -> str:
    """Return a string, number or boolean as Milvus's filter language writes it."""
    # All other characters stand for themselves: Lite refuses `\u`, and servers refuse escaped surrogates.
    if isinstance(value, bool):
        return "true" if value else "false"
    return f'"{value.translate(_ESCAPES)}"' if isinstance(value, str) else repr(value)


def microseconds(moment: datetime) -> int:
    """Return what a moment is written as: microseconds since 1970 in UTC."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def source_value(source: str) -> str:
    """Return what the source's column holds; rows of others, and chunks, have "" there."""
    return f":{source}"


def ours(source: str | None, *, has_records: bool, after: str = "") -> str:
    """Return what only rows of this package (of one repository or other source) match.

    `has_records`: the collection may hold records that are not chunks. `after` leaves out ids up to it. A chunk is told
    from the rows of others by its lines, which count from 1.
    """
    chunk, record = "start_line > 0", f'{OwnField.SOURCE} > ""'
    if source is not None:
        none = f' and {OwnField.SOURCE} == ""' if has_records else ""
        chunk = f"repository == {literal(source)} and start_line > 0{none}"
        record = f"{OwnField.SOURCE} == {literal(source_value(source))}"
    found = f"(({chunk}) or ({record}))" if has_records else chunk
    return f"{found} and id > {literal(after)}" if after else found


def ids_in(ids: Sequence[RecordId]) -> str:
    """Return what only the rows of these ids match."""
    return f"id in [{', '.join(literal(str(id)) for id in ids)}]"


class Column(NamedTuple):
    """A column: what it holds, None for JSON, or a list of these, and which rows have something in it.

    `is_there`: what these rows match, "" for all rows; `default`: what the others hold, None for null.
    """

    kind: type[str | int | float | bool] | None
    is_list: bool = False
    is_there: str = ""
    default: str | int | None = None


class _Rows(NamedTuple):
    """The rows that a filter is for: their columns, and what none of them matches, and all.

    Fields without a column are dynamic, or lie in the column `outer`.
    """

    columns: Mapping[str, Column]
    never: str
    always: str
    outer: str | None = None


def expression(where: Filter, *, has_records: bool = True, tenant: str | None = None) -> str:
    """Return a Filter in Milvus's filter language; "" if it restricts nothing. `tenant`: the column of that, if any."""
    chunk = f'start_line > 0 and {OwnField.SOURCE} == ""' if has_records else "start_line > 0"
    columns = {} if tenant is None else {tenant: Column(str, is_there=f'{tenant} != ""', default="")}
    for name, kind in CHUNK_FIELDS.items():  # a chunk has every column; of another row, the default may mean none
        there = f"({name} != {literal(kind())} or ({chunk}) or json_contains({OwnField.FIELDS}, {literal(name)}))"
        columns[name] = Column(kind, is_there=there, default=kind())
    return _written(where.condition, True, _Rows(columns, NOTHING, EVERYTHING)) if where else ""


def foreign_expression(where: Filter, key: str, columns: Mapping[str, Column], metadata: str | None) -> str:
    """Return a Filter on a collection of others: fields are columns, or lie in the column `metadata`.

    `key`: the column of their ids, which are strings or numbers and may hold any of them.
    """
    value = literal((columns[key].kind or str)())
    never, always = f"({key} == {value} and {key} != {value})", f"({key} == {value} or {key} != {value})"
    return _written(where.condition, True, _Rows(columns, never, always, metadata)) if where else ""


def _written(condition: Condition, holds: bool, rows: _Rows) -> str:
    """Return a condition, or that it does not hold."""
    if isinstance(condition, Not):
        return _written(condition.condition, not holds, rows)
    if isinstance(condition, All | AnyOf):
        both = isinstance(condition, All) == holds
        parts = [_written(one, holds, rows) for one in condition.conditions]
        return _joined("and" if both else "or", parts) if parts else rows.always if both else rows.never
    if isinstance(condition, In) and not condition.values:
        return rows.never if holds else rows.always
    if isinstance(condition, Period):
        moments = {sign: microseconds(bound) for sign, bound in condition.bounds.items()}
        condition = Range(f"{OwnField.TIMES}.{condition.key}", moments)
    if condition.key in rows.columns:
        found = _on_column(condition, rows)
        return found if holds else f"not ({found})"
    field = _field(condition.key if rows.outer is None else f"{rows.outer}.{condition.key}")
    there = f"exists {field}"
    if isinstance(condition, Exists):
        return f"({there})" if holds else f"(not ({there}))"
    found = _on_dynamic(condition, field)
    return found if holds else f"((not ({there})) or (not ({found})))"


def _joined(word: str, parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else "(" + f" {word} ".join(f"({part})" for part in parts) + ")"


def _whole(sign: str, bound: float) -> int:
    """Return the whole number that bounds a column of whole numbers alike; servers compare them with no other."""
    inside = max(-(2.0**62), min(2.0**62, bound)) if isinstance(bound, float) else bound
    return math.floor(inside) if sign in ("gt", "lte") else math.ceil(inside)


def _on_column(condition: In | Range | Exists, rows: _Rows) -> str:
    column = rows.columns[condition.key]
    is_there = [column.is_there] if column.is_there else []
    if isinstance(condition, Exists):
        parts = [*is_there, f"array_length({condition.key}) > 0"] if column.is_list else is_there
        return _joined("and", parts) if parts else rows.always
    found = _on_typed(condition, column)
    if found is None:
        return rows.never
    if column.default is None:
        return _joined("and", [*is_there, found])
    may_be_missing = isinstance(condition, Range) or column.default in condition.values
    return _joined("and", [found, *is_there]) if may_be_missing else found


def _on_typed(condition: In | Range, column: Column) -> str | None:
    """Return a condition on a column that is not null; None for what never holds."""
    name, kind = condition.key, column.kind
    if kind is None:
        return _on_dynamic(condition, name, is_list=False)
    if isinstance(condition, Range):
        if column.is_list or kind in (str, bool):
            return None
        bounds = {sign: _whole(sign, to) if kind is int else to for sign, to in condition.bounds.items()}
        return _joined("and", [f"{name} {_SIGNS[sign]} {literal(to)}" for sign, to in bounds.items()])
    values = _of_kind(condition.values, kind)
    if not values:
        return None
    written = f"[{', '.join(map(literal, values))}]"
    return f"array_contains_any({name}, {written})" if column.is_list else f"{name} in {written}"


def _of_kind(values: Sequence[str | float], kind: type) -> list[str | float]:
    """Return those values that a column of a kind can hold, as it holds them; servers compare it with no others."""
    if kind in (str, bool):
        return [one for one in values if isinstance(one, kind)]
    numbers = [one for one in values if isinstance(one, int | float) and not isinstance(one, bool)]
    return [float(one) for one in numbers] if kind is float else [int(one) for one in numbers if one == int(one)]


def _field(key: str) -> str:
    """Return a dynamic field, or one of the mapping in it."""
    name, *rest = key.split(".")
    own = name if is_plain(name) else f"$meta[{literal(name)}]"
    return own + "".join(f"[{literal(part)}]" for part in rest)


def is_plain(name: str) -> bool:
    """Return whether a field's name can be written as it is."""
    return name.isascii() and name.isidentifier() and name.lower() not in _WORDS


def _on_dynamic(condition: In | Range, field: str, *, is_list: bool = True) -> str:
    if isinstance(condition, Range):
        return _joined("and", [f"{field} {_SIGNS[sign]} {literal(to)}" for sign, to in condition.bounds.items()])
    # Not `in`, at which Milvus Lite fails where the field holds a list.
    parts = [f"{field} == {literal(one)}" for one in condition.values]
    # Milvus Lite looks into lists, also those of a mapping, only where the outermost name is a plain one.
    if is_list and is_plain(field.partition("[")[0]):
        for kind in (str, int, float, bool):
            written = [literal(one) for one in condition.values if type(one) is kind]
            parts += [f"json_contains_any({field}, [{', '.join(written)}])"] if written else []
    return _joined("or", parts)
