"""The collections of one Milvus: their names, creation, indexes and loading, and which ones belong to one name.

A name of ours is an alias over a physical collection NAME__1; the next one to take its place is NAME__2.
"""

from __future__ import annotations

import logging
import re
import time
from collections.abc import Mapping
from typing import Any

from pymilvus import MilvusClient

from c2llm_integrations._utils.retry import retrying
from c2llm_integrations.errors import InputError, StoreError
from c2llm_integrations.stores.milvus.errors import is_missing, pause_after, reason
from c2llm_integrations.stores.milvus.schema import PARTITIONS, Server, indexes_of, schema_of, tenant_column
from c2llm_integrations.stores.spec import CollectionSpec

# By default pymilvus prints every failed call with its traceback, and a warning for every scan of an older server.
# What fails is raised here as one line, so that is silenced unless the program has chosen a level of its own.
if logging.getLogger("pymilvus").level == logging.WARNING:
    logging.getLogger("pymilvus").setLevel(logging.CRITICAL)

CONNECT_SECONDS = 10
# Of one call, in which pymilvus itself tries again while the server cannot be reached; and of flushing and loading.
TIMEOUT_SECONDS = 60
LOAD_SECONDS = 3_600
# Far more than a server takes to index ten million rows.
INDEX_SECONDS = 4 * 3_600.0
POLL_SECONDS = 0.1
# A read sees every write that was acknowledged to anybody.
STRONG: dict[str, Any] = {"consistency_level": "Strong"}
# A store looks up what its name stands for at least this often; a replaced collection is dropped once all have, for a
# server may answer a question to a dropped one with a part of its rows.
FRESH_SECONDS = 1.0
GRACE_SECONDS = 3.0
# How long a server may take to show an alias that it says exists.
ALIAS_SECONDS = 3.0
# Of a client of our own: its connection is not shared, so that closing it ends it; and it pings no more often than the
# 5 minutes that gRPC servers allow, because those of Milvus Lite hang up on pymilvus's default of 10 seconds.
CONNECTION: dict[str, Any] = {"dedicated": True, "grpc_options": {"grpc.keepalive_time_ms": 360_000}}
# As large as servers send by default; pymilvus itself reads any, and has the option's name in bytes.
MAX_ANSWER_BYTES = 2**28
# The keys of a collection's properties. Writing merges key by key, so one key a repository keeps two writers
# from overwriting each other's claims.
SPEC_KEY = "c2llm_spec"
CLAIM_KEY = "c2llm_claim:"

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")
_PHYSICAL = re.compile(r"(.+)__(\d{1,9})")


def connect(address: str, token: str | None) -> tuple[MilvusClient, Server]:
    """Return a client of the server at `address`, and what that is; raises StoreError if it does not answer in time."""
    try:
        bound = {b"grpc.max_receive_message_length": MAX_ANSWER_BYTES}
        options = {**CONNECTION, "grpc_options": {**CONNECTION["grpc_options"], **bound}}
        client = MilvusClient(address, token=token or "", timeout=CONNECT_SECONDS, **options)
        try:
            return client, Server.of(client.get_server_version(timeout=CONNECT_SECONDS), address)
        except BaseException:
            client.close()
            raise
    except Exception as error:  # pymilvus's own, and gRPC's as they are
        why = reason(error)
        message = f"milvus+{address} cannot be opened: {why}; is the server up, and the key right?"
        raise StoreError(message) from error


def usable(name: str) -> str:
    """Return a collection's name; raises InputError if Milvus does not take it."""
    if not _NAME.fullmatch(name) or _PHYSICAL.fullmatch(name):
        raise InputError(
            f"collection {name!r} is not a name that Milvus takes; use 1 to 128 letters, digits and '_', "
            "not starting with a digit and not ending in '__' and a number"
        )
    return name


