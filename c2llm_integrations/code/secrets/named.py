"""Find secrets that are set to a name which says so: in code, in settings, in environments, as options."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from typing import NamedTuple

from c2llm_integrations.code.secrets.values import (
    is_base64_login,
    is_drawn,
    is_filler,
    is_generated,
    is_key,
    is_login,
    is_login_password,
    is_password,
    is_random,
    is_set_password,
    is_short_token,
    is_typed,
    is_typed_or_random,
)

_Judge = Callable[[str], bool]

# What a key opens: `api_key`, `apiKey`, `master-key`.
_KEYS = (
    *("api", "app", "access", "account", "auth", "private", "encryption", "signing", "master", "shared", "session"),
    *("subscription", "consumer", "client", "service", "storage", "license", "hmac", "aes", "jwt", "functions"),
    *("deploy", "instrumentation", "sas", "validation", "decryption"),
)
_OPENS = "|".join(f"(?<={kind}key)|(?<={kind}[_. -]key)" for kind in _KEYS) + "|(?<=[?&]key)(?==)"
# A name that says it, also in other languages. Each begins with one of few letters, by which the search skips all other
# places; a word that begins with another is looked for by its end.
_NAMES = (
    r"p(?:ass(?:w(?:or)?[dt]|phrase|code|ord(?![a-z])|e(?:(?<=mot[ _-]de[ _-]passe)|(?<=motdepasse))"
    r"|(?![a-z_])(?<!(?:by|uy|om|es|ur)pass))|wd"
    r"|w(?![a-z])(?:(?<![a-z]pw)|(?<=dbpw)|(?<=userpw)|(?<=adminpw)|(?<=rootpw))|sk(?![a-z])(?<![a-z]psk)"
    r"|re(?:sharedkey|[_-]shared[_-]key)|arola(?![a-z])|at(?<=_pat)(?![a-z]))",
    r"s(?:ecret|ig(?==)|enha(?![a-z])|enord(?<=l[oö]senord)|lo(?<=heslo)(?![a-z])|alasana|zó(?<=jelszó))",
    r"(?<!publickey)token",
    r"c(?:redential|ontrase(?:ñ|n|ny)a(?![a-z])|htwoord(?<=wachtwoord))",
    r"b(?:earer|asic)",
    rf"k(?:ey(?:{_OPENS})|ennwort|odeord|ata[ _]sandi)",
    r"a(?:uth(?![a-z_]|-key)|s[lł]o(?<=has[lł]o)(?![a-z])|dgangskode)",
)
_WORD = re.compile("|".join(_NAMES))
_WIDE_NAMES = "парол[ьяе]|密[码碼]|口令|비밀번호|암호|パスワード|κωδικός|סיסמ[אה]|كلمة (?:المرور|السر)|şifre"
_WIDE_WORD = re.compile("|".join((*_NAMES, _WIDE_NAMES)))
# All others are names of passwords.
_NO_PASSWORDS = ("key", "pat", "token", "credential", "bearer", "basic", "auth", "sig")
# These may be a user and a password, too.
_LOGINS = ("credential", "basic", "auth")
# What tells something about a password.
_ABOUT = re.compile(
    r"[\w-]{0,20}?(?:ref|name|policy|file|path|type|field|class|version|provider|length|ur[il]|label|hint|format|input)s?\b",
    re.I,
)

# Where a value is followed by what it cannot hold, `(?=(…))\1` takes it as a whole: no shorter one fits, and trying
# each would take a hundred steps at every word of a long line.

# In quotes, which may hold the other ones, and their own behind a backslash or, single ones, doubled; or between such,
# in a string.
_STRING = (
    r"(?:\"(?=((?:[^\"\s\\]|\\[^\w\s]){6,200}))\1\"|'(?=((?:[^'\s\\]|\\[^\w\s]|(?<=[^'])''(?=[^'\s,;)\]}])){6,200}))\2'"
    r"|`(?=((?:[^`\s\\]|\\[^\w\s]){6,200}))\3`|\\[\"'`](?=([^\"'`\s\\]{6,200}))\4\\[\"'`])"
)
# Set by any language's sign for it, or compared, with the type in between: password: str = "…", ("password", "…").
_QUOTED = re.compile(
    r"[\w-]{0,20}(?:\](?=[\"']))?\\?[\"']?(?:\[?\d{0,3}\])?!?(?:\??\s{0,3}:\s{0,3}(?:&(?:'static )?)?[\w.?| ]{0,30}"
    r"(?:\[[^\[\]=\n]{0,40}\])?[\w?| ]{0,20}(?=\s{0,8}:?=)"
    r"|\s(?:as\s)?\w{1,20}(?:\(\w{1,5}\))?(?=\s{0,8}:?=)|\s?\{[\w\s;]{0,40}\}(?=\s{0,8}=))?"
    r"\s{0,8}(?:=>|<-|:=|[!=]?={1,2}|\|\|=?|\?\?=?|[:\uff1a,({]|(?<=[ \t])(?=[\"'])|(?<=\s)(?:eq|ne)(?=\s))\s{0,8}"
    rf"(?:some\()?(?:u8|[brunfl@$]{{0,2}})(?:\\?(?:\"\"|''|'(?=\")|\"(?=\\\")))?{_STRING}",
    re.I,
)
# In quotes, for the case that a variable is not set: getenv("PASSWORD") or "…", password = env.X || "…".
_FALLBACK = re.compile(
    r"[\w-]{0,20}(?:\s?\|\s?default\(|[\"']?\s{0,3}(?::=|=>|[:=])\s{0,3}(?:[\w.|\[\] ]{1,40}=\s{0,3})?"
    r"[\w.$:>-]{1,60}(?:[(\[][^()\[\]\n,]{0,80}[)\]])?\s{0,3}"
    r"(?:\|\||\?\?|\?:|or\b|[(\[][^()\[\]\n,]{0,80},(?:\s?default\w{0,6}\s?[:=])?|[(\[]default\w{0,6}=)"
    r"|[\"'](?:[\])]{1,2}\s{0,3}(?:\|\||\?\?|\?:|or\b|\{|\.(?:unwrap_or|or_?else)\w{0,5}\((?:\|\w{0,9}\|)?"
    r"|\|\s?default\()|(?:,[^()\n]{0,80})?,\s{0,40}(?:default|fallback)\w{0,6}\s?[:=])"
    # of templates, of a field of Go
    r"|[\"']?\s{0,3}[:=]\s{0,3}[\"']?(?:\{\{-?|<%=)\s?(?:[^{}%\n]{0,60}\b(?:default|or)[ (])?"
    r"|\s{1,8}\w{1,20}\s{1,8}`[^`\n]{0,80}?default:)\s{0,3}" + _STRING,
    re.I,
)
# In quotes, as the only argument of what makes a string or an object of it: password = String.valueOf("…").
_WRAPPED = re.compile(
    r"[\w-]{0,20}(?:\s{0,3}(?:(?::=|=>|[:=])\s{0,3}|:\s?\w{1,20}\s?=\s?)(?:new\s)?[\w.:\[\]]{0,20}"
    r"|\.(?:set|equals)|\]?[\"']\){1,2}\.(?:send_?keys|fill|type|val))(?<!code)\(\s?"
    rf"[bru]?{_STRING}(?:\)|\.(?:to|into))",
    re.I,
)
# In the quotes of Perl, Ruby, Lua, Rust and C++: $password = q{…}, PASSWORD = %q(…), password = [[…]], r#"…"#, R"(…)".
_OTHER_QUOTES = re.compile(
    r"[\w-]{0,20}[\"'}\]]{0,3}\s{0,8}(?:=>|\|\|=|[=,(])\s{0,8}(?:(?:qq?|%[qQ])[{(\[<|]|\[={0,3}\[|r#{1,3}\"|R\"\w{0,16}\()"
    r"(?=([^\"'`\s\\{}()\[\]<>|]{6,200}))\1[})\]>|\"]"
)
# Without quotes, but so long that nothing else looks like it; the header of a request.
_BARE = re.compile(
    r"[\w-]{0,20}[\"']?(?:\s{0,3}=\s{0,3}|:\s?)(?:base64:)?(?=([\w+/=.~%-]{20,400}))\1(?![\w+/=.~%(\[-])", re.I
)
_BEARER = re.compile(r"(?:bearer|basic|token)[ \t]{1,3}([\w.~+/-]{20,400}=*)", re.I)
_BASIC = re.compile(r"(?:basic\s{1,3}|auth[\"']?\s{0,3}[:=]\s{0,3}[\"']?)([A-Za-z0-9+/_-]{8,400}={0,2})", re.I)
_HEADER = re.compile(r"[\w-]{0,20}:\s{0,3}(?=([A-Za-z0-9-]{10,20}))\1[\"'\s]")
_BEFORE_HEADER = re.compile(r"[\"'\s]x-[\w-]{0,30}$", re.I)
# In documents: **Password:** …, password is `…`, a cell of a table beside that with the name.
_SAID = re.compile(
    r"[\w-]{0,20}(?:[*_`]{0,3}\s?(?:[:\uff1a=\u2013\u2014-]|\bis|(?<=word )to)[*_]{0,3}[ \t]{0,3}[*_]{0,3}`{1,2}"
    r"|[*_]{2,3}\s?[:\uff1a][ \t]{0,3}|[:\uff1a][*_]{2,3}[ \t]{0,3}|\s(?:is|to)\s{1,3}[\"'])"
    r"(?=([^\s`*\"']{6,200}))\1[`*_\"']{0,3}(?=[\s.,;)]|$)"
)
_CELL = re.compile(
    r"[\w() -]{0,20}[*_`]{0,3}[ \t]{0,20}\|[ \t]{0,20}[*_`]{0,3}(?=([^\s`*|]{6,200}))\1[*_`]{0,3}"
    r"[ \t]{0,20}(?:\||\r?\n|$)"
)
_BEFORE_CELL = re.compile(r"(?:^|\n)[ \t>*/#]{0,9}\|(?:[^\n|]{0,50}\|)?[ \t]{0,20}[*_`]{0,3}[\w .-]{0,30}$")
# The same between the tags of HTML.
_TAGGED = re.compile(
    r"[\w() -]{0,20}[:\uff1a]?(?:</\w{1,9}>\s{0,40}){1,3}(?:<\w{1,9}(?:\s[^<>]{0,80})?>\s{0,9}){1,3}"
    r"(?=([^\s<>]{6,200}))\1\s{0,9}</"
)
# A part of a connection string.
_PART = re.compile(r"\s{0,3}=\s{0,3}(?=([^;\"'\s]{6,200}))\1(?:[;\"']|\s|$)")
_BEFORE_PART = re.compile(r"(?:;\s?|[\"']|\w=(?:[^\s,;(]{1,60} )?)[\w.-]{0,30}$")
# In settings, to the end of the line or element.
_SETTING = re.compile(
    r"[\w.-]{0,20}[\"']?(?:\s{0,8}[:\uff1a=]\s{0,8}(?:[!&][\w!]{0,40}[ ]){0,2}"
    r"|\"(?:\s{1,8}[\w:.-]{1,30}=\"[^\"<>]{0,99}\"){0,2}\s{1,8}value="
    # between tags: <password>…, <key>password</key><string>…
    r"|(?:(?:\s[\w:.-]{1,30}=(?:\"[^\"<>]{0,200}\"|'[^'<>]{0,200}')){0,3}>|</[\w-]{1,20}>(?=\s{0,40}<))"
    r"\s{0,40}(?:<(?:(?:string|(?:param-)?value|td)>|!\[CDATA\[)\s{0,40})?)[\"']?"
    r"((?:[^\s\"'<>,;}\]]|\}(?![\s,}]|$)|\](?!\]>)){6,200})",
    re.I,
)
# In a line that is nothing else, in the environment of a command, and as an option of one.
_LINE = re.compile(
    r"[\w.-]{0,20}[ \t]{0,8}(?::{0,3}=|[?+!]=|[:\uff1a])\s{0,3}"
    r"(?=((?:[^\s\"'`,;]|[,;](?!\s|(?i:[\w.-]{0,20}(?:pass|pw|secret|token|key)\w{0,20}[:=]))){6,200}))\1"
    r"[ \t]*(?:\r?\n|$)"
)
_BEFORE_LINE = re.compile(
    r"(?:^|\n)[ \t]*(?:[-*#] |:)?(?:(?:export|set|setx|env|arg|local|readonly) )?(?:mot de )?[\w./-]{0,30}$", re.I
)
_ENVIRONMENT = re.compile(r"[A-Z0-9_]{0,20}=(?=((?:[^\s\"'`;&|<>(),\]]|\](?![\s,]|$)){6,200}))\1(?=[\s\"'`;&|\]]|$)")
_OPTION = re.compile(
    r"[\w-]{0,20}(?:[=\s]|, |(?:(?<=/pass)|(?<=/password)):)(?:\s{0,20}- |\s{0,3})[\"']?"
    r"((?:[^\s\"'`;&|<>,\]]|\](?!\s|$)){6,200})",
    re.I,
)
_BEFORE_OPTION = re.compile(
    r"(?:(?:^|[\s\"'\[])(?:/|--?|#\s?define |env |arg |setx? (?:-\w{1,3} )?|setenv |fastcgi_param |config:set "
    r"|(?:re)?set-)|\b(?:set-env \S{1,30}|config set(?: --?[\w-]{1,20})?) \S{0,40}?|[?&])[\w.-]{0,30}$",
    re.I,
)
# As what an option gives to a name: --set a=b,PASSWORD=…, --build-arg PASSWORD=….
_GIVEN = re.compile(r"[\w-]{0,20}=[\"']?([^\s\"'`;&|<>,]{6,200})")
_BEFORE_GIVEN = re.compile(
    r"(?:(?:^|[\s\"'])--?[\w-]{1,20}[ =][\"']?(?:[^\s\"',]{1,40},){0,3}"
    r"|\b(?:kv (?:put|patch)|vault write|config:set|config create|cifs)\b[^\n|;]{0,60}?[ ,])[\w.-]{0,30}$"
)
# As the second of two: user, password = "me", "…". As what holds without an argument of a script: PASSWORD=${1:-…}.
_SECOND = re.compile(rf"\w{{0,20}}\s{{0,3}}:?=\s{{0,3}}(?:\"[^\"\n]{{0,60}}\"|'[^'\n]{{0,60}}'),\s?{_STRING}")
_BEFORE_SECOND = re.compile(r"\w,\s?[\w.]{0,30}$")
_ARGUMENT = re.compile(r"\w{0,20}=[\"']?\$\{\w{1,20}:?[-=](?=([^\s\"'`{}$]{6,200}))\1\}")
# What a variable of a shell, of Docker Compose or of Spring is if it is not set: ${PASSWORD:-…}, ${app.password:…}.
_DEFAULT = re.compile(r"[\w.-]{0,20}?(?::[-=]?|-|=)(?=([^\s\"'`{}$]{6,200}))\1\}")
_BEFORE_DEFAULT = re.compile(r"[$#]\{[?\w.:-]{0,40}$")
# A name and its value in two fields, as Kubernetes and Postman write them; a variable of Terraform with its default.
_PAIR_VALUE = r"[\"']?((?<=[\"'])[^\s\"']{6,200}|(?:[^\s\"',;}\]]|[}\]](?![\s,}\]]|$)){6,200})"
_PAIR = re.compile(
    r"[\w-]{0,20}[\"']?\s{0,3},?\s{0,40}(?:\{\s{0,8}|#[^\n]{0,200}\s{1,40})?"
    r"(?:[\"']?type[\"']?\s?[:=]\s?[\"']?\w{1,20}[\"']?[\s,]{1,40})?"
    r"[\"']?(?:(?:parameter)?value|default)[\"']?\s{0,3}[:=]\s{0,3}(?:[|>][+-]?\s{1,40})?" + _PAIR_VALUE,
    re.I,
)
# What a parameter of Terraform, of Azure or of AWS is if nothing is given.
_DECLARED = re.compile(
    r"[\w-]{0,20}[\"']?\s{0,3}(?:\"[\w-]{1,60}\"\s)?(?::?\s{0,8}\{|:[ \t]{0,8}(?=\r?\n))"
    r"(?:[^{},\n]{0,120}(?:\{[^{}]{0,200}\})?[,\n]){0,8}?\s{0,40}[\"']?(?:default(?:_?value)?|value)[\"']?\s{0,3}[:=]\s{0,3}"
    + _PAIR_VALUE,
    re.I,
)
_BEFORE_PAIR = re.compile(
    r"(?:\b(?:name|(?:parameter)?key)[\"']?\s{0,3}[:=]\s{0,3}|variable\s)[\"']?[\w.-]{0,30}$", re.I
)
# The same with the value first, which ends where the name begins.
_VALUE_FIRST = re.compile(
    rf"[vV]alue[\"']?\s{{0,3}}[:=]\s{{0,3}}{_PAIR_VALUE}[\"']?\s{{0,3}},?\s{{0,40}}[\"']?"
    r"(?i:name|(?:parameter)?key)[\"']?\s{0,3}[:=]\s{0,3}[\"']?[\w.-]{0,30}$"
)
_FIRST_CHARACTERS = 300


# A list, in brackets or as lines of YAML, and an element of it, which is matched from where the last one ends. Between
# quotes it may hold any sign.
_ELEMENT_OF = r"(?:([\"'`])|)((?(1)[^\s\"'`\\]|[^\s\"'`{stops}]){{1,400}})(?(1)\1)"
_IN_BRACKETS, _IN_LINES = (_ELEMENT_OF.format(stops=stops) for stops in (r",\[\](){}", r",:{}\[\]"))
_TO_END_OF_LINE = r"(?=[ \t]*(?:#|\r?\n|$))"
# The end of a line, and lines that only say something.
_NEXT_LINE = r"[ \t]{0,20}(?:#[^\n]{0,200})?\r?\n(?:[ \t]{0,20}#[^\n]{0,200}\r?\n){0,9}"
_LIST = re.compile(
    r"[\w-]{0,20}[\"']?\s{0,3}(?::=|=>|[:=])\s{0,3}"
    r"(?:\[\]\w{1,20}|new ?\w{0,20}\[\]\s?|(?:List|Set|Arrays?|Map)[\w.]{0,12})?[\[({]\s{0,40}"
)
_ELEMENT = re.compile(_IN_BRACKETS + r"\s{0,40}(?:,\s{0,40}|(?=[\])}]))")
# The same of Perl and Ruby: passwords = %w[…], qw(…).
_WORDS = re.compile(r"[\w-]{0,20}\s{0,3}=>?\s{0,3}(?:qw|%[wWiI])\s?[{(\[</|]\s{0,40}")
_WORD_OF_LIST = re.compile(r"()([^\s\"'`,{}()\[\]<>|/]{1,200})(?:\s{1,40}|(?=[})\]>/|]))")
# A mapping of what each opens to secrets, in braces or as lines of YAML, and an entry of it.
_MAP = re.compile(r"[sS][\"']?\s{0,3}(?::=|=>|[:=])\s{0,3}(?:map\[\w{1,20}\]\w{1,20}|Map\.of)?[{(]\s{0,40}")
_ENTRY = re.compile(
    r"[\"'`]?[\w.@:-]{1,64}?[\"'`]?\s{0,3}(?:=>|[:=,])\s{0,8}" + _IN_BRACKETS + r"\s{0,40}(?:,\s{0,40}|(?=[})]))"
)
_LINES = re.compile(r"[\w-]{0,20}[\"']?:(?=[ \t]{0,20}(?:#[^\n]{0,200})?\r?\n[ \t]{0,20}[-#])")
_MAP_LINES = re.compile(rf"[sS][\"']?:(?={_NEXT_LINE}[ \t]{{1,20}}[\"'\w])")
_LINE_OF_MAP = re.compile(
    rf"{_NEXT_LINE}[ \t]{{1,20}}[\"']?[\w.@-]{{1,64}}[\"']?:[ \t]{{1,8}}(?![|>]){_IN_LINES}{_TO_END_OF_LINE}"
)
_LINE_OF_LIST = re.compile(rf"{_NEXT_LINE}[ \t]{{0,20}}-[ \t]{{1,8}}{_IN_LINES}{_TO_END_OF_LINE}")
# A value on the next lines, as YAML folds it and as TOML, INI and property files continue it, and a line of it.
_BLOCK = re.compile(
    r"[\w.-]{0,20}[\"']?[ \t]{0,8}(?::|=[ \t]{0,8}(?:\\|\"{3}|'{3})?)[ \t]{0,8}(?:[>|][+-]?\d?[+-]?)?"
    r"[ \t]{0,8}(?:#[^\n]{0,200})?(?=\r?\n[ \t]{0,40}[^\s#-])"
)
_LINE_OF_BLOCK = re.compile(r"\r?\n[ \t]{0,40}" + _IN_LINES + r"(?=(?:\"{3}|'{3})?[ \t]*(?:\\|\r?\n|$))")

_COLLECTIONS = ((_LIST, _ELEMENT), (_MAP, _ENTRY), (_WORDS, _WORD_OF_LIST))
_COLLECTIONS_IN_SETTINGS = (
    *(*_COLLECTIONS, (_LINES, _LINE_OF_LIST)),
    *((_MAP_LINES, _LINE_OF_MAP), (_BLOCK, _LINE_OF_BLOCK)),
)

# A variable with a default, a URL with a query, a mapping and a name before one are no secrets, but have names of their
# own.
_HAS_NAMES = re.compile(r"\$\{|://|^[{\[]|:$")
# What must precede each; a line of data goes on for longer than those reach that a value must end in.
_PRECEDED = (
    *((_PART, _BEFORE_PART), (_LINE, _BEFORE_LINE), (_OPTION, _BEFORE_OPTION), (_DEFAULT, _BEFORE_DEFAULT)),
    *((_HEADER, _BEFORE_HEADER), (_CELL, _BEFORE_CELL), (_GIVEN, _BEFORE_GIVEN)),
    *((_SECOND, _BEFORE_SECOND), (_ARGUMENT, _BEFORE_LINE)),
)
_PRECEDED_IN_SETTINGS = (*_PRECEDED, (_PAIR, _BEFORE_PAIR))
# What follows a name that nothing sets: a word or, in a list, no quotes. Only these may be a value then.
_UNSET = re.compile(
    r"[\w-]{0,20}(?:\.?\s{1,3}(?=\w)(?!(?:as\s)?[\w:]{1,20}(?:\(\w{1,5}\))?\s{0,8}(?::?=|`)|(?:is|to|eq|ne)\b)"
    r"|,\s{0,3}(?=\w)(?!qq?\W|r#|[brun][\"']))"
    r"(?!value|default)",
    re.I,
)
_UNSET_PRECEDED = ((_OPTION, _BEFORE_OPTION), (_CELL, _BEFORE_CELL))
_ANNOUNCES = ("bearer", "basic", "token", "auth")
# Characters before a name that are looked at.
_BEFORE_CHARACTERS = 64
_DATA_CHARACTERS = 450
_DATA = re.compile(rf"[\w+/=.~%-]{{{_DATA_CHARACTERS},}}")
# All that can set a name in a line of data.
_SET_IN_DATA = re.compile(r"[\w.-]{0,20}=")
# Characters of a line before a name that show how far it is indented.
_LINE_CHARACTERS = 100
# What follows a name that no value follows: each begins behind 20 further characters of the name at most.
_GOES_ON = re.compile(r"\w{21}|\w{0,20}[);&+%]")
# What defines a constant or sets a variable to its second argument.
_DEFINES = re.compile(
    r"\b(?:(?:define|set|setenv|putenv|def|str\w?c(?:mp|py)|memcpy)\(\s?[\w.>-]{0,30}"
    r"|\w{0,12}setopt\(\$?\w{1,20},\s?\w{0,30}|set :\w{0,30})$",
    re.I,
)

# What PHP signs with, which may have blanks and any sign: define('AUTH_KEY', '…').
_SALT = re.compile(
    r"define\(\s{0,9}[\"']\w{0,40}(?:KEY|SALT|SECRET)[\"']\s{0,9},\s{0,40}([\"'])([^\n'\"]{32,128})\1\s?\)"
)
_NO_LETTERS = re.compile(r"[\W_]")


def find_named(text: str, settings: bool) -> Iterator[tuple[int, int]]:
    """Yield where each value begins and ends that is set to a name of secrets, and is one."""
    lower = text.lower()
    if len(lower) != len(text):  # a few letters become two
        lower = text.encode().lower().decode()
    end = data_end = 0
    words = _WORD if text.isascii() else _WIDE_WORD
    for word in words.finditer(lower):
        at = word.end()
        if word.start() < end:  # within a value that was judged: each is judged once
            continue
        if _GOES_ON.match(text, at):
            continue
        if at > data_end - _DATA_CHARACTERS and (data := _DATA.match(text, at)):
            data_end = data.end()
        is_data = at <= data_end - _DATA_CHARACTERS
        if is_data and not _SET_IN_DATA.match(text, at):
            continue
        name = _name(word[0], _ABOUT.match(text, at) is not None, settings)
        is_unset = not is_data and _UNSET.match(text, at) is not None
        if is_unset:
            values = _preceded(text, word, name, _UNSET_PRECEDED)
        else:
            values = (_values_in_data if is_data else _values)(text, word, name, settings)
        for match, is_secret in values:
            group = match.lastindex or 0
            value, (start, stop) = match[group], match.span(group)
            if _HAS_NAMES.search(value) and not (is_secret in (is_typed, is_generated) and is_generated(value)):
                continue
            sign = text[at:start]
            # get("db", "password", …), --secret password …
            is_name = value.isidentifier() and ("," in sign or not ("=" in sign or ":" in sign))
            if not (is_name or words.search(lower, at, start)):  # another name of a secret tells more
                end = max(end, stop)
            if is_secret(value) and not _is_name(value, lower[max(0, at - _LINE_CHARACTERS) : at]):
                yield start, stop
                break
        for element in () if is_data or is_unset else _elements(text, at, settings):
            if not words.search(lower, element.start(), element.start(2)):  # nor has the key of an entry
                end = max(end, element.end(2))
            if (name.plain if element.re is _LINE_OF_BLOCK else name.in_list)(element[2]):
                yield element.span(2)
    if "define(" in text:
        yield from (
            match.span(2) for match in _SALT.finditer(text) if len(set(match[2])) > 16 and not is_filler(match[2])
        )


def _is_name(value: str, before: str) -> bool:
    """Return whether a value is the name that stands before it, written in another way."""
    return _NO_LETTERS.sub("", before).endswith(_NO_LETTERS.sub("", value.lower()))


def judge_of(column: str) -> _Judge | None:
    """Return how the values are judged below the name of a column, or None if it is no secret's."""
    word = _WIDE_WORD.search(column.lower())
    if not word or len(column) > _LINE_CHARACTERS or _ABOUT.match(column, word.end()):
        return None
    return _name(word[0], False, False).plain


