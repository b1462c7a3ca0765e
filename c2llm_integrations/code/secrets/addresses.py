"""Find passwords in URLs and in other addresses: between a user and the place that is logged in to."""

from __future__ import annotations

import re
from collections.abc import Iterator

from c2llm_integrations.code.secrets.values import is_filler, is_login_password, is_mixed, is_random

# The user of a URL, who may be a variable of a shell or a template: {user}, ${USER}, %(user)s, <user>, " + user + ".
_USER = (
    r"(?:[^\s:/@'\"`<>(){}\[\]]|\{\{?\s?[^{}:/@\n]{1,40}\}|\}|%\(\w{1,40}\)|<[\w-]{1,40}>"
    r"|[\"']\s?[+.]\s?[\w.$]{1,40}\s?[+.]\s?[\"']){0,400}"
)
_URL = re.compile(rf"://({_USER}(?:@[\w.-]{{1,64}}(?=:))?)(?::([^\s/@'\"`<>{{}}]{{4,256}}))?@[\w\[{{$%<\"'#(/]")
# The same without a scheme, before a port, a path, or how Go's MySQL connects; no address of mail or telephony. Set to
# the name of a URL, it may have no port.
_AT = re.compile(r"@(?=(?:tcp|unix)\(|/\w|\$?\{|[\w.-]{1,80}:\d{2,5}(?!\w))")
_BEFORE_AT = re.compile(
    r"(?:^|[\s\"'`=,(])(?!(?:mailto|sips?|xmpp|acct|ssh|git|npm):)(?:[\w.+%$-]{1,64}(?:@[\w.-]{1,64})?|\$?\{[\w.]{1,40}\})"
    r":([^\s:@/\"'`,<>{}()]{5,128})$"
)
_SET = re.compile(r"(?:URL|url)[\"']?\s{0,2}[:=]\s{0,2}[\"']?[\w.+%$-]{1,64}:([^\s:@/\"'`,<>{}()]{5,128})@\w")
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")
# Oracle's: user/password@place, after its URL's scheme, one of its programs, or what opens a connection.
_ORACLE = re.compile(
    r"(?:oracle:\w{2,5}:|\b(?:sqlplus|sqlldr|expdp|impdp|exp|imp|rman|connect)\b[^\n;|]{0,80}?[\s\"'(=])"
    r"[\w$#]{1,64}/\"?([^\s/@'\"]{4,128})\"?@"
)


def find_in_addresses(text: str) -> Iterator[tuple[int, int]]:
    """Yield where each password of an address begins and ends."""
    if "@" not in text:
        return
    for match in _URL.finditer(text) if "://" in text else ():
        user, password = match[1], match[2]
        if text.endswith(("http", "https"), 0, match.start()) and is_random(user, 16):
            yield match.span(1)
        if password and password != user and _is_in_url(password):
            yield match.span(2)
    yield from (match.span(1) for match in _ORACLE.finditer(text) if is_login_password(match[1]))
    places = (_BEFORE_AT.search(text, max(0, at.start() - 240), at.start()) for at in _AT.finditer(text))
    yield from (
        place.span(1)
        for place in (*places, *(_SET.finditer(text) if "URL=" in text or "url: " in text else ()))
        if place and (is_mixed(place[1]) or (text.startswith("@tcp(", place.end()) and is_login_password(place[1])))
    )


def _is_in_url(value: str) -> bool:
    """Return whether what stands between ":" and "@" is a password; a long word is one there."""
    value = _ESCAPE.sub("#1", value)  # no word and no name needs an escape
    return is_login_password(value) or (len(value) > 11 and value.isalpha() and not is_filler(value))
