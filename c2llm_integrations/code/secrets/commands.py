"""Find passwords in the commands that log in with them: as an option, as an argument, or as what a program reads."""

from __future__ import annotations

import re
from collections.abc import Iterator

from c2llm_integrations.code.secrets.values import is_given, is_mixed

_NEXT = r"(?:[\"',\s]{0,4}|=)"
_VALUE = r"([^\s\"'`;&|<>,]{5,128})"
PASSWORD = rf"[\"']?(?:(?<=[\"'])([^\s\"'`]{{5,128}})[\"'`]|{_VALUE})"
# Programs, the option that the password follows, and what stands before it there.
_OPTIONS_OF = (
    # curl -u me:…
    (
        "curl|wget|https?|xh|etcdctl|ctr|skopeo|buildah|crictl",
        r"-\w{0,4}[uUa]|--(?:user|proxy-user|auth|(?:src-|dest-)?creds)",
        rf"{_NEXT}[^\s:\"'/]{{1,64}}:[\"']?",
    ),
    ("curl", "-E|--cert", rf"{_NEXT}[^\s:\"']{{1,64}}:[\"']?"),
    # lftp -u me,…; smbclient -U me%…
    ("lftp", "-u", rf"{_NEXT}[^\s,\"']{{1,64}},[\"']?"),
    ("smbclient|rpcclient|smbmap|winexe|wbinfo|net (?:rpc|ads)", "-[Ua]|--user", rf"{_NEXT}[^\s%\"']{{1,64}}%"),
    # mysql -p…
    (r"mysql\w{0,9}|mariadb[\w-]{0,9}|7za?|unrar|rar", "-h?p", r"[\"']?"),
    # openssl -pass pass:…
    ("openssl|keytool|jarsigner", "-(?:k|pass(?:in|out)?|(?:src|dest)?(?:store|key)pass)", rf"{_NEXT}(?:pass:)?"),
    # docker login -p …
    (
        r"sshpass|(?:docker|podman|nerdctl|buildah|helm(?: registry)?|skopeo|oras|crane auth|oc|az)[ \"',]{1,4}login"
        r"|mongo\w{0,6}|lftp|cqlsh|mosquitto_\w{3}|sqlcmd|bcp|zip|unzip|redis-cli|ldap\w{3,9}|useradd|usermod"
        r"|ipmitool|isql|rdesktop|evil-winrm|netexec|nxc|crackmapexec|hydra|az sql|twine|airflow users|cypher-shell"
        r"|influx|racadm|rabbitmqadmin|ncftp\w{0,3}|(?:psexec(?:64)?|plink|pscp|psftp)(?:\.exe)?",
        "-[pPaw]|-pw",
        _NEXT,
    ),
    ("snmp[a-z]{2,9}", "-[AX]", _NEXT),
    ("ssh-keygen", "-[NP]", _NEXT),
    # gh secret set X --body …
    ("gh secret|az keyvault secret", "-b|--(?:body|value)", _NEXT),
)
_OPTIONS = tuple(
    (
        re.compile(rf"(?:{options}){sign}{PASSWORD}"),
        re.compile(rf"\b(?:{programs})[ \t\"',](?:[^\n|;]|\\\n){{0,200}}$"),
    )
    for programs, options, sign in _OPTIONS_OF
)
_OPTION = re.compile(r"-(?<=[\s\"']-)(?=[a-zA-Z-]{1,5})")
# Commands whose assignments are all secrets: vault kv put secret/x a=…; and an assignment.
_KEEPS = re.compile(
    r"\b(?:vault kv (?:put|patch)|(?:fly|flyctl|doppler) secrets set|(?:kubectl|oc) create secret)"
    r"((?:\\\n|[^\n|;]){1,2000})"
)
_HAS_KEEPS = ("create secret", "vault kv ", "secrets set")
_ASSIGNED = re.compile(rf"(?:--from-literal[= ]|(?<=\s)(?!-))[\"']?[\w.-]{{1,64}}={PASSWORD}")
# What asks for a password, and what is printed into it: echo me:… | chpasswd.
_ASKS = (
    r"(?:sudo[ \t](?:-\w[ \t])?)?(?:chpasswd|passwd|smbpasswd|kinit|gpg|cryptsetup|ansible-vault"
    r"|sudo[ \t](?:-\w{1,2}[ \t]){0,2}-\w?S|su(?!\w)"
    r"|[\w./-]{1,40}[ \t][^\n|<]{0,80}?(?:-stdin|--with-token|(?<=\w )(?:secrets?|kv)[ \t](?:set|put|create|versions)))"
)
_USER_OF = r"(?:[\w.@$-]{1,64}:)?"
_PIPE = re.compile(rf"\|[ \t]{{0,4}}{_ASKS}")
_PRINTED = re.compile(
    rf"\b(?:echo|printf)[ \t]{{1,4}}(?:-\w{{1,3}}[ \t]){{0,2}}[\"']?{_USER_OF}"
    r"([^\s\"'`;&|<>,]{5,256})[\"']?[ \t]{0,4}$"
)
# Characters before a password that say what it is.
_BEFORE_CHARACTERS = 240
# What a text has, a password's place, and what must precede that.
_PLACES = tuple(
    (sign, re.compile(place), re.compile(rf"(?:{before})$"))
    for sign, place, before in (
        # chpasswd <<< me:…
        ("<<<", rf"<<<[ \t]{{0,4}}[\"']?{_USER_OF}{_VALUE}", rf"{_ASKS}[^\n|<]{{0,60}}"),
        # expect "password:" { send "…\r" }
        (
            "send ",
            r"send(?:[ \t]--)?[ \t]\"([^\s\"\\]{5,128})\\[rn]",
            r"(?i:assword|passphrase)[^\n]{0,40}\n?[^\n]{0,20}",
        ),
        # Login: admin / …
        (
            " / ",
            rf" / `?{_VALUE}",
            r"(?i:\b(?:log-?in|user(?:name)?|credentials?|account)s?):[*_ \t]{1,4}`?[\w.@-]{1,64}`?",
        ),
        # .pgpass: db:5432:app:me:…; Postfix: [smtp.x.com]:587 me:…
        *(
            (
                sign,
                r":(?:\d{2,5}|\*):[\w*.-]{1,64}:[\w*.-]{1,64}:([^\s:\"'`]{5,128})(?=[\s\"'`]|$)",
                r"(?:^|[\s\"'`])[\w.*-]{1,80}",
            )
            for sign in ("pgpass", ":5432:")
        ),
        ("]:587 ", r"\]:587 {1,8}[\w.@+-]{1,64}:([^\s\"'`]{5,128})(?=[\s\"'`]|$)", r"\[[\w.-]{1,80}"),
        # cloud-init, and what a command reads: chpasswd <<EOF, a line a user
        (
            "chpasswd",
            r"\n[ \t]{0,20}(?:-[ \t]{1,4})?[\"']?[\w.-]{1,64}:([^\s\"'`]{4,128})(?=[\"']?[ \t]*(?:\r?\n|$))",
            r"chpasswd(?::[ \t]*\n[ \t]+(?:expire:[ \t]*\w+[ \t]*\n[ \t]+)?list:[ \t]*\|?"
            r"|[^\n|<]{0,40}<<[\w\"' -]{1,20})(?:\n[ \t]*[^\s:]+:[^\s:]+)*",
        ),
    )
)


