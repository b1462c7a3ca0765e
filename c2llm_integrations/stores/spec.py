"""The spec of a collection (width, datatype, quantization, fields), and the capabilities of a store."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from numbers import Real
from typing import Any
from urllib.parse import unquote

from c2llm_integrations._utils.json_lines import parse_json
from c2llm_integrations.code.lexical_terms import ANALYZER
from c2llm_integrations.errors import InputError, SpecMismatch, StoreError
from c2llm_integrations.model.fingerprint import DocumentEmbedder, Fingerprint, current_fingerprint, is_same_probe

# The layout of rows and metadata that this release writes and reads.
LAYOUT = 1
# Of what is wrong with a spec, which may say anything, a message repeats so much.
MAX_REASON_CHARS = 300
# No width, token count or version has more.
MAX_NUMBER = 2**31 - 1
# Characters of a wrong value that a message shows.
SHOWN_CHARS = 40

# Datatype → bits a dimension of the full vectors; turbo ones are kept rotated and rounded (TurboQuant).
DATATYPES = {"float32": 32, "float16": 16, "turbo16": 16, "turbo8": 8, "turbo4": 4}
# Quantization → bits a dimension of the codes that are searched first.
QUANTIZATIONS = {
    "int8": 8.0,
    "turbo8": 8.0,
    "turbo": 4.0,
    "turbo2": 2.0,
    "turbo1.5": 1.5,
    "turbo1": 1.0,
    "product": 2.0,
    "binary2": 2.0,
    "binary1.5": 1.5,
    "binary": 1.0,
    "rabitq": 1.0,
}
# Quantization → how many times `limit` candidates are taken by their codes and compared again by full vectors.
OVERSAMPLING = {"int8": 2.0, "turbo8": 2.0, "turbo": 3.0} | dict.fromkeys(
    ("turbo2", "turbo1.5", "turbo1", "product", "binary2", "binary1.5", "binary", "rabitq"), 10.0
)
# The fingerprint of vectors that came without their model, as the frameworks' stores write it; records leave it empty.
GIVEN_VECTORS = {"vectors": "given"}
# What a field that is indexed for filters can hold.
FIELD_KINDS = ("keyword", "tenant", "integer", "float", "boolean", "datetime")


@dataclass(frozen=True)
class CompactPlan:
    """How vectors are stored: their width, the bits of each dimension, and short codes that are searched first.

        CompactPlan(datatype="float16", quantization="binary")

    Args:
        output_dim: The vectors' width; None for the embedder's own.
        datatype: Of the full vectors: "float32", "float16", or "turbo16", "turbo8", "turbo4" (16, 8 or 4 bits a
            dimension).
        quantization: Of the codes: "int8", "turbo", "product", "binary", "rabitq", or "turbo8", "turbo2", "turbo1.5",
            "turbo1", "binary2", "binary1.5" with that many bits a dimension; None for no codes.
        rescore: The codes choose this many times `limit` candidates, which are compared again by the full vectors; 0
            compares codes alone. None is 2 for 8 bits, 3 for "turbo", 10 for all others.

    Raises:
        InputError: For a value that no store knows. A store refuses a plan that only it cannot honor.

    """

    output_dim: int | None = None
    datatype: str = "float32"
    quantization: str | None = None
    rescore: float | None = None

    def __post_init__(self) -> None:
        for name, value in {"output_dim": self.output_dim, "rescore": self.rescore}.items():
            if not isinstance(value, Real | None):
                raise InputError(f"{name} is {value!r:.60}, must be a number")
        if self.output_dim is not None and self.output_dim < 1:
            raise InputError(f"output_dim is {self.output_dim}, must be at least 1")
        if self.datatype not in DATATYPES:
            raise InputError(f"datatype {self.datatype!r} is not known, only {', '.join(DATATYPES)}")
        if self.quantization is not None and self.quantization not in QUANTIZATIONS:
            raise InputError(f"quantization {self.quantization!r} is not known, only {', '.join(QUANTIZATIONS)}")
        if self.rescore is None:
            object.__setattr__(self, "rescore", OVERSAMPLING.get(self.quantization or "", 0.0))
        elif self.quantization is None and self.rescore:
            raise InputError(f"rescore is {self.rescore} without a quantization; there are no codes to rescore")
        elif self.rescore and not self.rescore >= 1:
            raise InputError(f"rescore is {self.rescore}; say 0 for codes alone, or at least 1")

    def require_width(self, width: int) -> None:
        """Raise InputError if the plan names another width than that of an embedder's vectors."""
        if self.output_dim not in (None, width):
            raise InputError(
                f"the plan stores {self.output_dim} dimensions, the embedder gives {width}; "
                "load it with output_dim=N, or plan for its width"
            )

    @property
    def code_bytes(self) -> float:
        """Bytes of one vector's codes, which are searched first; 0 without a quantization."""
        return self._width * QUANTIZATIONS.get(self.quantization or "", 0.0) / 8

    @property
    def bytes_per_vector(self) -> float:
        """Bytes of one full vector and its codes."""
        return self._width * DATATYPES[self.datatype] / 8 + self.code_bytes

    @property
    def _width(self) -> int:
        if self.output_dim is None:
            raise InputError("the plan names no output_dim, so what a vector takes is not known; give it one")
        return self.output_dim


