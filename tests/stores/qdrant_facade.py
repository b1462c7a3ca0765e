"""Qdrant's REST interface, as far as our store uses it, over the real engine: Qdrant Edge, one shard a collection.

It checks the API key, and refuses bodies over the server's 32 MiB.
"""

from __future__ import annotations

import json
import re
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import qdrant_edge as edge

MAX_BODY = 32 * 2**20


class Refused(Exception):
    """An HTTP status and what is wrong."""


class Collections:
    """The collections of one server: shards, their metadata and indexed fields."""

    def __init__(self, folder: Path, version: str) -> None:
        self.folder, self.version = folder, version
        self.shards: dict[str, edge.EdgeShard] = {}
        self.metadata: dict[str, dict[str, Any]] = {}
        self.indexed: dict[str, list[str]] = {}

    def answer(self, method: str, path: str, body: dict[str, Any]) -> Any:
        """Return the `result` of one request."""
        if path == "/":
            return None
        match = re.fullmatch(r"/collections/([^/]+)(/.*)?", path)
        if match is None:
            raise Refused(404, path)
        name, rest = match[1], (match[2] or "").strip("/").replace("/", "_")
        if rest == "exists":
            return {"exists": name in self.shards}
        if (method, rest) == ("PUT", ""):
            return self.create(name, body)
        if name not in self.shards:
            raise Refused(404, f"Not found: Collection `{name}` doesn't exist!")
        known = {
            ("GET", ""): self.describe,
            ("PATCH", ""): self.change,
            ("DELETE", ""): self.drop,
            ("PUT", "index"): self.index,
            ("PUT", "points"): self.upsert,
            ("POST", "points"): self.retrieve,
            ("POST", "points_batch"): self.batch,
            ("POST", "points_delete"): self.delete,
            ("POST", "points_scroll"): self.scroll,
            ("POST", "points_count"): self.count,
            ("POST", "points_query"): self.query,
        }
        if (method, rest) not in known:
            raise Refused(404, f"{method} {path}")
        return known[method, rest](name, body)

    def create(self, name: str, body: dict[str, Any]) -> bool:
        if name in self.shards:
            raise Refused(409, f"Wrong input: Collection `{name}` already exists!")
        assert body["vectors"]["distance"] == "Cosine"
        params = edge.EdgeVectorParams(size=body["vectors"]["size"], distance=edge.Distance.Cosine)
        (self.folder / name).mkdir(parents=True)
        self.shards[name] = edge.EdgeShard.create(str(self.folder / name), edge.EdgeConfig(vectors=params))
        self.metadata[name], self.indexed[name] = body.get("metadata") or {}, []
        return True

    def describe(self, name: str, _: dict[str, Any]) -> dict[str, Any]:
        return {
            "status": "green",
            "optimizer_status": "ok",
            "segments_count": 1,
            "payload_schema": {key: {"data_type": "keyword", "points": 0} for key in self.indexed[name]},
            "config": {
                "params": {},
                "hnsw_config": {"m": 16, "ef_construct": 100, "full_scan_threshold": 10_000},
                "optimizer_config": {"default_segment_number": 0, "flush_interval_sec": 5},
                "metadata": self.metadata[name],
            },
        }

    def change(self, name: str, body: dict[str, Any]) -> bool:
        self.metadata[name].update(body["metadata"])
        return True

    def drop(self, name: str, _: dict[str, Any]) -> bool:
        self.shards.pop(name).close()
        shutil.rmtree(self.folder / name)
        return True

    def index(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        assert body["field_schema"] == "keyword"
        self.indexed[name].append(body["field_name"])
        return self.update(
            name, edge.UpdateOperation.create_field_index(body["field_name"], edge.PayloadSchemaType.Keyword)
        )

    def upsert(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        points = [edge.Point(point["id"], point["vector"], point["payload"]) for point in body["points"]]
        return self.update(name, edge.UpdateOperation.upsert_points(points))

    def batch(self, name: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        asked = [operation["overwrite_payload"] for operation in body["operations"]]
        return [
            self.update(name, edge.UpdateOperation.overwrite_payload(one["points"], one["payload"])) for one in asked
        ]

    def delete(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        return self.update(name, edge.UpdateOperation.delete_points(body["points"]))

    def update(self, name: str, operation: edge.UpdateOperation) -> dict[str, Any]:
        self.shards[name].update(operation)
        return {"operation_id": 0, "status": "completed"}

    def retrieve(self, name: str, body: dict[str, Any]) -> list[dict[str, Any]]:
        found = self.shards[name].retrieve(body["ids"], body["with_payload"], body["with_vector"])
        return [_record(record) for record in found]

    def scroll(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        request = edge.ScrollRequest(
            offset=body.get("offset"),
            limit=body["limit"],
            filter=_filter(body["filter"]),
            with_payload=body["with_payload"],
            with_vector=False,
        )
        records, offset = self.shards[name].scroll(request)
        return {
            "points": [_record(record) for record in records],
            "next_page_offset": None if offset is None else str(offset),
        }

    def count(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        request = edge.CountRequest(exact=body["exact"], filter=_filter(body["filter"]))
        return {"count": self.shards[name].count(request)}

    def query(self, name: str, body: dict[str, Any]) -> dict[str, Any]:
        nearest = edge.Query.Nearest(body["query"]["nearest"] if isinstance(body["query"], dict) else body["query"])
        request = edge.QueryRequest(
            query=nearest, limit=body["limit"], filter=_filter(body["filter"]), with_payload=True
        )
        points = self.shards[name].query(request)
        return {"points": [{**_record(point), "version": 0, "score": point.score} for point in points]}


def _record(record: Any) -> dict[str, Any]:
    return {"id": str(record.id), "payload": record.payload, "vector": record.vector}


def _filter(asked: dict[str, Any]) -> edge.Filter:
    must = [
        edge.FieldCondition(condition["key"], match=edge.MatchAny(condition["match"]["any"]))
        for condition in asked.get("must") or []
    ]
    must_not = [edge.IsEmptyCondition(condition["is_empty"]["key"]) for condition in asked.get("must_not") or []]
    return edge.Filter(must=must, must_not=must_not)


@contextmanager
def serve(folder: Path, key: str | None = None, version: str = "1.16.0") -> Iterator[str]:
    """Yield the http:// address of a server that keeps its shards under `folder`."""
    collections, lock = Collections(folder, version), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do(self) -> None:
            size = int(self.headers.get("Content-Length") or 0)
            raw = self.rfile.read(size)
            try:
                if key is not None and self.headers.get("api-key") != key:
                    raise Refused(401, "Must provide an API key or an Authorization bearer token")
                if size > MAX_BODY:
                    raise Refused(413, f"JSON payload ({size} bytes) is larger than allowed (limit: {MAX_BODY} bytes)")
                with lock:
                    result = collections.answer(self.command, self.path.partition("?")[0], json.loads(raw or b"{}"))
                status, answer = 200, {"result": result, "status": "ok", "time": 0.0}
                if self.path == "/":
                    answer = {"title": "qdrant", "version": collections.version}
            except Refused as refused:
                status, answer = refused.args[0], {"status": {"error": refused.args[1]}, "time": 0.0}
            body = json.dumps(answer).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = do_POST = do_PATCH = do_DELETE = do

        def log_message(self, *_: Any) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        for shard in collections.shards.values():
            shard.close()
