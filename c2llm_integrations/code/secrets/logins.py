"""Find passwords by where they stand: in URLs, and in the arguments of commands and functions that log in."""

from __future__ import annotations

import re
from collections.abc import Iterator

from c2llm_integrations.code.secrets.values import is_filler, is_login_password, is_password, is_random

# The user of a URL, who may be a variable of a shell or a template: {user}, ${USER}, %(user)s, <user>, " + user + ".
_USER = (
    r"(?:[^\s:/@'\"`<>(){}\[\]]|\{\{?\s?[^{}:/@\n]{1,40}\}|\}|%\(\w{1,40}\)|<[\w-]{1,40}>"
    r"|[\"']\s?[+.]\s?[\w.$]{1,40}\s?[+.]\s?[\"']){0,400}"
)
_URL = re.compile(rf"://({_USER})(?::([^\s/@'\"`<>{{}}]{{4,256}}))?@[\w\[{{$%<\"']")
_ESCAPE = re.compile(r"%[0-9A-Fa-f]{2}")
# Oracle's: user/password@place, after its URL's scheme, one of its programs, or what opens a connection.
_ORACLE = re.compile(
    r"(?:oracle:\w{2,5}:|\b(?:sqlplus|sqlldr|expdp|impdp|exp|imp|rman|connect)\b[^\n;|]{0,80}?[\s\"'(=])"
    r"[\w$#]{1,64}/\"?([^\s/@'\"]{4,128})\"?@"
)
# An option that the password follows, in the command of a program.
_NEXT = r"(?:[\"',\s]{0,4}|=)"
_REST = r"[ \t\"',](?:[^\n|;]|\\\n){0,200}?(?<=[\s\"'])"
_VALUE = r"([^\s\"'`;&|<>,]{5,128})"
_COMMAND = re.compile(
    # as user:password
    rf"\b(?:(?:curl|wget|https?|xh){_REST}(?:-[uUa]|--(?:user|proxy-user|auth)){_NEXT}[^\s:\"'/]{{1,64}}:"
    # as user%password
    rf"|(?:smbclient|rpcclient){_REST}(?:-U|--user){_NEXT}[^\s%\"']{{1,64}}%"
    # without a blank in between
    rf"|(?:mysql\w{{0,9}}|mariadb[\w-]{{0,9}}|7za?|unrar|rar){_REST}-p[\"']?"
    # after a word that says it, or a letter
    rf"|(?:openssl|keytool|jarsigner){_REST}-(?:k|pass(?:in|out)?|(?:src|dest)?(?:store|key)pass){_NEXT}(?:pass:)?"
    r"|(?:sshpass|(?:docker|podman|helm(?: registry)?|skopeo|oc|az) login|mongo\w{0,6}|lftp|mosquitto_\w{3}|sqlcmd|bcp"
    rf"|zip|unzip|redis-cli|ldap\w{{3,9}}){_REST}-[pPaw]{_NEXT}){_VALUE}"
)
# Few texts have any of these options, and looking for one costs a hundredth of looking for a program.
_HAS_OPTION = re.compile(r"-(?<=[\s\"']-)(?:[pPawuUk]|-(?:user|proxy-user|auth)|pass|(?:src|dest)?(?:store|key)pass)")
# Functions that take a user and a password, or a place, a user and a password; settings of servers; SQL.
_CALL = re.compile(
    r"(?:auth ?= ?|\.auth|[bB]asic_?[aA]uth|\blogin|Credentials?)\([\"'][^\"'\s]{1,64}[\"'], ?[\"']"
    + _VALUE
    + r"|(?:getConnection|mysqli(?:_connect)?|PDO)\((?:[^,()\n]{1,200},\s?){2}[\"']"
    + _VALUE
    + r"|ConvertTo-SecureString (?:-String )?[\"']"
    + _VALUE
)
_SERVER = re.compile(
    r"\b(?:login\s{1,8}\S{1,64}\s{1,8}password\s{1,8}|(?:bindpw|rootpw|requirepass|masterauth)[ \t]{1,8}"
    r"|(?i:identified\sby|(?:with|encrypted|role\s\w{1,64})\spassword)\s[\"'])" + _VALUE
)
_HAS_CALL = (
    "auth=(",
    "auth = (",
    ".auth(",
    "asicAuth(",
    "asic_auth(",
    "login(",
    "Credential",
    "getConnection(",
    "mysqli",
    "PDO(",
    "SecureString",
)
_HAS_SERVER = ("login", "bindpw", "rootpw", "requirepass", "masterauth", "assword '", "ASSWORD '", " by '", " BY '")


def find_logins(text: str) -> Iterator[tuple[int, int]]:
    """Yield where each password of a URL or a command begins and ends."""
    if "@" in text:
        if "://" in text:
            yield from _find_in_urls(text)
        yield from (match.span(1) for match in _ORACLE.finditer(text) if is_login_password(match[1]))
    for pattern, is_there in (
        (_COMMAND, _HAS_OPTION.search(text)),
        (_CALL, any(map(text.__contains__, _HAS_CALL))),
        (_SERVER, any(map(text.__contains__, _HAS_SERVER))),
    ):
        if is_there:
            yield from (
                match.span(match.lastindex or 0)
                for match in pattern.finditer(text)
                if is_password(match[match.lastindex or 0])
            )


def _find_in_urls(text: str) -> Iterator[tuple[int, int]]:
    for match in _URL.finditer(text):
        user, password = match[1], match[2]
        if text.endswith(("http", "https"), 0, match.start()) and is_random(user, 16):
            yield match.span(1)
        if password and password != user and _is_in_url(password):
            yield match.span(2)


def _is_in_url(value: str) -> bool:
    """Return whether what stands between ":" and "@" is a password; a long word is one there."""
    value = _ESCAPE.sub("#1", value)  # no word and no name needs an escape
    return is_login_password(value) or (len(value) > 11 and value.isalpha() and not is_filler(value))