@dataclass(frozen=True, slots=True)
class CollectionSpec:
    """What all rows of a collection have in common; written before the first row, checked at every opening.

    Args:
        width: Dimensions of a vector.
        fingerprint: What the vectors mean, as `C2LLMEmbedder.fingerprint` says.
        datatype: As in `CompactPlan`, like `quantization` and `rescore`.
        analyzer: Version of the lexical terms (`code.lexical_terms.ANALYZER`); None for dense search only.
        long_text: What to do with a text over the store's byte limit: "refuse" the row or "cut" the text.
        fields: Field of the metadata → its kind: "keyword", "tenant", "integer", "float", "boolean" or "datetime". The
            store indexes these fields for filters, and refuses values of another kind. "tenant" is a keyword by which
            it keeps the rows of one customer together; at most one field has it.
        layout: Version of the rows' schema; leave it as it is.
        index: The database's own parameters for building and distributing the collection, used only when it is made.
            Qdrant: {"m": 32, "ef_construct": 256}, on a server also "shard_number", "replication_factor" and
            "write_consistency_factor". Milvus server: {"M": 32, "efConstruction": 256}, or {"nlist": 4096} with a
            quantization, and "num_shards" and "replica_number".

    Raises:
        InputError: For a value that no collection can have.

    """

    width: int
    fingerprint: Fingerprint
    datatype: str = "float32"
    quantization: str | None = None
    rescore: float = 0.0
    analyzer: str | None = None
    long_text: str = "refuse"
    fields: Mapping[str, str] = field(default_factory=dict)
    layout: int = LAYOUT
    index: Mapping[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.width < 1:
            raise InputError(f"a collection's vectors need at least 1 dimension, got {self.width}")
        if self.long_text not in ("refuse", "cut"):
            raise InputError(f"long_text is {self.long_text!r}; say 'refuse' or 'cut'")
        for name, kind in self.fields.items():
            if kind not in FIELD_KINDS:
                raise InputError(f"field {name!r} has kind {kind!r}; known are {', '.join(FIELD_KINDS)}")
        if list(self.fields.values()).count("tenant") > 1:
            raise InputError(f"only one field can be the tenant, got {dict(self.fields)}; make the others keywords")
        for name, number in self.index.items():
            if type(number) is not int or number < 1:
                raise InputError(f"index {name!r} is {number!r}, must be an integer of at least 1")
        object.__setattr__(self, "fingerprint", current_fingerprint(self.fingerprint))
        object.__setattr__(self, "fields", dict(self.fields))
        object.__setattr__(self, "index", dict(self.index))

    @classmethod
    def for_embedder(
        cls,
        embedder: DocumentEmbedder,
        *,
        plan: CompactPlan | None = None,
        lexical: bool = True,
        fields: Mapping[str, str] | None = None,
        long_text: str = "refuse",
        index: Mapping[str, int] | None = None,
    ) -> CollectionSpec:
        """Return the spec of a collection for an embedder's vectors.

            CollectionSpec.for_embedder(embedder, plan=CompactPlan(datatype="float16"), fields={"votes": "integer"})

        Args:
            embedder: A `C2LLMEmbedder`, or a `RayEmbedder`.
            plan: How vectors are stored; None for float32 as they are.
            lexical: Whether the collection can be searched by words too.
            fields: Field of the metadata → its kind; see `CollectionSpec`.
            long_text: "refuse" or "cut"; see `CollectionSpec`.
            index: How the database builds and spreads the collection; see `CollectionSpec`.

        Raises:
            InputError: For a plan of another width than the embedder gives.

        """
        made = cls.planned(embedder.output_dim, embedder.fingerprint, plan, lexical=lexical, fields=fields)
        return replace(made, long_text=long_text, index=index or {})

    @classmethod
    def planned(
        cls,
        width: int,
        fingerprint: Fingerprint,
        plan: CompactPlan | None = None,
        *,
        lexical: bool = True,
        fields: Mapping[str, str] | None = None,
    ) -> CollectionSpec:
        """Return what `for_embedder` does, for vectors of this width and fingerprint."""
        plan = plan or CompactPlan()
        plan.require_width(width)
        codes = plan.quantization, plan.rescore or 0.0
        analyzer = ANALYZER if lexical else None
        return cls(width, fingerprint, plan.datatype, *codes, analyzer=analyzer, fields=fields or {})

    @property
    def plan(self) -> CompactPlan:
        """What is stored of a vector; raises InputError for values that no store knows."""
        return CompactPlan(self.width, self.datatype, self.quantization, self.rescore)

    @property
    def is_given(self) -> bool:
        """Whether the vectors came without their model, so that nothing tells what they mean."""
        return self.fingerprint in ({}, GIVEN_VECTORS)

    @property
    def tenant(self) -> str | None:
        """The field that names the customer a row belongs to, if there is one."""
        return next((name for name, kind in self.fields.items() if kind == "tenant"), None)

    def to_json(self) -> str:
        """Return the spec as one line of JSON, keys sorted."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> CollectionSpec:
        """Read what `to_json` wrote.

        Raises SpecMismatch for a layout this release does not know, StoreError for anything else.
        """
        try:
            data = parse_json(text)
            layout = data["layout"]
            if type(layout) is not int or layout == LAYOUT:
                if "analyser" in data:  # earlier releases
                    data["analyzer"] = data.pop("analyser")
                return cls(**_checked_spec(data))
        except (ValueError, TypeError, KeyError) as error:
            why = f"{type(error).__name__}: {error}"[:MAX_REASON_CHARS]
            raise StoreError(
                f"the collection's spec is damaged ({why}); delete the collection and index again"
            ) from error
        raise SpecMismatch(
            f"the collection has layout {layout}, this release reads {LAYOUT}; "
            "use another --collection or install the release that wrote it"
        )

    def require_model(self, width: int, fingerprint: Fingerprint) -> None:
        """Raise SpecMismatch unless vectors of this width and fingerprint can be compared with the collection's.

        Of a collection that somebody else made, which has no fingerprint, only the width is known.
        """
        if not self.fingerprint and width != self.width:
            raise SpecMismatch(
                f"the collection, which somebody else made, has width {self.width}, the model {width}; "
                "use the model that made them, or name another vector in the Layout"
            )
        self.require_same(replace(self, width=width, fingerprint=fingerprint if self.fingerprint else {}))

    def require_same(self, asked: CollectionSpec) -> None:
        """Raise SpecMismatch, naming the differing field and both values, unless `asked` is the same."""
        if self.is_given and not asked.is_given:
            raise SpecMismatch(
                "the collection was filled with given vectors, so their model is not known, asked for model "
                f"{asked.fingerprint.get('model')!r}; give that model with the vectors from the first run on: drop the "
                "collection or use --replace, or take another --collection"
            )
        mine, theirs = _comparable(self), _comparable(asked)
        mine |= {key: None for key in mine if key.startswith("fields.") and key not in theirs}  # more than asked for
        # The width first: it says more than the digest of the head that gives it. Then the class of another's model.
        first = {"width": 0, "fingerprint.embeddings": 1}
        for key in sorted(mine.keys() | theirs.keys(), key=lambda key: (first.get(key, 2), key)):
            has, wants = mine.get(key), theirs.get(key)
            if has == wants or is_same_probe(has, wants):
                continue
            differs, way_out = f"has {key} {has!r}, asked for {wants!r}", "leave that out"
            if key.startswith("fields."):
                does = "does not index" if has is None else f"indexes as {has}"
                differs = f"{does} the field {key.removeprefix('fields.')!r}, asked for {wants}"
            elif key.startswith(("width", "fingerprint.")):
                models = _model(self), _model(asked)
                differs = f"has {key} {has!r} (model {models[0]!r}), asked for {wants!r} (model {models[1]!r})"
                way_out = "use that model"
            raise SpecMismatch(
                f"the collection {differs}; {way_out}, index again with --replace, or take another --collection"
            )


def _model(spec: CollectionSpec) -> object:
    """Return what the model is called; one that is not ours is called by its class."""
    return spec.fingerprint.get("model", spec.fingerprint.get("embeddings"))


def _comparable(spec: CollectionSpec) -> dict[str, object]:
    flat = asdict(spec)
    del flat["index"]  # it changes no answer, so the collection's own holds
    fingerprint = dict(flat.pop("fingerprint"))
    fingerprint.pop("model", None)  # a name: the weights' digest decides, and a folder may be moved
    fields = dict(flat.pop("fields"))
    return {
        **flat,
        **{f"fingerprint.{key}": value for key, value in fingerprint.items()},
        **{f"fields.{key}": value for key, value in fields.items()},
    }


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a store can do; a plan outside it is refused by name.

    `uploads`: how many threads may call `upsert` at once; 1 where the store is for one thread only. `index`: the names
    that a spec's `index` may hold.
    """

    datatypes: frozenset[str] = frozenset({"float32"})
    quantizations: frozenset[str] = frozenset()
    lexical: bool = False
    max_text_bytes: int | None = None
    uploads: int = 1
    index: frozenset[str] = frozenset()

    def require(self, spec: CollectionSpec) -> None:
        """Raise StoreError, naming what is missing, unless a collection of this spec can be made."""
        if spec.datatype not in self.datatypes:
            raise StoreError(f"datatype {spec.datatype!r} is not supported here, only {sorted(self.datatypes)}")
        if spec.quantization is not None and spec.quantization not in self.quantizations:
            known = sorted(self.quantizations) or "none"
            raise StoreError(f"quantization {spec.quantization!r} is not supported here, only {known}")
        if spec.analyzer is not None and not self.lexical:
            raise StoreError(f"lexical search (analyzer {spec.analyzer!r}) is not supported here; leave it out")
        if unknown := sorted(spec.index.keys() - self.index):
            raise StoreError(f"index {unknown[0]!r} is not supported here, only {sorted(self.index) or 'none'}")


# ---- what a stored spec and claims may hold: they may come with a checkout


def _checked_spec(data: object) -> dict[str, Any]:
    """Return the fields of a stored spec; raises TypeError for a value of another type than that field has."""
    fields = _mapping("spec", data)
    found = [(name, value, _KINDS[name]) for name, value in fields.items() if name in _KINDS]
    for name, kind in _MEMBERS.items():
        members = _mapping(f"spec.{name}", fields.get(name, {}))
        found += [(f"{name}.{key[:SHOWN_CHARS]}", value, kind) for key, value in members.items()]
    for name, value, (what, is_one) in found:
        if not is_one(value):
            raise _wrong(f"spec.{name}", value, what)
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
