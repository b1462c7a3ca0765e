"""Whatever a client writes on a line with an id is answered under that id."""

import io
import json

import pytest

pytest.importorskip("mcp.server.mcpserver", reason="the extra mcp is not installed")

from c2llm_integrations.server.mcp_lines import INVALID_REQUEST, PARSE_ERROR, _Lines, readable


def request(arguments, key="7"):
    return b'{"jsonrpc":"2.0","id":%s,"method":"tools/call","params":{"arguments":%s}}' % (key.encode(), arguments)


@pytest.mark.parametrize(
    ("sent", "read"),
    [
        (rb'{"query":"cart \ud83d"}', {"query": "cart \ufffd"}),
        (rb'{"query":"\ude00 cart"}', {"query": "\ufffd cart"}),
        (rb'{"code":"\ude00\ud83d"}', {"code": "\ufffd\ufffd"}),
        (rb'{"\ud800":["\udfff"]}', {"\ufffd": ["\ufffd"]}),
        (rb'{"query":"\ud83d\ude00"}', {"query": "\U0001f600"}),
        (b'{"query":"\xff"}', {"query": "\ufffd"}),
        (rb'{"query":"\u0000"}', {"query": "\0"}),
        (b'{"limit":%s}' % (b"9" * 5000), {"limit": float("inf")}),
    ],
)
def test_what_can_be_mended_is_read(sent, read):
    mended = readable(request(sent))
    assert isinstance(mended, bytes)
    assert json.loads(mended.decode("utf-8", "replace"), parse_int=float)["params"]["arguments"] == read


@pytest.mark.parametrize(
    ("line", "code", "key"),
    [
        (b"hello", PARSE_ERROR, None),
        (b"\0", PARSE_ERROR, None),
        (b'{"jsonrpc":"2.0","id":7,"method":"ping"', PARSE_ERROR, None),
        (b"{}", INVALID_REQUEST, None),
        (b"[]", INVALID_REQUEST, None),
        (b'{"id":7,"method":"ping"}', INVALID_REQUEST, 7),
        (b'{"jsonrpc":"2.0","id":"a","method":5}', INVALID_REQUEST, "a"),
        (b'{"jsonrpc":"2.0","id":7,"method":"ping","params":"x"}', INVALID_REQUEST, 7),
        (request(b"[" * 900 + b"]" * 900), INVALID_REQUEST, 7),
        (request(b"[" * 300_000 + b"]" * 300_000, '"a"'), INVALID_REQUEST, "a"),
        *((b'{"jsonrpc":"2.0","id":%s,"method":"ping"}' % key, INVALID_REQUEST, None) for key in (b"null", b"1.5")),
        *((b'{"jsonrpc":"2.0","id":%s,"method":"ping"}' % key, INVALID_REQUEST, None) for key in (b"true", b"{}")),
    ],
)
def test_what_cannot_be_read_is_answered(line, code, key):
    answer = readable(line)
    assert isinstance(answer, dict)
    assert (answer["error"]["code"], answer["id"]) == (code, key)


def test_a_notification_is_never_answered():
    assert readable(b'{"jsonrpc":"2.0","method":5}') is None
    said = b'{"jsonrpc":"2.0","method":"notifications/cancelled","params":{"id":1.5}}'
    assert readable(said) == said


LONG = b'"params":{"arguments":{"query":"%s"}}' % (b"a" * 5_000_000)


@pytest.mark.parametrize(
    ("long", "key"),
    [
        (b'{"jsonrpc":"2.0","id":7,"method":"tools/call",%s}' % LONG, 7),
        (b'{"method":"tools/call",%s,"jsonrpc":"2.0","id":"a"}' % LONG, "a"),
        (b'{"method":"tools/call",%s, "id": 8, "jsonrpc": "2.0"} \r' % LONG, 8),
        (b'{"method":"tools/call","id":7,%s}' % LONG.replace(b"}}", b'},"a":{"id":8}}'), None),
    ],
)
def test_a_line_longer_than_any_question_is_answered_and_the_next_is_read(long, key):
    said, next_line = io.BytesIO(), request(b"{}")
    assert io.BufferedReader(_Lines(io.BytesIO(long + b"\n" + next_line + b"\n"), said)).read() == next_line + b"\n"
    answer = json.loads(said.getvalue())
    assert (answer["id"], answer["error"]["message"]) == (key, "the line is longer than 4194304 bytes")
