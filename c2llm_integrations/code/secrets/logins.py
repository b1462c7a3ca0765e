"""Find passwords by where they stand: in URLs, and in the arguments of commands and functions that log in."""

from __future__ import annotations

import re
from collections.abc import Iterator

from c2llm_integrations.code.secrets.values import (
    is_filler,
    is_generated,
    is_login_password,
    is_mixed,
    is_password,
    is_random,
)

# The user of a URL, who may be a variable of a shell or a template: {user}, ${USER}, %(user)s, <user>, " + user + ".
_USER = (
    r"(?:[^\s:/@'\"`<>(){}\[\]]|\{\{?\s?[^{}:/@\n]{1,40}\}|\}|%\(\w{1,40}\)|<[\w-]{1,40}>"
    r"|[\"']\s?[+.]\s?[\w.$]{1,40}\s?[+.]\s?[\"']){0,400}"
)
_URL = re.compile(rf"://({_USER}(?:@[\w.-]{{1,64}}(?=:))?)(?::([^\s/@'\"`<>{{}}]{{4,256}}))?@[\w\[{{$%<\"'#(/]")
# The same without a scheme, before a port, a path, or how Go's MySQL connects; no address of mail or telephony.
_AT = re.compile(r"@(?=(?:tcp|unix)\(|/\w|\$?\{|[\w.-]{1,80}:\d{2,5}(?!\w))")
_BEFORE_AT = re.compile(
    r"(?:^|[\s\"'`=,(])(?!(?:mailto|sips?|xmpp|acct|ssh|git|npm):)(?:[\w.+%$-]{1,64}(?:@[\w.-]{1,64})?|\$?\{[\w.]{1,40}\})"
    r":([^\s:@/\"'`,<>{}()]{5,128})$"
)
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
_IN_QUOTES = r"([^\s\"'`]{5,128})[\"'`]"
_QUOTED = rf"[\"'`]{_IN_QUOTES}"
_PASSWORD = rf"[\"']?(?:(?<=[\"']){_IN_QUOTES}|{_VALUE})"
_COMMANDS = (
    # programs, their options, and what stands before the password there: a user and a sign
    (
        "curl|wget|https?|xh|etcdctl|ctr|skopeo|buildah|crictl",
        r"-\w{0,4}[uUa]|--(?:user|proxy-user|auth|(?:src-|dest-)?creds)",
        rf"{_NEXT}[^\s:\"'/]{{1,64}}:[\"']?",
    ),
    ("curl", "-E|--cert", rf"{_NEXT}[^\s:\"']{{1,64}}:[\"']?"),
    ("lftp", "-u", rf"{_NEXT}[^\s,\"']{{1,64}},[\"']?"),
    ("smbclient|rpcclient|smbmap|winexe|wbinfo|net (?:rpc|ads)", "-[Ua]|--user", rf"{_NEXT}[^\s%\"']{{1,64}}%"),
    # nothing
    (r"mysql\w{0,9}|mariadb[\w-]{0,9}|7za?|unrar|rar", "-h?p", r"[\"']?"),
    # a word or a blank
    ("openssl|keytool|jarsigner", "-(?:k|pass(?:in|out)?|(?:src|dest)?(?:store|key)pass)", rf"{_NEXT}(?:pass:)?"),
    (
        r"sshpass|(?:docker|podman|nerdctl|buildah|helm(?: registry)?|skopeo|oras|crane auth|oc|az)[ \"',]{1,4}login"
        r"|mongo\w{0,6}|lftp|cqlsh|mosquitto_\w{3}|sqlcmd|bcp|zip|unzip|redis-cli|ldap\w{3,9}|useradd|usermod|ipmitool|isql|rdesktop"
        r"|evil-winrm|netexec|nxc|crackmapexec|hydra|az sql|twine|airflow users|cypher-shell|influx|racadm"
        r"|rabbitmqadmin|ncftp\w{0,3}",
        "-[pPaw]",
        _NEXT,
    ),
    ("snmp[a-z]{2,9}", "-[AX]", _NEXT),
    ("ssh-keygen", "-[NP]", _NEXT),
    # what is kept as a secret
    ("gh secret|az keyvault secret", "-b|--(?:body|value)", _NEXT),
    (r"(?:psexec(?:64)?|plink|pscp|psftp)(?:\.exe)?", "-pw?", _NEXT),
)
_COMMAND = re.compile(
    rf"\b(?:{'|'.join(rf'(?:{programs}){_REST}(?:{options}){before}' for programs, options, before in _COMMANDS)}"
    # without a sign before it
    r"|(?:htpasswd|mosquitto_passwd)[ \t](?:-\w{1,5}[ \t]){0,3}-\w{0,5}b\w{0,5}[ \t](?:[^\s-]\S{0,99}[ \t]){1,2}"
    r"|mysqladmin[ \t][^\n|;]{0,100}?[ \t]password[ \t]{1,4}|nmcli[ \t][^\n|;]{0,200}?[ \t.](?:psk|password)[ \t]{1,4}"
    r"|openssl[ \t]passwd[ \t](?:-(?:salt[ \t]\S{1,20}|\w{1,6})[ \t]){0,4}"
    r"|rabbitmqctl[ \t][^\n|;]{0,60}?(?:add_user|change_password)[ \t]{1,4}[^\s-]\S{0,64}[ \t]{1,4}[\"']?"
    rf"|net[ \t]use[ \t](?:[^\n]{{0,200}}?/u(?:ser)?:\S{{1,64}}[ \t]{{1,4}}|(?:\w:[ \t])?\\\\[^\s]{{1,99}}[ \t](?!/))"
    r"|net[ \t]user[ \t](?:/add[ \t])?[^\s/]{1,64}[ \t](?!/)|wpa_passphrase[ \t]\S{1,64}[ \t]{1,4}"
    r"|x?freerdp\d?[ \t][^\n]{0,200}?[ \t]/p:"
    rf"){_PASSWORD}"
)
# Commands whose assignments are all secrets, and an assignment.
_KEEPS = re.compile(
    r"\b(?:vault kv (?:put|patch)|(?:fly|flyctl|doppler) secrets set|(?:kubectl|oc) create secret)"
    r"((?:\\\n|[^\n|;]){1,2000})"
)
_HAS_KEEPS = ("create secret", "vault kv ", "secrets set")
_ASSIGNED = re.compile(rf"(?:--from-literal[= ]|(?<=\s)(?!-))[\"']?[\w.-]{{1,64}}={_PASSWORD}")
# Few texts have any of these options, and looking for one costs a hundredth of looking for a program, which stands this
# many characters before it at most.
_COMMAND_CHARACTERS = 500
_HAS_OPTION = re.compile(
    r"-(?<=[\s\"']-)(?:[pPawuUkAXNE]|\w{1,4}u[ \t\"']|-(?:user|proxy-user|auth|cert|(?:src-|dest-)?creds)|hp|pass"
    r"|(?:src|dest)?(?:store|key)pass)"
)
_HAS_COMMAND = ("passwd -", "net use", "rabbitmqctl", "wpa_passphrase", "freerdp", "nmcli", "secret set")
# What a text has before a password, and the password; each begins with characters that are quick to look for. It is
# printed into a program which asks for it, sent when it is asked for, or noted beside a user: Login: admin / ….
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
_PGPASS = re.compile(r":(?:\d{2,5}|\*):[\w*.-]{1,64}:[\w*.-]{1,64}:([^\s:\"'`]{5,128})(?=[\s\"'`]|$)")
_BEFORE_PGPASS = re.compile(r"(?:^|[\s\"'`])[\w.*-]{1,80}$")
_PLACES = (
    (re.compile(rf"<<<[ \t]{{0,4}}[\"']?{_USER_OF}{_VALUE}"), re.compile(rf"{_ASKS}[^\n|<]{{0,60}}$")),
    (
        re.compile(r"send(?:[ \t]--)?[ \t]\"([^\s\"\\]{5,128})\\[rn]"),
        re.compile(r"(?i:assword|passphrase)[^\n]{0,40}\n?[^\n]{0,20}$"),
    ),
    (
        re.compile(rf" / `?{_VALUE}"),
        re.compile(r"(?i:\b(?:log-?in|user(?:name)?|credentials?|account)s?):[*_ \t]{1,4}`?[\w.@-]{1,64}`?$"),
    ),
    # of PostgreSQL's .pgpass and of Postfix: a line a server
    *((_PGPASS, _BEFORE_PGPASS),) * 2,
    (re.compile(r"\]:587 {1,8}[\w.@+-]{1,64}:([^\s\"'`]{5,128})(?=[\s\"'`]|$)"), re.compile(r"\[[\w.-]{1,80}$")),
    # of cloud-init, and as what a command reads: a line a user
    (
        re.compile(r"\n[ \t]{0,20}(?:-[ \t]{1,4})?[\"']?[\w.-]{1,64}:([^\s\"'`]{4,128})(?=[\"']?[ \t]*(?:\r?\n|$))"),
        re.compile(
            r"chpasswd(?::[ \t]*\n[ \t]+(?:expire:[ \t]*\w+[ \t]*\n[ \t]+)?list:[ \t]*\|?"
            r"|[^\n|<]{0,40}<<[\w\"' -]{1,20})"
            r"(?:\n[ \t]*[^\s:]+:[^\s:]+)*$"
        ),
    ),
)
_HAS_PLACE = ("<<<", "send ", " / ", "pgpass", ":5432:", "]:587 ", "chpasswd")
# Characters before a password that say what it is.
_BEFORE_CHARACTERS = 240
# Functions that take a secret by its position: how their names begin, which is quick to look for, and go on, and how
# many arguments precede it.
_CALLS = (
    (".new(", r"(?:(?<=hmac.new\()|(?<=AES.new\()|(?<=DES.new\()|(?<=DES3.new\())", (0,)),
    # a user and a password, and nothing else: auth = ("me", "…")
    *(
        (name, r"[\"']?\s?[:=]\s?[(\[](?=[^,()\[\]]{1,99},[^,()\[\]]{1,99},?\s{0,40}[)\]])", (1,))
        for name in ("uth", "UTH", "creds", "CREDS", "redentials", "REDENTIALS", "login")
    ),
    *((name, "", (1,)) for name in ("signWith(", "bind_s(", "UserPassword(")),
    ("AES.", r"(?:en|de)crypt\(", (1,)),
    *(("crypt.", r"(?:hash|compare)\w{0,4}\(", (0,)), ("asswordEncoder.encode(", "", (0,)), ("CookieStore(", "", (0,))),
    ("SignedString(", "", (0,)),
    *((name, "", (0,)) for name in ("Fernet(", "KeySpec(", "SecretKey(", "Wallet(")),
    *((name, "", (1,)) for name in ("login(", "WiFi.begin(", "WiFiMulti.addAP(")),
    *(("jwt.", r"\w{1,20}\(", (1,)), ("HMAC.", r"\w{0,6}digest\(", (1,)), ("ipher", r"(?:iv)?\(", (1,))),
    *(("auth", r"(?:_password)?\(", (1,)), ("Auth", r"(?:entication)?\(", (1,))),
    ("Credential", r"s?(?:\.create|\.basic|::new)?\(", (3, 2, 1)),
    *((name, "", (2,)) for name in ("FTP(", "getConnection(", "PDO(", "mysqli(", "Sequelize(")),
    *(("PlainAuth(", "", (2,)), ("EmailAndPassword(", "", (2, 1)), ("create_", r"(?:super)?user\(", (2,))),
    *(("basic_auth", r"[ (]", (1,)), ("CreateAsync(", "", (1,))),
    *((name, "", (2,)) for name in ("ftp_login(", "ssh2_auth_password(", "keyring.set_password(")),
    *((name, r"(?=[^\n]{0,200}\"\.toCharArray\()", (1,)) for name in (".load(", ".getKey(")),
    *(("mac(", "", (2, 1)), ("openssl_", r"\w{1,20}\(", (2,)), ("connect(", "", (3, 2))),
)
_ARGUMENT = r"(?:[^,()\"'{}\n]|\"[^\"\n]{0,100}\"|'[^'\n]{0,100}'|\{[^{}\n]{0,100}\}|\([^()\n]{0,100}\)){1,60},\s{0,40}"
_SECRET_ARGUMENTS = {
    name: re.compile(
        rf"{re.escape(name)}{rest}\s{{0,40}}(?:{'|'.join(_ARGUMENT * count for count in counts)})"
        rf"(?:(?:\[\]byte|[\w.]{{1,20}})\(\s?)?[bru]?{_QUOTED}"
    )
    for name, rest, counts in _CALLS
}
# Settings of servers and installers; SQL; PowerShell.
_SERVER = re.compile(
    r"\b(?:(?:login|machine)\s{1,8}\S{1,64}\s{1,8}password\s{1,8}"
    r"|(?:bindpw|rootpw|requirepass|masterauth)[ \t]{1,8}(?:--plaintext[ \t]{1,8})?"
    r"|stats[ \t]{1,8}auth[ \t]{1,8}[^\s:]{1,64}:|passwd/[\w-]{1,40}[ \t]{1,8}password[ \t]{1,8}"
    r"|(?i:(?:(?:create|alter)\s{1,8}user|connect\s{1,8}to)\s{1,8}\S{1,64}\s{1,8}identified\s{1,8}by\s{1,8})"
    r"|(?:(?i:identified\s{1,8}by|(?:with|encrypted|role\s\w{1,64})\spassword)\s{1,8}"
    r"|put-parameter(?=[^\n]{0,300}SecureString)[^\n|;]{0,300}?--value[ =]"
    rf"|ConvertTo-SecureString (?:-\w{{2,12}} ){{0,3}})(?=[\"'])){_PASSWORD}"
)
_HAS_SERVER = (
    *("login", "bindpw", "rootpw", "requirepass", "masterauth", "assword '", "ASSWORD '", "stats auth", "passwd/"),
    *("dentified ", "DENTIFIED ", "SecureString"),
)


