"""The words that name secrets, and how each judges the values that it is set to."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

from c2llm_integrations.code.secrets.values import (
    is_drawn,
    is_key,
    is_login,
    is_login_password,
    is_password,
    is_set_password,
    is_short_token,
    is_typed,
    is_typed_or_random,
)

Judge = Callable[[str], bool]

# What a key opens: `api_key`, `apiKey`, `master-key`.
_KEYS = (
    *("api", "app", "access", "account", "auth", "private", "encryption", "signing", "master", "shared", "session"),
    *("subscription", "consumer", "client", "service", "storage", "license", "hmac", "aes", "jwt", "functions"),
    *("deploy", "instrumentation", "sas", "validation", "decryption"),
)
_OPENS = "|".join(f"(?<={kind}key)|(?<={kind}[_. -]key)" for kind in _KEYS) + "|(?<=[?&]key)(?==)"
# Names, also in other languages. Each begins with one of few letters, by which the search skips all other places; a
# word that begins with another is looked for by its end.
_NAMES = (
    r"p(?:ass(?:w(?:or)?[dt]|phrase|code|ord(?![a-z])|e(?:(?<=mot[ _-]de[ _-]passe)|(?<=motdepasse))"
    r"|(?![a-z_])(?<!(?:by|uy|om|es|ur)pass))|wd"
    r"|w(?![a-z])(?:(?<![a-z]pw)|(?<=dbpw)|(?<=userpw)|(?<=adminpw)|(?<=rootpw))|sk(?![a-z])(?<![a-z]psk)"
    r"|re(?:sharedkey|[_-]shared[_-]key)|arola(?![a-z])|at(?<=_pat)(?![a-z]))",
    r"s(?:ecret|ig(?==)|enha(?![a-z])|enord(?<=l[oö]senord)|lo(?<=heslo)(?![a-z])|alasana|zó(?<=jelszó))",
    r"(?<!publickey)token(?!i[sz])",
    r"c(?:redential|ontrase(?:ñ|n|ny)a(?![a-z])|htwoord(?<=wachtwoord))",
    r"b(?:earer|asic)",
    rf"k(?:ey(?:{_OPENS})|ennwort|odeord|ata[ _]sandi)",
    r"a(?:uth(?![a-z_]|-key)|s[lł]o(?<=has[lł]o)(?![a-z])|dgangskode)",
)
WORD = re.compile("|".join(_NAMES))
_WIDE_NAMES = "парол[ьяе]|密[码碼]|口令|비밀번호|암호|パスワード|κωδικός|סיסמ[אה]|كلمة (?:المرور|السر)|şifre"
WIDE_WORD = re.compile("|".join((*_NAMES, _WIDE_NAMES)))
# All others name passwords; these of them may have a user and a password, too.
_OF_DRAWN = ("key", "pat", "token", "credential", "bearer", "basic", "auth", "sig")
_OF_LOGINS = ("credential", "basic", "auth")
# What follows a name that tells something about a secret: password_length, token_type.
ABOUT = re.compile(
    r"[\w-]{0,20}?(?:ref|name|policy|file|path|type|field|class|version|provider|length|ur[il]|label|hint|format|input)s?\b",
    re.I,
)
_MAX_COLUMN_CHARACTERS = 100


class Judges(NamedTuple):
    """Whether a value is a secret, by how a name is set to it."""

    bare: Judge
    quoted: Judge
    in_call: Judge  # in quotes, where it need not be what the name is set to: f(password, "…")
    in_list: Judge
    in_connection: Judge  # "Server=db;Password=…"


@lru_cache(256)
def judges_of(word: str, is_about: bool, settings: bool) -> Judges:
    """Return how values are judged after a word; `is_about`: what follows it tells something about a secret."""
    drawn = _typed_or(is_key if word.startswith("key") else is_drawn)
    if is_about or word.startswith(_OF_DRAWN):
        bare = quoted = is_key if word.startswith("key") else is_drawn
        if not is_about and settings and word in ("token", "key"):
            bare = quoted = is_short_token if word == "token" else _is_short_key
        elif not is_about and word == "token":
            quoted = is_short_token
        elif not is_about and word in _OF_LOGINS:
            bare = quoted = _is_drawn_or_login
        return Judges(bare, _typed_or(quoted), drawn, drawn, bare)
    if word == "secret":  # whose name is often given for it, instead of its value
        return Judges(is_password, is_typed, drawn, drawn, is_password)
    bare = is_set_password if settings else is_password
    return Judges(bare, is_typed, drawn, bare if settings else is_typed, is_login_password)


def judge_of(column: str) -> Judge | None:
    """Return how the values are judged below the name of a column, or None if it is not the name of secrets."""
    word = WIDE_WORD.search(column.lower())
    if not word or len(column) > _MAX_COLUMN_CHARACTERS or ABOUT.match(column, word.end()):
        return None
    return judges_of(word[0], False, False).bare


def _typed_or(judge: Judge) -> Judge:
    return lambda value: is_typed_or_random(value) or judge(value)


def _is_drawn_or_login(value: str) -> bool:
    return is_drawn(value) or is_login(value)


def _is_short_key(value: str) -> bool:
    return is_key(value) or (len(value) < 10 and is_short_token(value))