class _Name(NamedTuple):
    """What the name of a secret says about the values that it is set to: how each is judged."""

    plain: _Judge
    in_quotes: _Judge
    in_call: _Judge  # in quotes, where it need not be what the name is set to
    in_list: _Judge
    in_connection: _Judge


@lru_cache(256)
def _name(word: str, is_about: bool, settings: bool) -> _Name:
    """Return how values are judged after a word; `is_about`: what follows it tells something about a password."""
    key = is_key if word.startswith("key") else is_drawn
    if settings and word in ("token", "key") and not is_about:
        short = is_short_token if word == "token" else _is_short_key
        return _Name(short, _typed_or(short), _typed_or(key), _typed_or(short), short)
    if is_about or word.startswith(_NO_PASSWORDS):
        plain = _is_drawn_or_login if word in _LOGINS and not is_about else key
        in_quotes = _typed_or(is_short_token if word == "token" and not is_about else plain)
        return _Name(plain, in_quotes, _typed_or(key), _typed_or(key), key)
    if word == "secret":  # whose name is often given for it, instead of its value
        return _Name(is_password, is_typed, _typed_or(key), _typed_or(key), is_password)
    plain = is_set_password if settings else is_password
    return _Name(plain, is_typed, _typed_or(key), plain if settings else is_typed, is_login_password)


