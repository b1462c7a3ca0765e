"""What every row of a collection has in common, and what a store can do."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

from c2llm_integrations.errors import InputError, SpecMismatch, StoreError

Fingerprint = Mapping[str, str | int | bool | None]

# The layout of rows and metadata that this release writes and reads.
LAYOUT = 1


@dataclass(frozen=True, slots=True)
class CollectionSpec:
    """What every row of a collection has in common; written before the first row, checked at every opening.

    `width` counts vector dimensions; `fingerprint` says what the vectors mean (`C2LLMEmbedder.fingerprint`).
    `datatype`, `quantization` and `rescore` are those of `compression.CompactPlan`. `analyser` names what made the
    lexical terms (`code.terms.ANALYSER`), None where search is dense only. `long_text` says what becomes of a text
    over the store's byte limit: "refuse" the row or "cut" the text.
    """

    width: int
    fingerprint: Fingerprint
    datatype: str = "float32"
    quantization: str | None = None
    rescore: float = 0.0
    analyser: str | None = None
    long_text: str = "refuse"
    layout: int = LAYOUT

    def __post_init__(self) -> None:
        if self.width < 1:
            raise InputError(f"a collection's vectors need at least 1 dimension, got {self.width}")
        if self.long_text not in ("refuse", "cut"):
            raise InputError(f"long_text is {self.long_text!r}; say 'refuse' or 'cut'")
        object.__setattr__(self, "fingerprint", dict(self.fingerprint))

    def to_json(self) -> str:
        """Return the spec as one line of JSON, keys sorted."""
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> CollectionSpec:
        """Read what `to_json` wrote.

        Raises SpecMismatch for a layout this release does not know, StoreError for anything else.
        """
        try:
            data = json.loads(text)
            layout = data["layout"]
            if layout == LAYOUT:
                return cls(**data)
        except (ValueError, TypeError, KeyError) as error:
            raise StoreError(
                f"the collection's spec is damaged ({error!r}); delete the collection and index again"
            ) from error
        raise SpecMismatch(
            f"the collection has layout {layout}, this release reads {LAYOUT}; "
            "use another --collection or install the release that wrote it"
        )

    def require_model(self, width: int, fingerprint: Fingerprint) -> None:
        """Raise SpecMismatch unless vectors of this width and fingerprint can be compared with the collection's."""
        self.require_same(replace(self, width=width, fingerprint=fingerprint))

    def require_same(self, asked: CollectionSpec) -> None:
        """Raise SpecMismatch, naming the differing field and both values, unless `asked` is the same."""
        mine, theirs = _comparable(self), _comparable(asked)
        for key in sorted(mine.keys() | theirs.keys()):
            if mine.get(key) != theirs.get(key):
                made, wanted = self.fingerprint.get("model"), asked.fingerprint.get("model")
                raise SpecMismatch(
                    f"the collection has {key} {mine.get(key)!r} (model {made!r}), asked for {theirs.get(key)!r} "
                    f"(model {wanted!r}); use that model, index again with --replace, or take another --collection"
                )


def _comparable(spec: CollectionSpec) -> dict[str, object]:
    flat = asdict(spec)
    fingerprint = dict(flat.pop("fingerprint"))
    fingerprint.pop("model", None)  # a name: the weights' digest decides, and a folder may be moved
    return {**flat, **{f"fingerprint.{key}": value for key, value in fingerprint.items()}}


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What a store can do; a plan outside it is refused by name.

    `uploads`: how many threads may call `upsert` at once; 1 where the store is for one thread only.
    """

    datatypes: frozenset[str] = frozenset({"float32"})
    quantizations: frozenset[str] = frozenset()
    lexical: bool = False
    max_text_bytes: int | None = None
    uploads: int = 1

    def require(self, spec: CollectionSpec) -> None:
        """Raise StoreError, naming what is missing, unless a collection of this spec can be made."""
        if spec.datatype not in self.datatypes:
            raise StoreError(f"datatype {spec.datatype!r} is not supported here, only {sorted(self.datatypes)}")
        if spec.quantization is not None and spec.quantization not in self.quantizations:
            known = sorted(self.quantizations) or "none"
            raise StoreError(f"quantization {spec.quantization!r} is not supported here, only {known}")
        if spec.analyser is not None and not self.lexical:
            raise StoreError(f"lexical search (analyser {spec.analyser!r}) is not supported here; leave it out")
