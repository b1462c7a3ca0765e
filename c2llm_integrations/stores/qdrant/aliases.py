"""Qdrant's aliases: which collection a name stands for, and how a rebuilt one takes the name in one step.

The collection NAME is an alias of NAME__1, its successor will be NAME__2, and so on: no part gets the name of one that
it replaced, by which another process may still ask. Each says in its metadata which collection it is part of and, until
it first serves, that it is unfinished; so what a killed run left is told from what serves. What an earlier release made
as a plain collection NAME is used as it is.
"""

from __future__ import annotations

import json
from typing import Any, NamedTuple

from c2llm_integrations._utils.retry import retrying
from c2llm_integrations.errors import StoreError
from c2llm_integrations.stores.qdrant.client import (
    AsyncQdrantClient,
    QdrantClient,
    creation,
    field_index,
    is_gone,
    models,
    pause_after,
)
from c2llm_integrations.stores.qdrant.payload import indexed
from c2llm_integrations.stores.spec import CollectionSpec

# Keys of a collection's metadata; None removes one.
SPEC_KEY = "c2llm_spec"
NAME_KEY = "c2llm_collection"
UNFINISHED_KEY = "c2llm_unfinished"


class Serving(NamedTuple):
    """The collection that requests go to, under its own name, and its spec."""

    name: str
    spec: CollectionSpec


class AliasedCollection:
    """A collection by its name, and the parts behind it: the one that serves, and its successor."""

    def __init__(self, client: QdrantClient, url: str, name: str) -> None:
        """`url` is what messages call the database."""
        self.client = client
        self.url = url
        self.name = name
        self.local = is_local(client)

    def serving(self) -> Serving | None:
        """Return what has the name now, None if nothing has.

        Raises StoreError for a collection that this package did not make, or that is part of another one.
        """
        for _ in range(3):  # it may be replaced between two requests
            name = self._serving_name()
            try:
                return None if name is None else self.opened(name)
            except Exception as error:
                if not is_gone(error):
                    raise
        return None

    def opened(self, name: str) -> Serving:
        """Return the collection that is called `name` at the database; errors are those of `serving`."""
        metadata = self.metadata(name)
        if SPEC_KEY not in metadata:
            why, way_out = "was not made by this package", ", or read it with a Layout"
        elif metadata.get(NAME_KEY, self.name) != self.name:
            why, way_out = f"is part of collection {metadata[NAME_KEY]!r}", ""
        else:
            return Serving(name, CollectionSpec.from_json(json.dumps(metadata[SPEC_KEY])))
        raise StoreError(f"collection {name!r} of {self.url} {why}; choose another --collection{way_out}")

    def _serving_name(self) -> str | None:
        name = self.aliases().get(self.name)
        if name is not None or self.exists(self.name):
            return name or self.name
        for part in self._around(0):
            if self._holds(part) and not self.metadata(part).get(UNFINISHED_KEY):
                self._point_to(part)  # a run was killed between deleting a plain collection and naming its successor
                return part
        return None

    def create(self, spec: CollectionSpec) -> None:
        """Create the missing collection."""
        part = self._part(1)
        self.make(part, spec)
        self._finish(part)
        self._point_to(part)

    def make(self, part: str, spec: CollectionSpec) -> None:
        """Create an unfinished collection, or go on with one that a killed run began with this spec."""
        made = json.loads(spec.to_json())
        if self.exists(part):
            self._require_ours(part)
            if self.metadata(part)[SPEC_KEY] != made:
                self.delete(part)
        metadata = {SPEC_KEY: made, NAME_KEY: self.name, UNFINISHED_KEY: True}
        try:
            self.call("create_collection", part, **creation(spec), metadata=metadata)
        except Exception:
            if not self._holds(part):  # else it was there, or another writer or a try without an answer made it
                raise
        self._index(part, spec)

    def spare(self, serving: str) -> str:
        """Return the part for the successor of `serving`: missing, or what a killed run began."""
        before, part = self._around(self._number(serving))
        if self._holds(before):
            self.delete(before)  # it was replaced by a run that was killed before it could delete it
        if self.exists(part):
            self._require_ours(part)
            if not self.metadata(part).get(UNFINISHED_KEY):
                self.delete(part)  # filled by a run that was killed before it could take its place
        return part

    def replace(self, serving: str) -> None:
        """Give the name to the successor of `serving` and delete that."""
        part = self._part(self._number(serving) + 1)
        self._index(part, self.opened(part).spec)
        self._finish(part)
        if serving == self.name:
            self.delete(serving)  # a plain collection stands where the alias has to be
            self._point_to(part)
        else:
            self._point_to(part)
            self.delete(serving)

    def drop(self, serving: str | None) -> None:
        """Delete everything; what serves goes last, and its alias with it, so that a killed drop can be repeated."""
        for part in self._around(0 if serving is None else self._number(serving)):
            if self._holds(part):
                self.delete(part)
        if serving is not None:
            self.delete(serving)

    # ---- requests

    def call(self, method: str, *args: Any, **options: Any) -> Any:
        """Call the client's `method`, trying again what fails for a moment."""
        return retrying(lambda: getattr(self.client, method)(*args, **options), pause_after)

    def exists(self, name: str) -> bool:
        """Return whether there is a collection or alias of this name."""
        return bool(self.call("collection_exists", name))

    def metadata(self, name: str) -> dict[str, Any]:
        """Return a collection's own metadata."""
        return dict(self.call("get_collection", name).config.metadata or {})

    def aliases(self) -> dict[str, str]:
        """Return alias → collection."""
        return {one.alias_name: one.collection_name for one in self.call("get_aliases").aliases}

    def delete(self, name: str) -> None:
        """Delete a collection and its aliases; no error if there is none."""
        self.call("delete_collection", name)

    def _index(self, part: str, spec: CollectionSpec) -> None:
        for key, kind in () if self.local else indexed(spec).items():  # in memory there are no indexes
            self.call("create_payload_index", part, key, field_index(kind), wait=True)

    def _finish(self, part: str) -> None:
        self.call("update_collection", part, metadata={UNFINISHED_KEY: None})

    def _point_to(self, part: str) -> None:
        old = models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=self.name))
        new = models.CreateAliasOperation(create_alias=models.CreateAlias(collection_name=part, alias_name=self.name))
        self.call("update_collection_aliases", [old, new])  # one step for all who read by the name

    def _part(self, number: int) -> str:
        return f"{self.name}__{number}"

    def _number(self, part: str) -> int:
        """Return which part a collection is, 0 for a plain one."""
        number = part.removeprefix(f"{self.name}__")
        return int(number) if number.isdecimal() and part != number else 0

    def _around(self, number: int) -> tuple[str, str]:
        """Return the parts beside one that serves; beside none or a plain collection, the first two."""
        return self._part(number - 1 if number else 2), self._part(number + 1)

    def _holds(self, part: str) -> bool:
        return self.exists(part) and self.metadata(part).get(NAME_KEY) == self.name

    def _require_ours(self, part: str) -> None:
        if not self._holds(part):
            raise StoreError(f"{self.url} has a collection {part!r} that is not part of {self.name!r}; rename it")


def is_local(client: QdrantClient | AsyncQdrantClient) -> bool:
    """Return whether the client keeps its rows itself, in memory or in a folder, without a server."""
    options = client.init_options
    return options.get("path") is not None or options.get("location") == ":memory:"