def _typed_or(judge: _Judge) -> _Judge:
    return lambda value: is_typed_or_random(value) or judge(value)


def _is_drawn_or_login(value: str) -> bool:
    return is_drawn(value) or is_login(value)


def _is_short_key(value: str) -> bool:
    return is_key(value) or (len(value) < 10 and is_short_token(value))


def _values(text: str, word: re.Match[str], name: _Name, settings: bool) -> Iterator[tuple[re.Match[str], _Judge]]:
    """Yield the values that a name may be set to, each with the test for a secret there."""
    at, before = word.end(), text[max(0, word.start() - _BEFORE_CHARACTERS) : word.start()]
    if match := _QUOTED.match(text, at):
        # ("password", "…") or {password, "…"}, no list of names
        sign = text[at : match.start(match.lastindex or 0)]
        is_next = "," not in sign or "=" in sign or sign.lstrip("]")[0] in "\"'" or before[-1:] == "{"
        is_next = is_next or _DEFINES.search(before) is not None
        yield match, name.in_quotes if is_next else name.in_call
        if before.endswith(("user", "USER")):  # CURLOPT_USERPWD, "me:…"
            yield match, is_login
    if match := _FALLBACK.match(text, at) or _WRAPPED.match(text, at):
        yield match, name.in_quotes
    if match := _OTHER_QUOTES.match(text, at):
        yield match, name.in_quotes
    if match := _BARE.match(text, at):
        yield match, is_random
    is_of_password = settings and name.in_quotes is is_typed
    if is_of_password and (match := _LINE.match(text, at)) and _BEFORE_LINE.search(before):
        yield match, is_generated
    if settings and (match := _SETTING.match(text, at)):
        yield match, name.plain
    if (match := _ENVIRONMENT.match(text, at)) and text[word.start() : at].isupper():
        yield match, name.plain
    if match := _SAID.match(text, at) or _TAGGED.match(text, at):
        yield match, name.plain
    if settings and (match := _DECLARED.match(text, at)):
        yield match, name.plain
    yield from _preceded(text, word, name, _PRECEDED_IN_SETTINGS if settings else _PRECEDED)
    first = max(0, word.start() - _FIRST_CHARACTERS)
    if settings and _BEFORE_PAIR.search(before) and (match := _VALUE_FIRST.search(text, first, word.start())):
        yield match, name.plain