def find_logins(text: str) -> Iterator[tuple[int, int]]:
    """Yield where each password of a URL or a command begins and ends."""
    if "@" in text:
        if "://" in text:
            yield from _find_in_urls(text)
        yield from (match.span(1) for match in _ORACLE.finditer(text) if is_login_password(match[1]))
        for at in _AT.finditer(text):
            match = _BEFORE_AT.search(text, max(0, at.start() - _BEFORE_CHARACTERS), at.start())
            if match and is_mixed(match[1]):
                yield match.span(1)
    for match in (*_commands(text), *_beside(text)):
        if _is_given(match[match.lastindex or 0]):
            yield match.span(match.lastindex or 0)


def _commands(text: str) -> Iterator[re.Match[str]]:
    """Yield each command with a password: near options, or anywhere in a text with one that needs none."""
    if any(map(text.__contains__, _HAS_COMMAND)):
        yield from _COMMAND.finditer(text)
        return
    start = stop = 0
    for option in _HAS_OPTION.finditer(text):
        if option.start() > stop + _COMMAND_CHARACTERS:
            yield from _COMMAND.finditer(text, start, stop)
            start = option.start() - _COMMAND_CHARACTERS
        stop = option.end() + _COMMAND_CHARACTERS
    yield from _COMMAND.finditer(text, start, stop)


def _is_given(value: str) -> bool:
    return is_password(value) or is_generated(value)


def _beside(text: str) -> Iterator[re.Match[str]]:
    """Yield what stands where a call, a program or a note has a password."""
    for name, pattern in _SECRET_ARGUMENTS.items():
        if name in text:
            yield from pattern.finditer(text)
    if any(map(text.__contains__, _HAS_SERVER)):
        yield from _SERVER.finditer(text)
    if any(map(text.__contains__, _HAS_KEEPS)):
        for command in _KEEPS.finditer(text):
            found = _ASSIGNED.finditer(text, *command.span(1))
            yield from (match for match in found if is_mixed(match[match.lastindex or 0]))
    if "|" in text and ("echo" in text or "printf" in text):
        for pipe in _PIPE.finditer(text):
            if match := _PRINTED.search(text, max(0, pipe.start() - _BEFORE_CHARACTERS), pipe.start()):
                yield match
    for sign, (pattern, must_precede) in zip(_HAS_PLACE, _PLACES, strict=True):
        for match in pattern.finditer(text) if sign in text else ():
            if must_precede.search(text, max(0, match.start() - _BEFORE_CHARACTERS), match.start()):
                yield match


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
