"""Filters: conditions on the metadata, with one meaning on every store.

Each database has an expression of its own for them; `Filter.matches` is the meaning, which tests hold them to.
"""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import date, datetime, timezone
from decimal import Decimal
from operator import ge, gt, le, lt
from typing import Any, NamedTuple

import numpy as np
from typing_extensions import Self

from c2llm_integrations.errors import InputError

# What Python, Qdrant and this module read alike.
_MOMENT = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:([T ]\d\d:\d\d(?::\d\d)?)(?:(?<=:\d\d:\d\d)\.(\d{1,6}))?(Z|[+-]\d\d:\d\d)?)?", re.ASCII
)


class In(NamedTuple):
    """The field, or an element of the list in it, equals one of the values."""

    key: str
    values: Sequence[str | int | float | bool]


class Range(NamedTuple):
    """The field is a number, none of a list, within the bounds: gt, gte, lt, lte → number."""

    key: str
    bounds: Mapping[str, float]


class Period(NamedTuple):
    """The field names a moment within the bounds: gt, gte, lt, lte → moment, with its offset from UTC."""

    key: str
    bounds: Mapping[str, datetime]


class Exists(NamedTuple):
    """The field is there and neither null nor an empty list."""

    key: str


class Not(NamedTuple):
    """The condition does not hold."""

    condition: Condition


class All(NamedTuple):
    """Every condition holds."""

    conditions: Sequence[Condition]


class AnyOf(NamedTuple):
    """At least one condition holds."""

    conditions: Sequence[Condition]


Condition = In | Range | Period | Exists | Not | All | AnyOf
BOUNDS: Mapping[str, Callable[[Any, Any], bool]] = {"gt": gt, "gte": ge, "lt": lt, "lte": le}
# Operators as MongoDB, and with it other stores of the frameworks, write them → ours.
_DOLLAR = {f"${name}": name for name in ("and", "or", "not", "eq", "in", "exists", *BOUNDS)}
_DOLLAR |= {"$ne": "not", "$nin": "not", "$nor": "not"}
# The most levels of nesting: each level costs the engines, and Python, a few nested calls.
MAX_NESTED = 64
_TOO_DEEP = f"the filter has more than {MAX_NESTED} levels of nesting; say it with fewer"


class Filter:
    """Conditions on any fields of the metadata, with one meaning on every store: which rows to search, count or delete.

        Filter({"language": "go", "votes": {"gte": 10, "lt": 100}, "tags": ["http", "retry"]})
        Filter({"or": [{"author.name": "Ada"}, {"not": {"draft": True}}], "license": {"exists": True}})

    All conditions must hold; without any, every row matches. A field is given one of:

    - a value: the field equals it, or is a list with such an element
    - a list of values: the field matches any of them
    - a mapping of operators: `eq` (a value), `in` (a list), `not` (a value or list), `gt`, `gte`, `lt`, `lte` (a number
      or a moment; lists never match) and `exists` (True or False; null and an empty list count as missing)

    `and`, `or` and `not` combine conditions, as do &, | and ~ filters. "a.b" is the field "b" of the mapping in "a".
    Numbers are equal by value (5 and 5.0); values of different types never are, so keep a field to one type.

    A moment is a `datetime`, a `date` or a string like "2026-01-31", "2026-01-31T12:00" or
    "2026-01-31T12:00:00.5+01:00" (see `moment_of`). A day stands for its midnight; without an offset, UTC is meant.
    Only fields that the collection's spec declares as "datetime" can be compared with moments. A `datetime` or `date`
    given as a value matches the same moment in any spelling; a string matches only itself.
    """

    __slots__ = ("condition",)

    def __init__(self, where: Mapping[str, Any] | Filter | None = None) -> None:
        """Raise InputError for an unknown operator, a value that cannot be compared, or too many levels of nesting."""
        try:
            condition = where.condition if isinstance(where, Filter) else _all({} if where is None else where)
        except RecursionError:
            raise InputError(_TOO_DEEP) from None
        _require_shallow(condition)
        self.condition: Condition = condition

    @classmethod
    def _of(cls, condition: Condition) -> Self:
        _require_shallow(condition)
        made = cls()
        made.condition = condition
        return made

    def __and__(self, other: Filter) -> Filter:
        return self._of(All(_parts(All, self, other)))

    def __or__(self, other: Filter) -> Filter:
        return self._of(AnyOf(_parts(AnyOf, self, other)))

    def __invert__(self) -> Filter:
        return self._of(Not(self.condition))

    def __bool__(self) -> bool:
        """Whether it restricts anything; what matches every row, such as an empty "and", does not."""
        return not _is_constant(self.condition, True)

    def __repr__(self) -> str:
        return f"Filter({self.condition})"

    def periods(self) -> set[str]:
        """Return the fields that are compared with moments."""
        return {one.key for one in leaves(self.condition) if isinstance(one, Period)}

    def matches(self, metadata: Mapping[str, Any]) -> bool:
        """Return whether a record of this metadata matches."""
        return _matches(self.condition, metadata)


