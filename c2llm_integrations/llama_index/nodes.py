"""LlamaIndex's nodes as rows of our stores, and its filters as ours."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from llama_index.core.schema import BaseNode, MetadataMode, TextNode
from llama_index.core.vector_stores.types import FilterCondition, FilterOperator, MetadataFilter, MetadataFilters
from llama_index.core.vector_stores.utils import metadata_dict_to_node
from pydantic_core import to_jsonable_python

from c2llm_integrations.errors import InputError
from c2llm_integrations.stores.records import AnyRecord
from c2llm_integrations.stores.row_fields import json_value

# Fields of a row that hold the rest of a node, beside its text and metadata.
DOCUMENT, CONTENT, TYPE = "ref_doc_id", "_node_content", "_node_type"
# A field of a node's metadata with one of these names is stored under another.
NODE_FIELDS = frozenset((DOCUMENT, CONTENT, TYPE))

_ORDERED = {FilterOperator.GT: "gt", FilterOperator.GTE: "gte", FilterOperator.LT: "lt", FilterOperator.LTE: "lte"}
_TEXT: dict[FilterOperator, Callable[[str, str], bool]] = {
    FilterOperator.TEXT_MATCH: lambda wanted, text: wanted in text,
    FilterOperator.TEXT_MATCH_INSENSITIVE: lambda wanted, text: wanted.lower() in text.lower(),
}


def text_of(node: BaseNode) -> str:
    """Return the text of a node, without its metadata."""
    return node.get_content(metadata_mode=MetadataMode.NONE)


def kept_of(node: BaseNode) -> dict[str, Any]:
    """Return the fields that hold the rest of a node, beside its text and metadata."""
    rest = node.model_dump(exclude={"embedding", "metadata", "text", "text_resource"})
    content = json.dumps(to_jsonable_python(rest, fallback=json_value), ensure_ascii=False)
    kept = {CONTENT: content, TYPE: node.class_name()}
    return kept if node.ref_doc_id is None else {**kept, DOCUMENT: node.ref_doc_id}


def node_of(record: AnyRecord, metadata: Mapping[str, Any]) -> BaseNode:
    """Return the node that a row was written from, or a new node if another program wrote the row."""
    if CONTENT in record.metadata:
        node = metadata_dict_to_node(dict(record.metadata), record.text)
        node.metadata = dict(metadata)
        return node
    own = dict(metadata)
    return TextNode(id_=str(record.id), text=record.text, metadata=own, excluded_embed_metadata_keys=sorted(own))


def where_of(filters: MetadataFilters | None, values: Callable[[str], Iterable[Any]]) -> dict[str, Any]:
    """Return LlamaIndex's filters, with any nesting, in the form that `Filter` takes.

    `values` returns those that a field has in the collection, which text filters search. Raises InputError if the value
    of a filter does not fit its operator.
    """
    if filters is None or not filters.filters:
        return {}
    parts = [
        where_of(one, values) if isinstance(one, MetadataFilters) else _condition(one, values)
        for one in filters.filters
    ]
    if filters.condition == FilterCondition.NOT:
        return {"not": {"or": parts}}
    return {"or" if filters.condition == FilterCondition.OR else "and": parts}


def _condition(one: MetadataFilter, values: Callable[[str], Iterable[Any]]) -> dict[str, Any]:
    key, value, operator = one.key, one.value, one.operator
    if operator == FilterOperator.IS_EMPTY:
        return {key: {"exists": False}}
    if value is None and operator in (FilterOperator.EQ, FilterOperator.NE):
        return {key: {"exists": operator == FilterOperator.NE}}
    if operator in _TEXT:
        if not isinstance(value, str):
            raise InputError(f"filter {key!r} searches text, got {value!r:.60}; use a string")
        texts = {text for held in values(key) for text in (held if isinstance(held, list) else [held])}
        return {key: sorted(text for text in texts if isinstance(text, str) and _TEXT[operator](value, text))}
    if operator in _ORDERED:
        return {key: {_ORDERED[operator]: value}}
    if operator == FilterOperator.ALL:
        if not isinstance(value, list):
            raise InputError(f"filter {key!r} matches all elements of a list, got {value!r:.60}; use a list")
        return {"and": [{key: element} for element in value]}
    if operator in (FilterOperator.NE, FilterOperator.NIN):
        return {"not": {key: {"eq": value}}}
    return {key: {"eq": value}}  # EQ, IN, ANY and CONTAINS: the field, or an element of the list in it, is one of them
