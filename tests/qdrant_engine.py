"""The collections of the façade in `qdrant_facade`: Qdrant's requests, answered by the real engine, Qdrant Edge."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as edge


class Refused(Exception):
    """An HTTP status and what is wrong."""


# Bits of TurboQuant's codes → the first release that has them.
TURBO = {**dict.fromkeys(("bits4", "bits2", "bits1_5", "bits1"), "1.18"), "bits8": "1.20"}


class Collections:
    """The collections of one server: shards, and beside them in state.json what a shard does not know."""

    def __init__(self, folder: Path, version: str, refuses: Callable[[str], bool]) -> None:
        """`refuses`: whether a text is to be refused."""
        self.folder, self.version, self.refuses = folder, version, refuses
        self.state: dict[str, dict[str, Any]] = {}
        self.aliases: dict[str, str] = {}
        self.yellow: Counter[str] = Counter()
        if (folder / "state.json").exists():
            saved = json.loads((folder / "state.json").read_text())
            self.state, self.aliases = saved["state"], saved["aliases"]
        self.shards = {name: edge.EdgeShard.load(str(folder / name)) for name in self.state}

    def close(self) -> None:
        for shard in self.shards.values():
            shard.close()

    def save(self) -> bool:
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "state.new").write_text(json.dumps({"state": self.state, "aliases": self.aliases}))
        os.replace(self.folder / "state.new", self.folder / "state.json")
        return True

    def answer(self, method: str, path: str, body: dict[str, Any]) -> Any:
        """Return the `result` of one request."""
        fixed = {
            "GET /": lambda: None,
            "GET /aliases": lambda: {
                "aliases": [{"alias_name": one, "collection_name": other} for one, other in self.aliases.items()]
            },
            "POST /collections/aliases": lambda: self.change_aliases(body),
            "GET /collections": lambda: {"collections": [{"name": name} for name in self.state]},
        }
        if f"{method} {path}" in fixed:
            return fixed[f"{method} {path}"]()
        match = re.fullmatch(r"/collections/([^/]+)(/.*)?", path)
        if match is None:
            raise Refused(404, path)
        asked, rest = match[1], (match[2] or "").strip("/").replace("/", "_")
        if (method, rest) == ("PUT", ""):
            return self.create(asked, body)
        if (method, rest) == ("DELETE", ""):
            return self.drop(asked)
        name = self.aliases.get(asked, asked)
        if rest == "exists":
            return {"exists": name in self.state}
        if name not in self.state:
            raise Refused(404, f"Not found: Collection `{asked}` doesn't exist!")
        known = {
            ("GET", ""): self.describe,
            ("PATCH", ""): self.change,
            ("PUT", "index"): self.index,
            ("PUT", "points"): self.upsert,
            ("POST", "points"): self.retrieve,
            ("POST", "points_batch"): self.batch,
            ("POST", "points_delete"): self.delete,
            ("POST", "points_scroll"): self.scroll,
            ("POST", "points_count"): self.count,
            ("POST", "points_query_batch"): self.query,
        }
        if (method, rest) not in known:
            raise Refused(404, f"{method} {path}")
        return known[method, rest](name, body)

    # ---- collections

    def create(self, name: str, body: dict[str, Any]) -> bool:
        if name in self.state:
            raise Refused(409, f"Wrong input: Collection `{name}` already exists!")
        if name in self.aliases:
            raise Refused(400, f"Wrong input: Alias with the same name `{name}` already exists")
        _only(body, "vectors", "sparse_vectors", "metadata")
        sparse = {}
        for key, params in (body.get("sparse_vectors") or {}).items():
            _only(params, "modifier")
            sparse[key] = edge.EdgeSparseVectorParams(modifier={"idf": edge.Modifier.Idf}[params["modifier"]])
        config = edge.EdgeConfig(vectors=self.vector_params(body["vectors"]), sparse_vectors=sparse or None)
        (self.folder / name).mkdir(parents=True)
        self.shards[name] = edge.EdgeShard.create(str(self.folder / name), config)
        self.state[name] = {"metadata": body.get("metadata") or {}, "indexed": {}, "indexing_threshold": 20_000}
        return self.save()

    def vector_params(self, params: dict[str, Any]) -> edge.EdgeVectorParams:
        _only(params, "size", "distance", "datatype", "quantization_config", "on_disk", "hnsw_config")
        assert params["distance"] == "Cosine"
        quantization, graph = params.get("quantization_config"), params.get("hnsw_config") or {}
        _only(graph, "m", "ef_construct")
        datatype = params.get("datatype") or "float32"
        bits = (quantization or {}).get("turbo", {}).get("bits")
        since = max({"turbo4": "1.19", "turbo8": "1.20", "turbo16": "1.20"}.get(datatype, ""), TURBO.get(bits, ""))
        if self.version < since:
            raise Refused(400, "Format error in JSON body: data did not match any variant")
        return edge.EdgeVectorParams(
            size=params["size"],
            distance=edge.Distance.Cosine,
            datatype=getattr(edge.VectorStorageDatatype, datatype.capitalize()),
            quantization_config=_quantization(quantization),
            on_disk=params.get("on_disk"),
            hnsw_config=edge.HnswIndexConfig(graph.get("m") or 16, graph.get("ef_construct") or 100, 10_000),
        )

    def describe(self, name: str, _: dict[str, Any]) -> dict[str, Any]:
        status = "yellow" if self.yellow[name] > 0 else "green"
        self.yellow[name] -= 1
        state, info = self.state[name], self.shards[name].info()
        return {
            "status": state.get("status", status),
            "optimizer_status": "ok",
            "segments_count": info.segments_count,
            "points_count": info.points_count,
            "indexed_vectors_count": info.indexed_vectors_count,
            "payload_schema": {key: {"data_type": "keyword", "points": 0} for key in state["indexed"]},
            "config": {
                "params": {},
                "hnsw_config": {"m": 16, "ef_construct": 100, "full_scan_threshold": 10_000},
                "optimizer_config": {
                    "default_segment_number": 0,
                    "flush_interval_sec": 5,
                    "indexing_threshold": state["indexing_threshold"],
                },
                "metadata": state["metadata"],
            },
        }

    def change(self, name: str, body: dict[str, Any]) -> bool:
        _only(body, "metadata", "optimizers_config")
        for key, value in (body.get("metadata") or {}).items():
            self.state[name]["metadata"][key] = value
            if value is None:
                del self.state[name]["metadata"][key]
        optimizers = body.get("optimizers_config")
        if optimizers is not None:
            _only(optimizers, "indexing_threshold")
            self.state[name].pop("status", None)  # any change wakes a grey collection
            threshold = self.state[name]["indexing_threshold"] = optimizers.get(
                "indexing_threshold", self.state[name]["indexing_threshold"]
            )
            if threshold:
                self.shards[name].optimize()
                self.yellow[name] = 2
        return self.save()

    def drop(self, name: str) -> bool:
        if name not in self.state:
            return False
        self.aliases = {alias: other for alias, other in self.aliases.items() if other != name}
        del self.state[name]
        self.save()
        self.shards.pop(name).close()
        shutil.rmtree(self.folder / name)
        return True

    def change_aliases(self, body: dict[str, Any]) -> bool:
        aliases = dict(self.aliases)
        for action in body["actions"]:
            _only(action, "delete_alias", "create_alias")
            if "delete_alias" in action:
                aliases.pop(action["delete_alias"]["alias_name"], None)
                continue
            new, target = action["create_alias"]["alias_name"], action["create_alias"]["collection_name"]
            if target not in self.state:
                raise Refused(404, f"Not found: Collection `{target}` doesn't exist!")
            if new in self.state:
                raise Refused(409, f"Wrong input: Collection `{new}` already exists!")
            aliases[new] = target
        self.aliases = aliases
        return self.save()

    def index(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        schema, key = body["field_schema"], body["field_name"]
        kind = schema if isinstance(schema, str) else schema["type"]
        self.state[name]["indexed"][key] = schema
        self.save()
        made = {
            "integer": edge.IntegerIndexParams,
            "float": edge.FloatIndexParams,
            "bool": edge.BoolIndexParams,
            "datetime": edge.DatetimeIndexParams,
        }
        params = made[kind]() if kind != "keyword" else edge.KeywordIndexParams(is_tenant=schema.get("is_tenant"))
        return self.update(name, edge.UpdateOperation.create_field_index(key, params))

    # ---- points

    def upsert(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        if any(self.refuses(point["payload"].get("page_content", "")) for point in body["points"]):
            raise Refused(400, "Wrong input: a point is poisoned")
        points = [edge.Point(point["id"], _vector(point["vector"]), point["payload"]) for point in body["points"]]
        return self.update(name, edge.UpdateOperation.upsert_points(points))

    def batch(self, name: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        return [self.update(name, _operation(*one)) for operation in body["operations"] for one in operation.items()]

    def delete(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        return self.update(name, edge.UpdateOperation.delete_points(body["points"]))

    def update(self, name: str, operation: edge.UpdateOperation) -> dict[str, Any]:
        try:
            self.shards[name].update(operation)
        except Exception as error:
            raise Refused(400, f"Wrong input: {error}") from error
        return {"operation_id": 0, "status": "completed"}

    def retrieve(self, name: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        found = self.shards[name].retrieve(body["ids"], body["with_payload"], body["with_vector"])
        return [_record(record) for record in found]

    def scroll(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        request = edge.ScrollRequest(
            offset=body.get("offset"),
            limit=body["limit"],
            filter=_filter(body.get("filter")),
            with_payload=body["with_payload"],
            with_vector=body.get("with_vector"),
        )
        records, offset = self.shards[name].scroll(request)
        return {"points": [_record(record) for record in records], "next_page_offset": _id(offset)}

    def count(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        request = edge.CountRequest(exact=body["exact"], filter=_filter(body.get("filter")))
        return {"count": self.shards[name].count(request)}

    def query(self, name: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        try:
            found = self.shards[name].query_batch(edge.QueryBatchRequest([_query(one) for one in body["searches"]]))
        except Exception as error:
            raise Refused(400, f"Wrong input: {error}") from error
        return [
            {"points": [{**_record(point), "version": 0, "score": point.score} for point in points]} for points in found
        ]


def _only(given: dict[str, Any], *known: str) -> None:
    unknown = {key for key, value in given.items() if value is not None} - {*known}
    if unknown:
        raise Refused(422, f"the façade does not know {unknown}")


def _quantization(asked: dict[str, dict[str, Any]] | None) -> Any:
    if asked is None:
        return None
    [(kind, params)] = asked.items()
    always_ram = params["always_ram"]
    if kind == "scalar":
        return edge.ScalarQuantizationConfig(edge.ScalarType.Int8, always_ram=always_ram)
    if kind == "product":
        return edge.ProductQuantizationConfig({"x16": edge.CompressionRatio.X16}[params["compression"]], always_ram)
    if kind == "binary":
        queries = {"scalar8bits": edge.BinaryQuantizationQueryEncoding.Scalar8Bits}[params["query_encoding"]]
        encoding = getattr(edge.BinaryQuantizationEncoding, params["encoding"].title().replace("_", ""))
        return edge.BinaryQuantizationConfig(always_ram=always_ram, encoding=encoding, query_encoding=queries)
    bits = getattr(edge.TurboQuantBitSize, params["bits"].capitalize())
    return edge.TurboQuantQuantizationConfig(bits=bits, always_ram=always_ram)


def _vector(asked: Any) -> Any:
    if isinstance(asked, list):
        return asked
    if "indices" in asked:
        return edge.SparseVector(asked["indices"], asked["values"])
    return {name: _vector(one) for name, one in asked.items()}


def _query(asked: dict[str, Any]) -> edge.QueryRequest:
    query = asked["query"]
    nearest = edge.Query.Nearest(
        _vector(query.get("nearest", query) if isinstance(query, dict) else query), **_using(asked)
    )
    params = asked.get("params") or {}
    _only(params, "quantization")
    codes = params.get("quantization")
    return edge.QueryRequest(
        query=nearest,
        limit=asked["limit"],
        filter=_filter(asked.get("filter")),
        with_payload=True,
        params=edge.SearchParams(quantization=edge.QuantizationSearchParams(**codes)) if codes else None,
    )


def _using(asked: dict[str, Any]) -> dict[str, str]:
    return {"using": asked["using"]} if asked.get("using") else {}


def _id(id: Any) -> Any:
    return id if id is None or isinstance(id, int) else str(id)


def _record(record: Any) -> dict[str, Any]:
    vector = record.vector
    if isinstance(vector, dict):
        vector = {name: _plain(one) for name, one in vector.items()}
    return {"id": _id(record.id), "payload": record.payload, "vector": vector}


def _plain(vector: Any) -> Any:
    return vector if isinstance(vector, list) else {"indices": vector.indices, "values": vector.values}


def _operation(kind: str, asked: dict[str, Any]) -> edge.UpdateOperation:
    update = edge.UpdateOperation
    if kind == "set_payload":
        _only(asked, "payload", "points", "key")
        return update.set_payload(asked["points"], asked["payload"], asked.get("key"))
    if kind == "delete_payload":
        _only(asked, "keys", "points")
        return update.delete_payload(asked["points"], asked["keys"])
    assert kind == "update_vectors"
    points = asked["update_vectors" if "update_vectors" in asked else "points"]
    return update.update_vectors([edge.PointVectors(one["id"], _vector(one["vector"])) for one in points])


def _filter(asked: dict[str, Any] | None) -> edge.Filter | None:
    if asked is None:
        return None
    _only(asked, "must", "should", "must_not")
    parts = {name: [_condition(one) for one in some] for name, some in asked.items() if some is not None}
    return edge.Filter(**parts)


def _condition(asked: dict[str, Any]) -> Any:
    if "has_id" in asked:
        return edge.HasIdCondition(set(asked["has_id"]))
    if "key" not in asked:
        return _filter(asked)
    _only(asked, "key", "match", "range", "is_empty")
    options: dict[str, Any] = {}
    if (match := asked.get("match")) is not None:
        value = match.get("value")
        plain = np.bool_(value) if isinstance(value, bool) else value
        options["match"] = edge.MatchAny(match["any"]) if "any" in match else edge.MatchValue(plain)
    if (bounds := asked.get("range")) is not None:
        moments = any(isinstance(bound, str) for bound in bounds.values())
        options["range"] = (edge.RangeDateTime if moments else edge.RangeFloat)(**bounds)
    return edge.FieldCondition(asked["key"], is_empty=asked.get("is_empty"), **options)