def _parts(kind: type[All] | type[AnyOf], *filters: Filter) -> tuple[Condition, ...]:
    """Return the conditions to join; a filter that is already such a join gives its parts, so nothing nests deeper."""
    conditions = (one.condition for one in filters)
    return tuple(part for one in conditions for part in (one.conditions if isinstance(one, kind) else (one,)))


def _require_shallow(condition: Condition) -> None:
    """Raise InputError for a condition that nests deeper than every store can follow."""
    level: Sequence[Condition] = [condition]
    for _ in range(MAX_NESTED):
        inner = [part for one in level if isinstance(one, All | AnyOf) for part in one.conditions]
        level = inner + [one.condition for one in level if isinstance(one, Not)]
        if not level:
            return
    raise InputError(_TOO_DEEP)


def _all(where: object) -> All:
    if not isinstance(where, Mapping):
        raise InputError(f"a filter is a mapping of field → value, got {where!r:.80}; write {{'language': 'go'}}")
    return All(tuple(part for key, value in where.items() for part in _conditions(key, value)))


def _conditions(key: object, value: Any) -> list[Condition]:
    if key in ("and", "or"):
        parts = [_all(one) for one in _listed(key, value)]
        return [All(parts) if key == "and" else AnyOf(parts)]
    if key == "not":
        return [Not(_all(value))]
    _require_plain_operator(key)
    if not isinstance(key, str) or not all(key.split(".")) or '"' in key or "\\" in key:
        raise InputError(f"filter field {key!r} cannot be one; use names joined by '.', without quotes")
    if not isinstance(value, Mapping):
        return [_equal(key, value)]
    if not value:
        raise InputError(f"filter {key!r} is {{}}, which every row would match; give a value or an operator")
    bounds = {name: _bound(key, name, bound) for name, bound in value.items() if name in BOUNDS}
    moments = {name: bound for name, bound in bounds.items() if isinstance(bound, datetime)}
    numbers = {name: bound for name, bound in bounds.items() if not isinstance(bound, datetime)}
    conditions: list[Condition] = [Range(key, numbers)] if numbers else []
    conditions += [Period(key, moments)] if moments else []
    for name, operand in value.items():
        if name in ("eq", "in"):
            conditions.append(_equal(key, operand))
        elif name == "not":
            conditions.append(Not(All(_conditions(key, operand))))
        elif name == "exists" and isinstance(operand, bool):
            conditions.append(Exists(key) if operand else Not(Exists(key)))
        elif name not in BOUNDS:
            _require_plain_operator(name)
            known = ", ".join(("eq", "in", "not", *BOUNDS))
            raise InputError(
                f"filter {key!r} has {name!r}: {operand!r:.60}; known are {known}, and exists: true or false; "
                f"a field of the mapping in it is {f'{key}.{name}'!r}"
            )
    return conditions


def _is_constant(condition: Condition, holds: bool) -> bool:
    """Return whether a condition holds (or does not) for every row, because of empty lists and mappings in it."""
    if isinstance(condition, Not):
        return _is_constant(condition.condition, not holds)
    if isinstance(condition, All | AnyOf):
        each = all if isinstance(condition, All) == holds else any
        return each(_is_constant(one, holds) for one in condition.conditions)
    return not holds and isinstance(condition, In) and not condition.values


def _require_plain_operator(name: object) -> None:
    """Raise InputError for an operator as other databases write it, with a dollar sign in front."""
    if isinstance(name, str) and (plain := _DOLLAR.get(name)):
        raise InputError(f"filter operator {name!r} is not known; write {plain!r}, without the dollar sign")


def _equal(key: str, value: Any) -> Condition:
    """Return that a field is a value, or one of several; a date or a datetime is compared as the moment it names."""
    values = _listed(key, value) if isinstance(value, Iterable) and not isinstance(value, str) else [value]
    moments = [moment for one in values if isinstance(one, date) and (moment := moment_of(one))]
    plain = [one for one in values if not isinstance(one, date)]
    if not moments:
        return _in(key, plain)
    at = [Period(key, {"gte": moment, "lte": moment}) for moment in moments]
    return AnyOf([*at, _in(key, plain)] if plain else at)


