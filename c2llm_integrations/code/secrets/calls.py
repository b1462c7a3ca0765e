"""Find passwords by what stands before them: the arguments of a function or a command, a keyword of settings."""

from __future__ import annotations

import re
from collections.abc import Iterator

from c2llm_integrations.code.secrets.commands import PASSWORD
from c2llm_integrations.code.secrets.values import is_given

# Functions that take a secret after so many arguments: the end of the name, which is quick to look for, and behind "~"
# how it goes on. `auth = (…)` takes a user, a password, and nothing else.
_PAIR = r"~[\"']?\s?[:=]\s?[(\[](?=[^,()\[\]]{1,99},[^,()\[\]]{1,99},?\s{0,40}[)\]])"
_FUNCTIONS = (
    ((0,), ("Fernet(", "KeySpec(", "SecretKey(", "Wallet(", "SignedString(", "CookieStore(", "asswordEncoder.encode(")),
    ((0,), ("hmac.new(", "AES.new(", "DES.new(", "DES3.new(", r"crypt.~(?:hash|compare)\w{0,4}\(")),
    ((1,), ("signWith(", "bind_s(", "UserPassword(", "login(", "WiFi.begin(", "WiFiMulti.addAP(", "CreateAsync(")),
    ((1,), ("authenticate(",)),
    ((1,), (r"AES.~(?:en|de)crypt\(", r"jwt.~\w{1,20}\(", r"HMAC.~\w{0,6}digest\(", r"ipher~(?:iv)?\(")),
    ((1,), (r"auth~(?:_password)?\(", r"Auth~(?:entication)?\(", "basic_auth~[ (]")),
    ((1,), (r".load(~(?=[^\n]{0,200}\"\.toCharArray\()", r".getKey(~(?=[^\n]{0,200}\"\.toCharArray\()")),
    ((1,), [name + _PAIR for name in ("uth", "UTH", "creds", "CREDS", "redentials", "REDENTIALS", "login")]),
    ((2,), ("FTP(", "getConnection(", "PDO(", "mysqli(", "Sequelize(", "PlainAuth(", r"create_~(?:super)?user\(")),
    ((2,), ("ftp_login(", "ssh2_auth_password(", "keyring.set_password(", r"openssl_~\w{1,20}\(")),
    ((2, 1), ("EmailAndPassword(", "mac(")),
    ((3, 2), ("connect(",)),
    ((3, 2, 1), (r"Credential~s?(?:\.create|\.basic|::new)?\(",)),
)
_ARGUMENT = r"(?:[^,()\"'{}\n]|\"[^\"\n]{0,100}\"|'[^'\n]{0,100}'|\{[^{}\n]{0,100}\}|\([^()\n]{0,100}\)){1,60},\s{0,40}"
_IN_CALL = r"(?:(?:\[\]byte|[\w.]{1,20})\(\s?)?[bru]?[\"'`]([^\s\"'`]{5,128})[\"'`]"
# Commands, settings of servers, installers and devices, SQL and PowerShell: what a text has that is quick to look for,
# and what stands before a password there, where a blank stands for a few.
_QUOTE = "(?=[\"'])"
_IDENTIFIED = r"(?i:identified(?:\s{1,40}with\s{1,40}\S{1,64})?\s{1,40}by)"
_BEHIND = (
    *(("password", rf"{name}\s{{1,8}}\S{{1,64}}\s{{1,8}}password\s{{1,8}}") for name in ("login", "machine")),
    *((name, rf"{name} (?:--plaintext )?") for name in ("bindpw", "rootpw", "requirepass", "masterauth")),
    ("stats auth", r"stats auth [^\s:]{1,64}:"),
    ("password", r"passwd/[\w-]{1,40} password "),
    *(
        (name, r"(?i:(?:create|alter) user|connect to) \S{1,64} (?i:identified by) ")
        for name in ("dentified ", "DENTIFIED ")
    ),
    *((name, rf"{_IDENTIFIED}\s{{1,40}}{_QUOTE}") for name in ("dentified", "DENTIFIED")),
    *((name, rf"(?i:set password for) \S{{1,99}} = {_QUOTE}") for name in ("set password", "SET PASSWORD")),
    *((name, rf"(?i:(?:with|encrypted|role \w{{1,64}}) password) {_QUOTE}") for name in ("assword '", "ASSWORD '")),
    ("SecureString", rf"put-parameter(?=[^\n]{{0,300}}SecureString)[^\n|;]{{0,300}}?--value(?: |=){_QUOTE}"),
    ("SecureString", rf"ConvertTo-SecureString (?:-\w{{2,12}} ){{0,3}}{_QUOTE}"),
    ("passwd -", r"(?:htpasswd|mosquitto_passwd) (?:-\w{1,5} ){0,3}-\w{0,5}b\w{0,5} (?:[^\s-]\S{0,99} ){1,2}"),
    ("passwd -", r"openssl passwd (?:-(?:salt \S{1,20}|\w{1,6}) ){0,4}"),
    ("password", r"mysqladmin [^\n|;]{0,100}? password "),
    ("nmcli", r"nmcli [^\n|;]{0,200}?[\s.](?:psk|password) "),
    ("rabbitmqctl", r"rabbitmqctl [^\n|;]{0,60}?(?:add_user|change_password) [^\s-]\S{0,64} [\"']?"),
    ("net use", r"net use (?:[^\n]{0,200}?/u(?:ser)?:\S{1,64} |(?:\w: )?\\\\[^\s]{1,99} (?!/))"),
    ("net use", r"net user (?:/add )?[^\s/]{1,64} (?!/)"),
    ("wpa_passphrase", r"wpa_passphrase \S{1,64} "),
    ("freerdp", r"freerdp\d? [^\n]{0,200}? /p:"),
    ("vault login", r"vault login (?:-\S{1,40} ){0,3}(?:token=)?"),
    # "…".equals(password)
    (".equals(pass", r"(?<=\")(?=[^\s\"]{5,128}\"\.equals\()"),
    # enable password …, username me secret …, neighbor 10.0.0.1 password …
    *((kind, rf"enable {kind} ") for kind in ("password", "secret")),
    *(
        (kind, rf"username \S{{1,64}}(?: (?:privilege|role) \S{{1,32}}){{0,2}} {kind} ")
        for kind in ("password", "secret")
    ),
    ("password", r"neighbor \S{1,64} password "),
    ("password", r"ppp (?:chap|pap sent-username \S{1,64}) password "),
    ("-server ", r"(?:tacacs|radius)-server [^\n]{0,80}?\bkey "),
    ("-server ", r"snmp-server (?:community|host \S{1,64} (?:(?:traps|informs) )?version (?:1|2c)) "),
    ("crypto ", r"crypto (?:isakmp|ikev\d) key "),
    ("community", r"(?:set snmp community|r[ow]community6?) "),
    ("com2sec", r"com2sec6? \S{1,64} \S{1,64} "),
)


def _patterns() -> dict[str, list[re.Pattern[str]]]:
    """Return what a text has that is quick to look for, and the patterns that it may match then."""
    patterns: dict[str, list[re.Pattern[str]]] = {}
    for counts, names in _FUNCTIONS:
        arguments = "|".join(_ARGUMENT * count for count in counts)
        for name, _, rest in (one.partition("~") for one in names):
            pattern = re.compile(rf"{re.escape(name)}{rest}\s{{0,40}}(?:{arguments}){_IN_CALL}")
            patterns.setdefault(name, []).append(pattern)
    for sign, before in _BEHIND:
        patterns.setdefault(sign, []).append(re.compile(before.replace(" ", r"[ \t]{1,9}") + PASSWORD))
    return patterns


_PATTERNS = _patterns()


def find_arguments(text: str) -> Iterator[tuple[int, int]]:
    """Yield where each password begins and ends that stands behind what takes one."""
    for sign, patterns in _PATTERNS.items():
        for match in (match for pattern in patterns for match in pattern.finditer(text)) if sign in text else ():
            if is_given(match[match.lastindex or 0]):
                yield match.span(match.lastindex or 0)
