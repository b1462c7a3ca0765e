from __future__ import annotations

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2llm_integrations.code.chunking import chunk_source
from c2llm_integrations.code.source_file import SourceFile, decode, source_of

CHINESE = "# 计算订单的运费按重量和地区\ndef fee(order):\n    # 如果没有找到则返回空\n    return None\n"
RUSSIAN = "# проверка подписи документа\ndef verify(doc):\n    # вернуть список\n    return doc.ok\n"


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("", "utf-8"),
        ("größe = 1\r\n", "utf-8"),
        ("\ufeffx = 1\n", "utf-8"),
        ("größe\n", "cp1252"),
        ("# José\n", "cp1252"),
        ("# 25 °C ± 3 µm\n", "cp1252"),
        ("\ufeffx = 'é'\r\n", "utf-16-le"),
        ("\ufeffx = 'é'\n", "utf-16-be"),
        ("x = 1\n", "utf-16-le"),
        (CHINESE, "utf-16-be"),
        (CHINESE, "gbk"),
        (CHINESE, "gb18030"),
        (RUSSIAN, "koi8-r"),
        (RUSSIAN, "cp1251"),
        ("# 計算訂單的運費依重量和地區\n", "big5"),
        ("# 数値を返す関数、見つからない場合\n", "shift-jis"),
        ("# 設定ファイルを読み込む\n", "euc-jp"),
        ("# 設定ファイルを読み込む\n", "iso2022_jp"),
        ("# 주문의 배송비를 무게와 지역으로 계산한다\n", "euc-kr"),
        ("# Sprawdź podpis dokumentu, zanim wyślesz żądanie\n", "cp1250"),
        ("# έλεγχος υπογραφής του εγγράφου\n", "cp1253"),
    ],
)
def test_text_in_any_encoding_is_read(text: str, encoding: str) -> None:
    found = decode(text.encode(encoding))
    assert found is not None
    assert found[0] == text


@pytest.mark.parametrize("encoding", ["utf-8", "gbk", "koi8-r"])
@pytest.mark.parametrize("damage", [b"# Jos\xe9\n", b"# \xe8\xae\n", b"# \xff\n", b"\n# \xc3"])
def test_only_a_damaged_byte_is_replaced(encoding: str, damage: bytes) -> None:
    text = RUSSIAN if encoding == "koi8-r" else CHINESE
    found = decode(text.encode(encoding) + damage)
    assert found is not None
    assert found[0].startswith(text)


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        ("# -*- coding: gbk -*-\n# 订单\n", "gbk"),
        ("#!/usr/bin/ruby\n# encoding: Windows-1251\n# Да\n", "cp1251"),
        ("# vim: set fileencoding=euc-jp :\n# 日本の文\n", "euc-jp"),
        ("<meta charset=ISO-8859-1><p>„Größe“ … 5 €</p>\n", "cp1252"),
        ("<?xml version='1.0' encoding='ISO-8859-2'?>\n<a>Łódź</a>\n", "iso8859-2"),
        ('<html><meta charset="koi8-r"><p>Да</p>\n', "koi8-r"),
        ("/* -*- coding: cp850 -*- */ // Prüfung der Größe\n", "cp850"),
    ],
)
def test_a_file_may_say_how_it_is_encoded(text: str, encoding: str) -> None:
    found = decode(text.encode(encoding) + b"# cut: \xff\n" * (encoding == "gbk"))
    assert found is not None
    assert found[0].startswith(text)


@pytest.mark.parametrize("said", ["unicode_escape", "rot13", "zlib", "utf-7", "idna", "punycode", "nonsense", "utf-16"])
def test_only_the_name_of_a_national_encoding_is_believed(said: str) -> None:
    assert decode(f"# coding: {said}\n# José \\x41 +AEE-\n".encode("latin-1")) == (
        f"# coding: {said}\n# José \\x41 +AEE-\n",
        "cp1252",
    )


@pytest.mark.parametrize(
    "data",
    [
        b"\x7fELF\0\0",
        b"x" * 20_000 + b"\0",
        b"\xff\xfe\0\0x\0\0\0",  # UTF-32, whose mark begins like that of UTF-16
        b"def f():\n    return '\0'\n",  # of an even length, as UTF-16 has
        "# 计算订单的总金额返回给客户\n# 遍历所有的订单行\nx = '\0'\n".encode("gbk"),
        "# Größe\nx = '\0\0'\n".encode(),
        b"\xff\xfex",  # half a character
        b"\xff\xfe\x00\xd8",  # half a surrogate pair
        b"\x1f\x8b\x08\x01\x02\x03\xff\xc0",
        b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
    ],
)
def test_binary_data_is_not_text(data: bytes) -> None:
    assert decode(data) is None


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "mac_roman"])
def test_lines_of_old_macs_are_lines(encoding: str) -> None:
    text = "def größe(x):\r    return x\r\r\r" * 300
    source = source_of("a.py", text.encode(encoding))
    assert isinstance(source, SourceFile)
    assert [(chunk.start_line, chunk.end_line) for chunk in chunk_source("r", "a.py", source.text)][-1][1] == 1_200
    mixed = source_of("a.py", b"a = 1\rb = 2\r\nc = 3\n")
    assert isinstance(mixed, SourceFile)
    assert mixed.text == "a = 1\rb = 2\r\nc = 3\n"


def test_random_bytes_are_not_text() -> None:
    assert decode(os.urandom(5_000).replace(b"\0", b"\1")) is None


@given(st.binary() | st.text().map(str.encode) | st.text().map(lambda text: ("\ufeff" + text).encode("utf-16-be")))
def test_any_bytes_are_text_or_binary(data: bytes) -> None:
    found = decode(data)
    if found is None:
        assert b"\0" in data or data[:2] in (b"\xff\xfe", b"\xfe\xff") or any(byte < 32 or byte == 127 for byte in data)
    else:
        assert "\0" not in found[0]
        found[0].encode()