def _in(key: str, values: Sequence[Any]) -> In:
    values = [_json(one) for one in values]
    for one in values:
        if not isinstance(one, str | bool) and not _is_number(one):
            raise InputError(f"filter {key!r} compares with {one!r:.60}; {_way_out(key, one)}")
        if isinstance(one, str):
            try:
                one.encode()
            except UnicodeEncodeError:
                raise InputError(f"filter {key!r} has a lone surrogate in {one!r:.60}; decode it again") from None
    return In(key, tuple(values))


def _way_out(key: str, value: object) -> str:
    """Return what to write in place of a value that nothing can be equal to."""
    if value is None:
        return f"write {{{key!r}: {{'exists': False}}}} for null"
    if isinstance(value, Mapping) and key.lower() in ("and", "or"):
        return f"write {key.lower()!r} to combine conditions"
    return "use strings, numbers, true or false, or 'exists'"


def _listed(key: object, value: Any) -> list[Any]:
    if isinstance(value, str | bytes | Mapping) or not isinstance(value, Iterable):
        raise InputError(f"filter {key!r} takes a list, got {value!r:.60}")
    return list(value)


def _json(value: object) -> Any:
    """Return what the metadata keeps of a NumPy scalar, a decimal number or a UUID; anything else as it is."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Decimal):
        return float(value)
    return str(value) if isinstance(value, uuid.UUID) else value


def _bound(key: str, name: str, value: Any) -> float | datetime:
    value = _json(value)
    moment = moment_of(value)
    if moment is not None:
        return moment
    if isinstance(value, bool) or not _is_number(value):
        raise InputError(
            f"filter {key!r} has {name} {value!r:.60}; ranges compare numbers, or moments like '2026-01-31T12:00:00Z'"
        )
    return float(value) if isinstance(value, float) else int(value)


def moment_of(value: object) -> datetime | None:
    """Return the moment that a datetime, a date or an ISO 8601 string names, or None; without an offset, in UTC."""
    if isinstance(value, str):
        match = _MOMENT.fullmatch(value)
        if match is None:
            return None
        day, clock, fraction, offset = match.groups(default="")
        try:  # spelled as Python 3.10 takes it
            value = datetime.fromisoformat(
                f"{day}{clock}{fraction and '.' + fraction.ljust(6, '0')}{offset.replace('Z', '+00:00')}"
            )
        except ValueError:  # such as the 31st of February
            return None
    elif isinstance(value, date) and not isinstance(value, datetime):
        value = datetime(value.year, value.month, value.day)
    if not isinstance(value, datetime):
        return None
    return value if value.tzinfo else value.replace(tzinfo=timezone.utc)


def leaves(condition: Condition) -> Iterator[In | Range | Period | Exists]:
    """Yield the conditions on single fields that a condition is made of."""
    if isinstance(condition, Not):
        yield from leaves(condition.condition)
    elif isinstance(condition, All | AnyOf):
        for one in condition.conditions:
            yield from leaves(one)
    else:
        yield condition


def _is_number(value: object) -> bool:
    return (isinstance(value, int) and abs(value) < 2**63) or (isinstance(value, float) and math.isfinite(value))


def _matches(condition: Condition, metadata: Mapping[str, Any]) -> bool:
    if isinstance(condition, All):
        return all(_matches(one, metadata) for one in condition.conditions)
    if isinstance(condition, AnyOf):
        return any(_matches(one, metadata) for one in condition.conditions)
    if isinstance(condition, Not):
        return not _matches(condition.condition, metadata)
    value = value_of(metadata, condition.key)
    if isinstance(condition, In):
        elements = value if isinstance(value, list | tuple) else [value]
        values = {_comparable(one) for one in condition.values}
        return any(_comparable(one) in values for one in elements)
    if isinstance(condition, Range):
        if isinstance(value, bool) or not isinstance(value, int | float):
            return False
        return all(BOUNDS[name](value, bound) for name, bound in condition.bounds.items())
    if isinstance(condition, Period):
        moment = moment_of(value) if isinstance(value, str) else None
        return moment is not None and all(BOUNDS[name](moment, bound) for name, bound in condition.bounds.items())
    return value not in (None, [], ())  # Exists


def value_of(metadata: Any, key: str) -> Any:
    """Return a field of the metadata, None if it is missing; "a.b" is in the mapping in "a"."""
    for name in key.split("."):
        metadata = metadata.get(name) if isinstance(metadata, Mapping) else None
    return metadata


def _comparable(value: Any) -> tuple[str, Any]:
    """Return what is equal for equal values: True and 1 differ, 5 and 5.0 do not."""
    if isinstance(value, bool):
        return "bool", value
    if isinstance(value, int | float):
        return "number", value
    return ("string", value) if isinstance(value, str) else ("other", None)