def call(client: Any, method: str, *args: Any, timeout: float | None = None, **options: Any) -> Any:
    """Call a client's method, again after faults that pass; it must do no harm when done twice."""
    return retrying(lambda: getattr(client, method)(*args, timeout=timeout or TIMEOUT_SECONDS, **options), pause_after)


def described(client: Any, name: str) -> dict[str, Any] | None:
    """Return what Milvus knows of a collection or alias, None if there is none."""
    try:
        return dict(call(client, "describe_collection", name))
    except Exception as error:
        if is_missing(error):
            return None
        raise


def columns_of(description: Mapping[str, Any] | None) -> set[str]:
    """Return the columns of a collection as `described` gives it: an earlier release may have made it with fewer."""
    return {field["name"] for field in (description or {}).get("fields", ())}


def spec_of(properties: Mapping[str, str]) -> CollectionSpec:
    """Return the spec in a collection's properties; raises KeyError if this package did not make it."""
    return CollectionSpec.from_json(properties[SPEC_KEY])


def properties_of(client: Any, name: str) -> dict[str, str]:
    """Return the properties of a collection or alias, none if there is none."""
    return dict((described(client, name) or {}).get("properties") or {})


def number_of(physical: str) -> int:
    """Return which of the collections of its name a physical one is; 0 for one from before they had numbers."""
    match = _PHYSICAL.fullmatch(physical)
    return int(match[2]) if match else 0


def generations(client: Any, name: str) -> list[str]:
    """Return the physical collections that were made for a name, oldest first."""
    return sorted((one for one in _numbered(client, name) if SPEC_KEY in properties_of(client, one)), key=number_of)


def next_name(client: Any, name: str) -> str:
    """Return what the next physical collection of a name is called."""
    return f"{name}__{1 + max(map(number_of, _numbered(client, name)), default=0)}"


def _numbered(client: Any, name: str) -> list[str]:
    matches = map(_PHYSICAL.fullmatch, call(client, "list_collections"))
    return [match[0] for match in matches if match and match[1] == name]


def names(client: Any) -> list[str]:
    """Return the names of the collections that this package made, sorted."""
    names: set[str] = set()
    for physical in call(client, "list_collections"):
        if SPEC_KEY in properties_of(client, physical):
            match = _PHYSICAL.fullmatch(physical)
            aliases = call(client, "list_aliases", physical)["aliases"] if match else [physical]
            names.update({match[1] if match else physical} & set(aliases))
    return sorted(names)


def make(client: Any, physical: str, spec: CollectionSpec, server: Server) -> None:
    """Make a physical collection and its indexes, or what is missing of them."""
    indexes_of(spec, server)  # raises for what the spec says wrong of them, before anything is made
    options: dict[str, Any] = {"properties": {SPEC_KEY: spec.to_json()}, **STRONG}
    if server.has_partition_key:
        options["num_partitions"] = PARTITIONS
    if shards := spec.index.get("num_shards"):
        options["num_shards"] = shards
    if described(client, physical) is None:
        try:
            call(client, "create_collection", physical, schema=schema_of(spec, server), **options)
        except Exception:
            if described(client, physical) is None:  # unless somebody else makes it at the same time
                raise
    make_indexes(client, physical, spec, server)


def begin(client: Any, name: str, spec: CollectionSpec, server: Server) -> None:
    """Make the first collection of a name that there is not."""
    left = generations(client, name)
    physical = next_name(client, name)
    if left and _is_fresh(client, left[-1], spec, server):  # of a killed run, or of one that does the same right now
        physical = left.pop()
    for one in left:
        call(client, "drop_collection", one)
    make(client, physical, spec, server)
    give_name(client, physical, name)


def _is_fresh(client: Any, physical: str, spec: CollectionSpec, server: Server) -> bool:
    if spec_of(properties_of(client, physical)) != spec:
        return False
    load(client, physical, spec, server)
    found = call(client, "query", physical, filter="", output_fields=["count(*)"], **STRONG)
    return int(found[0]["count(*)"]) == 0


