"""Find private keys: framed as PEM, OpenPGP, PuTTY or SSH frame them, their bare Base64, JSON Web Keys, and wallets."""

from __future__ import annotations

import re
from collections.abc import Iterator

from c2llm_integrations.code.secrets.values import is_filler, is_random

# A private key: its frame, and 40 characters of it after what string literals, comments and escapes put between.
_FRAME = r"-----BEGIN [A-Z0-9 ]{0,40}PRIVATE KEY(?: BLOCK)?-----"
# The same of PuTTY, whose number of lines alone says that a key follows, and of commercial SSH.
_OTHER_KEY = re.compile(r"^(?:Private-Lines: \d|---- BEGIN SSH2 ENCRYPTED PRIVATE KEY ----$)", re.MULTILINE)
# Each text can be read in one way only, or a few lines that are no key would take for ever: a header begins with a
# letter, which is never between, and ends with its line, or with its word where all stand on one line.
_BETWEEN = r"(?:[\s\"'`+.,;#*/>|&()-]|\\(?:[rn]|(?![rn])))"
_HEADER = r"[A-Za-z][\w-]{0,39}: "
_FRAMED_KEY = re.compile(
    rf"\A\s*{_FRAME}"
    rf"|{_FRAME}{_BETWEEN}{{1,80}}(?:(?:{_HEADER}[^\n\\]{{0,200}}(?=[\n\\]){_BETWEEN}{{1,80}}){{0,9}}"
    rf"|(?:{_HEADER}\S{{1,200}} {{1,9}}){{1,9}})[A-Za-z0-9+/=]{{40}}"
)
# Without a frame, how its Base64 begins: DER (PKCS #1 and #8, elliptic curves), OpenSSH, a whole PEM file.
_BARE_KEY = re.compile(
    r"(?:MI(?:[A-Za-z0-9+/]{3,6}(?:IBA(?:DANBgkqhkiG9w0BAQEF|AKC|AKB)|AgEAAoI|BgkqhkiG9w0BBQ)|[GH][A-Za-z0-9]AgEAMB[AM]GByqGSM49"
    r"|GkAgEBB|HcAgEBB)|MHcCAQEEI|MC4CAQAwBQYDK2V|b3BlbnNzaC1rZXktdjE"
    r"|LS0tLS1CRUdJTiB(?:QUklW|SU0EgUFJ|FQyBQUk|PUEVO|FTkNS|EU0EgUFJ))[A-Za-z0-9+/=]{20}"
)
# The private numbers of a JSON Web Key, and a symmetric one.
_WEB_KEY = re.compile(r"[\"'](?:d|p|q|dp|dq|qi|k)[\"']\s{0,3}:\s{0,3}[\"']([\w-]{22,2000})[\"']")
# What PHP signs with, which may have blanks and any sign: define('AUTH_KEY', '…').
_SALT = re.compile(
    r"define\(\s{0,9}[\"']\w{0,40}(?:KEY|SALT|SECRET)[\"']\s{0,9},\s{0,40}([\"'])([^\n'\"]{32,128})\1\s?\)"
)
# The private keys of a wallet's accounts, in a list or each under its name.
_ACCOUNTS = re.compile(r"[aA]ccounts\w{0,20}[\"']?\s{0,3}(?::|:?=)\s{0,3}(?:\[\]\w{1,20})?[\[{(]([^\])}]{60,20000})")
_WALLET_KEY = re.compile(r"(?<![0-9a-fA-F])((?:0x)?[0-9a-fA-F]{64})(?![0-9a-fA-F])")
# The words of a wallet, of which 12 to 24 are all that it takes: mnemonic = "…", Seed phrase: ….
_MNEMONIC = re.compile(r"\w{0,20}[\s\"'`:=>,(\[]{1,12}((?:[a-z]{3,8}[ ,\"']{1,4}){11,23}[a-z]{3,8})\b", re.I)
# What stands before them, and how it ends, which is quick to look for.
_BEFORE_MNEMONIC = re.compile(r"(?:mnemonic|(?:seed|recovery|secret)[\s_-]?(?:phrase|words))$", re.I)
_ENDS = tuple(map(re.compile, ("nemonic", "NEMONIC", "hrase", "HRASE", "ords", "ORDS")))


def has_private_key(text: str) -> bool:
    """Return whether a text holds a private key, framed or bare."""
    is_framed = "PRIVATE KEY" in text and _FRAMED_KEY.search(text) is not None
    is_other = "PuTTY-User-Key-File" in text or "---- BEGIN SSH2" in text
    return is_framed or _BARE_KEY.search(text) is not None or (is_other and _OTHER_KEY.search(text) is not None)


def find_web_keys(text: str) -> Iterator[tuple[int, int]]:
    """Yield where each private number of a JSON Web Key, and each key that PHP signs with, begins and ends."""
    if '"kty"' in text:
        yield from (match.span(1) for match in _WEB_KEY.finditer(text) if is_random(match[1]))
    salts = _SALT.finditer(text) if "define(" in text else ()
    yield from (match.span(2) for match in salts if len(set(match[2])) > 16 and not is_filler(match[2]))


def find_wallet_keys(text: str) -> Iterator[tuple[int, int]]:
    """Yield where each private key of a wallet begins and ends: 64 hexadecimal digits among accounts, or its words."""
    if "ccounts" in text:
        for accounts in _ACCOUNTS.finditer(text):
            yield from (match.span(1) for match in _WALLET_KEY.finditer(text, *accounts.span(1)))
    for end in _ENDS:
        for name in end.finditer(text) if end.pattern in text else ():
            is_named = _BEFORE_MNEMONIC.search(text, max(0, name.end() - 16), name.end())
            if is_named and (match := _MNEMONIC.match(text, name.end())) and _is_mnemonic(match[1]):
                yield match.span(1)


def _is_mnemonic(phrase: str) -> bool:
    """Return whether the words of a phrase differ, unlike those of a sample."""
    words = re.findall("[a-z]+", phrase.lower())
    return len(words) in (12, 15, 18, 21, 24) and len(set(words)) > 0.8 * len(words)
