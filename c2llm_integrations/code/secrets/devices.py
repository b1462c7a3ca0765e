"""Find what routers, switches and monitors log in with, as their configurations write it, and one-time passwords."""

from __future__ import annotations

import re
from collections.abc import Iterator

from c2llm_integrations.code.secrets.values import is_filler, is_set_password

_WORD = r"[^\s\"'`<>{}()\[\],;]"
_VALUE = rf"[\"']?({_WORD}{{4,128}})"
# After the number of how it is written: in clear, reversibly (7), hashed, or in Base64.
_WRITTEN = re.compile(
    r"\b(?:password|secret|key|key-string|pre-shared-key|community) {1,4}(?:level \d{1,2} {1,4})?"
    r"(?:[68] {1,4}(\$[^\s\"']{20,200})|6 {1,4}([A-i]{18,200})(?!\S)"
    r"|9 {1,4}(\$9\$[^\s\"']{20,200})|7 {1,4}[\"']?([0-9A-Fa-f]{8,130})(?![\w.])"
    rf"|4 {{1,4}}([A-Za-z0-9./]{{43}})(?!\w)|0 {{1,4}}{_VALUE})"
)
# After what a command logs in to; Juniper's own form, which is reversible; community strings.
_COMMAND = re.compile(
    r"^[ \t]{0,8}(?:"
    rf"(?:enable|username[ \t]{_WORD}{{1,64}}(?:[ \t](?:privilege|role)[ \t]\S{{1,32}}){{0,2}}|neighbor[ \t]\S{{1,64}}"
    r"|ppp[ \t]chap|ppp[ \t]pap[ \t]sent-username[ \t]\S{1,64})[ \t]{1,4}(?:password|secret)[ \t]{1,4}"
    r"|(?:tacacs|radius)-server[ \t][^\n]{0,80}?\bkey[ \t]{1,4}|crypto[ \t](?:isakmp|ikev\d)[ \t]key[ \t]{1,4}"
    r"|snmp-server[ \t]community[ \t]{1,4}"
    r"|snmp-server[ \t]host[ \t]\S{1,64}[ \t](?:(?:traps|informs)[ \t])?version[ \t](?:1|2c)[ \t]{1,4}"
    r"|set[ \t]snmp[ \t]community[ \t]{1,4}|r[ow]community6?[ \t]{1,16}"
    rf"|com2sec6?[ \t]\S{{1,64}}[ \t]{{1,16}}\S{{1,64}}[ \t]{{1,16}}){_VALUE}",
    re.MULTILINE,
)
_JUNIPER = re.compile(r"-(?:key|password|text)[ \t]{1,4}\"(\$[189]\$[^\s\"]{6,200})\"")
# Few texts have any of these, and looking for them costs a tenth of looking for the patterns.
_HAS = ("password", "secret", "-server ", "isakmp key", "key 6", "key 7", "key-string", "community", "com2sec")
# Names that every manual has in the place of a community.
_PUBLIC = re.compile(r"public|private|community|string|word|name|default|snmp|test|\$", re.I)
# The seed of one-time passwords, or several of them, in the URI that a QR code shows.
_SEED = re.compile(
    r"otpauth(?:-migration)?://[^\s\"'`<>]{0,200}?[?&](?:secret=([A-Za-z2-7]{12,256}={0,6})|data=([\w%+/=-]{20,4096}))"
)


def find_network_secrets(text: str) -> Iterator[tuple[int, int]]:
    """Yield where each password, key or community of a network's device begins and ends."""
    if any(map(text.__contains__, _HAS)):
        for match in _WRITTEN.finditer(text):
            group = match.lastindex or 0
            if group < 6 or is_set_password(match[group]):
                yield match.span(group)
        for match in _COMMAND.finditer(text):
            if is_set_password(match[1]) and not _PUBLIC.fullmatch(match[1]):
                yield match.span(1)
    if '"$' in text:
        yield from (match.span(1) for match in _JUNIPER.finditer(text))


def find_seeds(text: str) -> Iterator[tuple[int, int]]:
    """Yield where the secret of each `otpauth://` URI begins and ends."""
    if "otpauth" in text:
        for match in _SEED.finditer(text):
            group = match.lastindex or 0
            if not is_filler(match[group]):
                yield match.span(group)
