from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2llm_integrations.code.decoding import decode


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        (b"", "utf-8"),
        ("größe = 1\r\n".encode(), "utf-8"),
        ("\ufeffx = 1\n".encode(), "utf-8"),
        ("größe\n".encode("cp1252"), "cp1252"),
        (b"caf\xe9 \x81\n", "latin-1"),
        ("\ufeffx = 'é'\r\n".encode("utf-16-le"), "utf-16-le"),
        ("\ufeffx = 'é'\n".encode("utf-16-be"), "utf-16-be"),
        ("数値を返す関数".encode("shift-jis"), "latin-1"),
        ("返回数值的函数".encode("gb18030"), "latin-1"),
    ],
)
def test_text_comes_back_byte_for_byte(data: bytes, encoding: str) -> None:
    found = decode(data)
    assert found is not None
    text, used = found
    assert used in (encoding, "cp1252")
    assert text.encode(used) == data


@pytest.mark.parametrize(
    "data",
    [
        b"\x7fELF\0\0",
        b"x" * 20_000 + b"\0",
        b"\xff\xfe\0\0x\0\0\0",  # UTF-32, whose mark begins like that of UTF-16
        b"\xff\xfex",  # half a character
        b"\xff\xfe\x00\xd8",  # half a surrogate pair
        b"\x1f\x8b\x08\x01\x02\x03\xff\xc0",
    ],
)
def test_binary_data_is_not_text(data: bytes) -> None:
    assert decode(data) is None


def test_random_bytes_are_not_text() -> None:
    assert decode(os.urandom(5_000).replace(b"\0", b"\1")) is None


@given(st.binary() | st.text().map(str.encode) | st.text().map(lambda text: ("\ufeff" + text).encode("utf-16-be")))
def test_whatever_is_decoded_encodes_back(data: bytes) -> None:
    found = decode(data)
    if found is None:
        assert b"\0" in data or data[:2] in (b"\xff\xfe", b"\xfe\xff") or any(byte < 32 or byte == 127 for byte in data)
    else:
        assert found[0].encode(found[1]) == data
        assert "\0" not in found[0]