def _values_in_data(
    text: str, word: re.Match[str], name: _Name, settings: bool
) -> Iterator[tuple[re.Match[str], _Judge]]:
    """Yield the same in a line of data, which goes on for longer than those reach that a value must end in."""
    if word[0] == "auth" and (match := _BASIC.match(text, word.start())):
        yield match, is_base64_login
    if settings and (match := _SETTING.match(text, word.end())):
        yield match, name.plain
    if (match := _OPTION.match(text, word.end())) and _BEFORE_OPTION.search(
        text, max(0, word.start() - _BEFORE_CHARACTERS), word.start()
    ):
        yield match, name.plain


def _preceded(
    text: str, word: re.Match[str], name: _Name, patterns: Iterable[tuple[re.Pattern[str], re.Pattern[str]]]
) -> Iterator[tuple[re.Match[str], _Judge]]:
    """Yield the values that something must precede, and logins, which follow the words that announce them."""
    before = text[max(0, word.start() - _BEFORE_CHARACTERS) : word.start()]
    if word[0] in _ANNOUNCES:
        if match := _BEARER.match(text, word.start()):
            yield match, is_random
        if match := _BASIC.match(text, word.start()):
            yield match, is_base64_login
    for pattern, must_precede in patterns:
        if (match := pattern.match(text, word.end())) and must_precede.search(before):
            yield match, name.in_connection if pattern is _PART else name.plain


def _elements(text: str, at: int, settings: bool) -> Iterator[re.Match[str]]:
    """Yield the elements of a list or mapping that a name is set to, in quotes unless it is in settings."""
    for opening, pattern in _COLLECTIONS_IN_SETTINGS if settings else _COLLECTIONS:
        begin = opening.match(text, at)
        match = begin and pattern.match(text, begin.end())
        if match:
            break
    if match and pattern is _LINE_OF_BLOCK and begin and begin[0][-1] in "\\\"'":
        yield match
        return
    indent = _indent(match[0]) if match and pattern in (_LINE_OF_MAP, _LINE_OF_BLOCK) else None
    if indent is not None and indent <= _indent(text[max(0, at - _LINE_CHARACTERS) : at]):
        return
    while match and (match[1] or settings or pattern is _WORD_OF_LIST):
        if indent is not None and _indent(match[0]) != indent:
            break
        yield match
        match = pattern.match(text, match.end())


def _indent(lines: str) -> int:
    """Return the blanks that the last line begins with."""
    line = lines.rpartition("\n")[2]
    return len(line) - len(line.lstrip(" \t"))