def find_in_commands(text: str) -> Iterator[tuple[int, int]]:
    """Yield where each password of a command begins and ends."""
    for match in (*_by_option(text), *_beside(text)):
        yield match.span(match.lastindex or 0)
    for command in _KEEPS.finditer(text) if any(map(text.__contains__, _HAS_KEEPS)) else ():
        for match in _ASSIGNED.finditer(text, *command.span(1)):
            if is_mixed(match[match.lastindex or 0]):
                yield match.span(match.lastindex or 0)


def _by_option(text: str) -> Iterator[re.Match[str]]:
    """Yield the password of each option of a program that has one there."""
    for option in _OPTION.finditer(text):
        before = text[max(0, option.start() - _BEFORE_CHARACTERS) : option.start()]
        for pattern, program in _OPTIONS:
            if (match := pattern.match(text, option.start())) and _is_one(match) and program.search(before):
                yield match


def _beside(text: str) -> Iterator[re.Match[str]]:
    """Yield what is printed into a program that asks for a password, and what stands in another place for one."""
    for pipe in _PIPE.finditer(text) if "|" in text and ("echo" in text or "printf" in text) else ():
        match = _PRINTED.search(text, max(0, pipe.start() - _BEFORE_CHARACTERS), pipe.start())
        if match and _is_one(match):
            yield match
    for sign, place, before in _PLACES:
        for match in place.finditer(text) if sign in text else ():
            if _is_one(match) and before.search(text, max(0, match.start() - _BEFORE_CHARACTERS), match.start()):
                yield match


def _is_one(match: re.Match[str]) -> bool:
    return is_given(match[match.lastindex or 0])
