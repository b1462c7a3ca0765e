from __future__ import annotations

import grpc
import pytest
from pymilvus.exceptions import DataNotMatchException, MilvusException

from c2llm_integrations.stores.milvus.errors import (
    is_missing,
    is_refusal,
    is_too_large,
    is_unloaded,
    pause_after,
    reason,
)


class Refused(grpc.RpcError):
    """An error of gRPC itself, with its own way to tell its code."""

    def __init__(self, code: grpc.StatusCode, details: str = "") -> None:
        super().__init__()
        self._code, self._details = code, details

    def code(self) -> grpc.StatusCode:
        return self._code

    def details(self) -> str:
        return self._details


TOO_LARGE = Refused(
    grpc.StatusCode.RESOURCE_EXHAUSTED, "grpc: received message larger than max (71556093 vs. 67108864)"
)
STACK = """attempt #0: stack trace: /build/pkg/tracer/stack_trace.go:51 Call
/build/services.go:116 Flush: attempt #0: rpc error: node not match[expectedNodeID=5]: attempt #5: node not found"""


@pytest.mark.parametrize(
    "error",
    [
        Refused(grpc.StatusCode.UNAVAILABLE),
        Refused(grpc.StatusCode.DEADLINE_EXCEEDED),
        MilvusException(grpc.StatusCode.UNAVAILABLE, "Retry timeout: 60s"),
        MilvusException(2, "Fail connecting to server"),
        MilvusException(1, "service not ready[standalone=Initializing]"),
        MilvusException(65535, STACK),
        MilvusException(103, "collection not fully loaded"),
    ],
)
def test_what_passes_is_tried_again(error: Exception) -> None:
    assert pause_after(error) == 0.0
    assert not is_refusal(error)


@pytest.mark.parametrize(
    "error",
    [
        Refused(grpc.StatusCode.UNAUTHENTICATED),
        TOO_LARGE,
        MilvusException(1, "collection 'code__1' already exists"),
        MilvusException(65535, "create duplicate collection with different parameters"),
        MilvusException(1100, "the length (80000) of 0th string exceeds max length (65535)"),
        DataNotMatchException(message="the field is not ready"),
        ValueError("not ready"),
    ],
)
def test_what_would_come_again_is_not(error: Exception) -> None:
    assert pause_after(error) is None


@pytest.mark.parametrize(
    ("error", "refused"),
    [
        (MilvusException(1100, "exceeds max length"), True),
        (MilvusException(6, "expected dim 8, got 7"), True),
        (DataNotMatchException(message="Insert missed an field `path`"), True),
        (TOO_LARGE, True),
        (MilvusException(65535, "anything"), False),
        (MilvusException(100, "collection not found"), False),
        (Refused(grpc.StatusCode.RESOURCE_EXHAUSTED, "quota"), False),
    ],
)
def test_a_write_is_refused_for_its_content_only(error: Exception, refused: bool) -> None:
    assert is_refusal(error) is refused


def test_collections_that_are_gone_released_or_too_large_to_send_are_told_apart() -> None:
    errors = [MilvusException(100, "x"), MilvusException(101, "x"), TOO_LARGE, KeyError("x")]
    assert [is_missing(error) for error in errors] == [True, False, False, False]
    assert [is_unloaded(error) for error in errors] == [False, True, False, False]
    assert [is_too_large(error) for error in errors] == [False, False, True, False]


def test_a_reason_is_one_line() -> None:
    assert reason(MilvusException(6, "unterminated string\n  at column 9")) == "unterminated string"
    assert reason(Refused(grpc.StatusCode.UNAVAILABLE, "connection refused")) == "connection refused"
    assert reason(MilvusException(65535, STACK)) == "node not found"
    assert reason(KeyError()) == "KeyError"