def give_name(client: Any, physical: str, alias: str) -> None:
    """Let a physical collection be called by its name."""
    try:
        call(client, "create_alias", physical, alias)
    except Exception:
        # Somebody else may have done it at the same time; the server shows it a moment after it has refused ours.
        deadline = time.monotonic() + ALIAS_SECONDS
        while described(client, alias) is None:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)


def successor_of(client: Any, physical: str, name: str) -> str:
    """Return the physical collection that is to take the place of another, begun or not."""
    later = [one for one in generations(client, name) if number_of(one) > number_of(physical)]
    return later[-1] if later else next_name(client, name)


def replace(client: Any, old: str, name: str, server: Server) -> None:
    """Give the name of a physical collection to its successor, and drop what is older."""
    new = successor_of(client, old, name)
    load(client, new, spec_of(properties_of(client, new)), server)
    if old == name:  # from before there were aliases: it makes room, and for a moment nothing has the name
        call(client, "rename_collection", name, f"{name}__0")
        give_name(client, new, name)
    else:
        call(client, "alter_alias", new, name)
    if server.kind != "lite":
        time.sleep(GRACE_SECONDS)
    for one in generations(client, name):
        if number_of(one) < number_of(new):
            call(client, "drop_collection", one)


def drop(client: Any, physical: str, name: str) -> None:
    """Drop a collection, what was begun to take its place, and the name."""
    if physical == name:
        call(client, "drop_collection", physical)
    else:
        call(client, "drop_alias", name)  # first: newer servers drop no collection that has one
    for one in generations(client, name):
        call(client, "drop_collection", one)


def make_indexes(client: Any, physical: str, spec: CollectionSpec, server: Server, *, filtered: bool = True) -> None:
    """Make those indexes of a collection that are missing; unless `filtered`, only those that find the nearest rows."""
    held = set(call(client, "list_indexes", physical))
    for field, index in indexes_of(spec, server).items():
        if field in held or not (filtered or "metric_type" in index):
            continue
        if field == tenant_column(spec) and field not in columns_of(described(client, physical)):
            continue
        missing = MilvusClient.prepare_index_params()
        missing.add_index(field, index_name=field, **index)
        try:
            call(client, "create_index", physical, index_params=missing, sync=False)
        except Exception:  # of a try that was answered by nobody but done, or another writer was first
            if field not in call(client, "list_indexes", physical):
                raise


def drop_indexes(client: Any, physical: str) -> None:
    """Take a collection's indexes away; it cannot be read until they are made again and it is loaded."""
    call(client, "release_collection", physical)
    for name in call(client, "list_indexes", physical):
        call(client, "drop_index", physical, index_name=name)


def load(client: Any, physical: str, spec: CollectionSpec, server: Server, *, waits: bool = True) -> None:
    """Let a collection be read: a server reads only a loaded one, and loads only an indexed one."""
    make_indexes(client, physical, spec, server)
    replicas = spec.index.get("replica_number", 1)
    call(client, "load_collection", physical, timeout=LOAD_SECONDS, replica_number=replicas, _async=not waits)


def await_indexes(client: Any, physical: str) -> None:
    """Wait until what was flushed is in all indexes that find the nearest rows."""
    deadline = time.monotonic() + INDEX_SECONDS
    for name in call(client, "list_indexes", physical):
        while (index := call(client, "describe_index", physical, index_name=name)) is not None:
            if "metric_type" not in index:  # filters are answered without theirs, only slower
                break
            if index.get("state") == "Failed":
                raise StoreError(f"Milvus could not index {name} of {physical!r}; look into its log")
            if index.get("state") == "Finished" and not int(index.get("pending_index_rows", 0)):
                break
            if time.monotonic() > deadline:
                raise StoreError(
                    f"Milvus is still indexing {name} of {physical!r} after {INDEX_SECONDS:.0f} s; "
                    "it continues by itself and can be searched meanwhile"
                )
            time.sleep(POLL_SECONDS)
