"""The ways to set the name of a secret to a value without quotes: in settings, shells, connections and documents."""

from __future__ import annotations

import re
from collections.abc import Callable
from operator import attrgetter
from typing import NamedTuple

from c2llm_integrations.code.secrets.names import Judge, Judges
from c2llm_integrations.code.secrets.values import is_base64_login, is_random


class Form(NamedTuple):
    """What must stand behind a name, where its last group is the value, and before it, and how the value is judged."""

    after: re.Pattern[str]
    before: re.Pattern[str] | None
    judge: Callable[[Judges], Judge]


def _form(after: str, before: str = "", judge: Callable[[Judges], Judge] = attrgetter("bare")) -> Form:
    return Form(re.compile(after, re.I), re.compile(rf"(?:{before})[\w./-]{{0,30}}$", re.I) if before else None, judge)


def _until(stops: str) -> str:
    """Return the pattern of a value that ends before these, before quotes and blanks, and with a bracket that closes.

    A value is taken as a whole, by a lookahead: no shorter one fits what must follow, and trying each would take a
    hundred steps at every word of a long line.
    """
    return rf"(?=((?:[^\s\"'\]}}{stops}]|[\]}}](?![\s,}}\]>]|$)){{6,200}}))\1"


_REST = r"[\w.-]{0,20}"
_MARKS = r"[*_`]{0,3}"
_LINE_BEGINS = r"(?:^|\n)[ \t]*(?:[-*#] |:)?(?:(?:export|set|setx|env|arg|local|readonly) )?(?:mot de )?"
_SETTING = _form(
    # to the end of the element: "password": …, password: !str &x …, <password>…, <key>password</key><string>…,
    # <add key="Password" value="…">
    rf"{_REST}[\"']?(?:\s{{0,8}}[:\uff1a=]\s{{0,8}}(?:[!&][\w!]{{0,40}}[ ]){{0,2}}"
    r"|\"(?:\s{1,8}[\w:.-]{1,30}=\"[^\"<>]{0,99}\"){0,2}\s{1,8}value="
    r"|(?:(?:\s[\w:.-]{1,30}=(?:\"[^\"<>]{0,200}\"|'[^'<>]{0,200}')){0,3}>|</[\w-]{1,20}>(?=\s{0,40}<))"
    rf"\s{{0,40}}(?:<(?:(?:string|(?:param-)?value|td)>|!\[CDATA\[)\s{{0,40}})?)[\"']?{_until('<>,;')}"
)
_BASIC = _form(  # Authorization: Basic …
    r"(?:(?<=basic)\s{1,3}|(?<=auth)[\"']?\s{0,3}[:=]\s{0,3}[\"']?)([A-Za-z0-9+/_-]{8,400}={0,2})",
    judge=lambda _: is_base64_login,
)
# --password …, #define PASSWORD …, ?password=…, X-Auth-Key: …
_OPTION = _form(
    rf"{_REST}(?:[=\s]|, |:\s?)(?:\s{{0,20}}- |\s{{0,3}})[\"']?{_until('`;&|<>,')}",
    r"(?:^|[\s\"'\[])(?:/|--?|x-|#\s?define |env |arg |setx? (?:-\w{1,3} )?|setenv |fastcgi_param |config:set "
    r"|(?:re)?set-)|[?&]"
    r"|\b(?:set-env \S{1,30}|config set(?: --?[\w-]{1,20})?) \S{0,40}?",
)
IN_DATA = (_BASIC, _SETTING, _OPTION)
IN_CODE = (
    _BASIC,
    _form(r"[ \t]{1,3}([\w.~+/-]{20,400}=*)", judge=lambda _: is_random),  # Authorization: Bearer …
    _OPTION,
    # docker run -e PASSWORD=…, --set a=b,password=…, vault kv put secret/x password=…
    _form(
        rf"[\w-]{{0,20}}=[\"']?{_until('`;&|<>,')}",
        r"(?:^|[\s\"'])--?[\w-]{1,20}[ =][\"']?(?:[^\s\"',]{1,40},){0,3}"
        r"|\b(?:kv (?:put|patch)|vault write|config:set|config create|cifs)\b[^\n|;]{0,60}?[ ,]",
    ),
    # so long that nothing else looks like it: api_key=…
    _form(
        r"[\w-]{0,20}[\"']?(?:\s{0,3}=\s{0,3}|:\s?)(?:base64:)?(?=([\w+/=.~%-]{20,400}))\1(?![\w+/=.~%(\[-])",
        judge=lambda _: is_random,
    ),
    # a line that is nothing else: export db_password=…
    _form(
        rf"{_REST}[ \t]{{0,8}}(?::{{0,3}}=|[?+!]=|[:\uff1a])\s{{0,3}}(?=((?:[^\s\"'`,;]|[,;]"
        rf"(?!\s|{_REST}(?:pass|pw|secret|token|key)\w{{0,20}}[:=])){{6,200}}))\1[ \t]*(?:\r?\n|$)",
        _LINE_BEGINS,
    ),
    # the environment: DB_PASSWORD=… run
    _form(rf"(?-i:(?<=[A-Z])[A-Z0-9_]{{0,20}})={_until('`;&|<>(),')}(?=[\s\"'`;&|\]]|$)"),
    # a part of a connection: "Server=db;Password=…"
    _form(
        r"\s{0,3}=\s{0,3}(?=([^;\"'\s]{6,200}))\1(?:[;\"']|\s|$)",
        r";\s?|[\"']|\w=(?:[^\s,;(]{1,60} )?",
        attrgetter("in_connection"),
    ),
    # what holds if nothing else is set: ${DB_PASSWORD:-…}, ${db.password:…}, PASSWORD=${1:-…}
    _form(
        rf"{_REST}?(?:=[\"']?\$\{{\w{{1,20}})?(?::[-=]?|-|=)(?=([^\s\"'`{{}}$]{{6,200}}))\1\}}",
        rf"[$#]\{{[?\w.:-]{{0,40}}|{_LINE_BEGINS}",
    ),
    # documents: **Password:** …, the password is `…`
    _form(
        r"[\w-]{0,20}(?:[*_`]{0,3}\s?(?:[:\uff1a=\u2013\u2014-]|\bis|(?<=word )to)[*_]{0,3}[ \t]{0,3}[*_]{0,3}`{1,2}"
        r"|[*_]{2,3}\s?[:\uff1a][ \t]{0,3}|[:\uff1a][*_]{2,3}[ \t]{0,3}|\s(?:is|to)\s{1,3}[\"'])"
        r"(?=([^\s`*\"']{6,200}))\1[`*_\"']{0,3}(?=[\s.,;)]|$)"
    ),
    # tables: | db password | … |, | db password | prod | … |, and in AsciiDoc a cell a line
    _form(
        rf"[\w() -]{{0,20}}{_MARKS}(?:[ \t]{{0,20}}|\r?\n)\|(?:[^\n|`]{{0,50}}\|)?[ \t]{{0,20}}{_MARKS}"
        rf"(?=([^\s`*|]{{6,200}}))\1{_MARKS}[ \t]{{0,20}}(?:\||\r?\n|$)",
        rf"(?:^|\n)[ \t>*/#]{{0,9}}\|(?:[^\n|]{{0,50}}\|)?[ \t]{{0,20}}{_MARKS}[\w .-]{{0,30}}",
    ),
    # pages: <td>Password</td><td>…</td>, or two cells from it
    _form(
        r"[\w() -]{0,20}[:\uff1a]?\s{0,40}(?:</\w{1,9}>\s{0,40}){1,3}(?:<\w{1,9}(?:\s[^<>]{0,80})?>\s{0,40}){1,3}"
        r"(?:[^<>\n]{0,50}</td>\s{0,40}<td>\s{0,40})?(?=([^\s<>]{6,200}))\1\s{0,40}</"
    ),
)
# The value of a name in a field of its own.
_FIELD = (
    r"[\"']?\s{0,3}[:=]\s{0,3}(?:[|>][+-]?\s{1,40})?"
    r"[\"']?((?<=[\"'])[^\s\"']{6,200}|(?:[^\s\"',;}\]]|[}\]](?![\s,}\]]|$)){6,200})"
)
IN_SETTINGS = (
    *IN_CODE,
    _SETTING,
    # two fields: - name: DB_PASSWORD\n  value: …; variable "db_password" {\n  default = …; DBPassword:\n  Default: …
    _form(
        r"[\w-]{0,20}[\"']?\s{0,3}(?:(?:\"[\w-]{1,60}\"\s)?(?::?\s{0,8}\{|:[ \t]{0,8}(?=\r?\n))"
        r"(?:[^{},\n]{0,120}(?:\{[^{}]{0,200}\})?[,\n]){0,8}?\s{0,40}"
        r"|,?\s{0,40}(?:\{\s{0,8}|#[^\n]{0,200}\s{1,40})?(?:[\"']?type[\"']?\s?[:=]\s?[\"']?\w{1,20}[\"']?[\s,]{1,40})?)"
        rf"[\"']?(?:(?:parameter)?value|default(?:_?value)?){_FIELD}"
    ),
)
# - value: …\n  name: DB_PASSWORD, which ends where the word begins.
VALUE_FIRST = re.compile(
    rf"value{_FIELD}[\"']?\s{{0,3}},?\s{{0,40}}"
    r"[\"']?(?:name|(?:parameter)?key)[\"']?\s{0,3}[:=]\s{0,3}[\"']?[\w.-]{0,30}$",
    re.I,
)
