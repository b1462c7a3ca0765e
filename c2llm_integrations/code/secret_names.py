"""Recognize files of secrets by their names."""

from __future__ import annotations

import re
from fnmatch import translate


def any_of(*globs: str) -> re.Pattern[str]:
    """Return a pattern that matches a name if one of the globs does."""
    return re.compile("|".join(map(translate, globs)))


# A file with such a suffix is an example, or public.
_SAFE_SUFFIXES = (".example", ".sample", ".template", ".tmpl", ".dist", ".defaults", ".j2", ".pub")
# What a copy has behind its name: a word or a number of editors, people and package managers, or how it is encoded.
_KEPT = r"bak\d?|backup|bkp|bck|old|orig|original|save[d]?|sav|copy|prev|previous|last|dpkg-\w+|rpm(?:save|new|orig)"
_COPY = re.compile(
    rf"(?:[ ._-]+(?:{_KEPT}|sw[nop]|new|tmp|temp|off|disabled|local|text|txt|b64|base64|hex|asc|armor|enc|gpg|\d+)"
    r"|[ ._-]*\(\d+\)|~)+$"
)
# The same before an extension, as in "credentials (1).json", and in front of a name.
_COPY_WITHIN = re.compile(rf"(?:[ ._-]+(?:{_KEPT})|[ ._-]*\(\d+\))+(?=\.\w+$)")
_COPY_BEFORE = re.compile(r"^(?:copy of |#|\.#)|#$")
_NAMES = any_of(
    # environments, and what shells, package managers and tools of the network log in with
    *(".env", ".env.*", "*.env", ".envrc", ".flaskenv", "env.sh"),
    *(".secrets", ".secret", "secrets", ".creds", ".vault*"),
    *(".netrc", "_netrc", ".npmrc", ".yarnrc", ".pypirc", ".pgpass", "pgpass.conf", "*my.cnf", ".mylogin.cnf"),
    *(".git-credentials", "*htpasswd", "*htdigest", ".dockercfg", ".dockerconfigjson", "docker-config.json"),
    *("*s3cfg", ".boto", "*rclone.conf", ".ftpconfig", "sftp*.json", "filezilla.xml", "sitemanager.xml", ".esmtprc"),
    *("recentservers.xml", ".remote-sync.json", ".msmtprc", ".muttrc", ".fetchmailrc", ".mailrc", ".edgerc"),
    *(".cvspass", ".lftprc", ".curlrc", ".wgetrc", ".smbcredentials", "smbcredentials", "*.keytab", "wireguard.conf"),
    *(".condarc", "pip.conf", "passwd", "shadow", ".*_history", ".databrickscfg", "databricks.cfg", "ngrok.yml"),
    *("kaggle.json", "*robomongo.json", "pgadmin4.db", "cookies.txt", "cookies.sqlite", "logins.json", "key[34].db"),
    *(".openai", ".anthropic", "profiles.yml", "snowflake.toml", "auth.json", "auth.toml", "hudson.util.secret"),
    *(".gitconfig", "gitconfig", ".hgrc", "hgrc", ".yarnrc.yml", "netrc", "boto.cfg", "pip.ini", "tokens.json"),
    *("*.secret", "*.secrets", "*.credentials", "*.creds", ".*.vars", "*.dec.y*ml", "initialadminpassword", "*.har"),
    # what was typed into a shell, a database or an interpreter, and the cookies and accounts of programs
    *(".rhistory", ".lesshst", ".histfile", ".zhistory", ".history", "fish_history", "consolehost_history.txt"),
    *(".dbshell", "*.erlang.cookie", ".cookiejar", "cookiejar.txt", "cookies", "local state", "web data"),
    *("signons.sqlite", ".xauthority", ".iceauthority", "winscp.ini", "ftpconfig", "*.remmina", "*.rdp", "*getmailrc"),
    *(".offlineimaprc", ".mbsyncrc", ".isyncrc", ".robomongorc.json", ".dbeaver-data-sources.xml", ".claude.json"),
    # accounts of a system, a network or a server
    *("gshadow", "gshadow-", "shadow-", "opasswd", "*.passwd", "sasl_passwd*", "sasldb2", "smbpasswd", "passdb.tdb"),
    *("proftpdpasswd", "htpasswd.*", "krb5cc_*", "ntds.dit", "*unattend.xml", "sysprep.inf", "*.nmconnection"),
    *("chap-secrets", "pap-secrets", "ipsec.secrets", "ipsec.*.secrets"),
    *("*.wpa_psk", "proxychains*.conf", "*pg_service.conf", "mongo*keyfile", "keystonerc*", "clouds.y*ml"),
    # keys
    *("id_xmss", "*.keyring", "*.keychain", "*.keychain-db", "*.psafe3", "*.enpass*", "*.wallet", "*.provisionprofile"),
    *("id_rsa", "id_dsa", "id_ecdsa", "id_ed25519", "id_*_sk", "identity", "ssh_host_*_key", "*[._-]rsa", "*_private"),
    *("deploy_key", "*.pem", "*.key", "*.p8", "*.p12", "*.pfx", "*.ppk", "*.jks", "*.keystore", "*.bks", "*.bcfks"),
    *("*.kdb", "*.kdbx", "*.gpg", "*.kbx", "*.private", "private*.asc", "secring.*", "*.agekey", "*age-key.txt"),
    *("*.mobileprovision", "*.ovpn", "openvpn.conf", "wg[0-9]*.conf"),
    *("utc--*", "wallet.dat", "mnemonic.txt", "seed.txt"),
    # clouds and clusters
    *("*kubeconfig", "kube*config.y*ml", "kube*config.json", "*.kubeconfig", "*.tfvars", "*.tfvars.json", "*.tfstate"),
    *("*.tfstate.*", ".terraformrc", "terraform.rc", "pulumi.*.yaml", "*.publishsettings", "publishsettings"),
    *("client_secret*.json", "service[-_]account*.json", "serviceaccount*.json", "*firebase-adminsdk*.json"),
    *("application_default_credentials.json", "*[-_]key.json", "google-services.json", "googleservice-info.plist"),
    *("token.json", "token.pickle", "login data", "identity.age"),
    *("oauth.json", "accesstokens.json", "azureprofile.json", "accesskeys.csv"),
    *("rootkey.csv", "access_tokens.db", "credentials", "*credentials.db", "credentials.y*ml.enc"),
    # settings that exist for their secrets
    *("wp-config.php", "localsettings.php", "settings.local.php", "local.settings.json", "appsettings.?*.json"),
    *("connectionstrings.config", "settings-security.xml", "secret_token.rb", "key.properties", "signing.properties"),
    *("*[-_]signing.properties", "keystore.properties", "vault[-_]pass*", "vault.y*ml", "*api[-_]key", "login.json"),
)
# Words of the name of a data file that holds nothing else.
_WORDS = frozenset(
    ("secret", "secrets", "credential", "credentials", "creds", "cred", "apikey", "apikeys", "kubeconfig", "authinfo")
)
_DATA = re.compile(r".*\.(?:json|ya?ml|toml|ini|cfg|conf|xml|csv|txt|env|enc|properties)$")
_LISTS = any_of(
    *("passwords.lst", "password.lst", "logins.txt", "keystore.json", "wallet.json", "oauth2.json", "usersecrets.json"),
    *("passwords.txt", "passwords.csv", "password.txt", "pass.txt", "passwd.txt", "api[-_]key*", "apikey*"),
    # what password managers and browsers write, and what people keep of an account or a wallet
    *("*[-_]passwords.csv", "logins.csv", "bitwarden*.json", "bitwarden*.csv", "lastpass*.csv", "*.1pif", "*.mnemonic"),
    *("keepass*.xml", "keepass*.csv", "dashlane*.csv", "1password*.csv", "*2fa[-_]codes*", "oauth[-_]client*.json"),
    *("aws[-_]key*.csv", "*recovery[-_]codes.*", "*recovery[-_]codes", "backup[-_]codes.*", "seed[-_]phrase*"),
    *("id_rsa[-_]*", "id_ed25519[-_]*", "wpa_supplicant*.conf", ".clasprc.json", ".sentryclirc", "pgpassword"),
    "mnemonic.phrase",
)
# Names of one key, one token or one account, and of environments; words for other things end alike: `sort_key.yaml`,
# `design-tokens.json`, the locale `ar-sa.json`.
_SINGLE = re.compile(
    r"(?:.*[._-])?(?:[rd]sa|ecdsa|ed25519|private|priv|sign(?:ing)?|ssh|deploy|encryption|secret|master|host|server|client"
    r"|tls|ssl|gpg|pgp|api|access|auth|account|service|storage|admin|root|jwt|cert|ca)[._-]?keys?(?:\.(?:json|ya?ml))?"
    r"|keys?\.json|\.?(?:passwd|password|passphrase|token)|.*[._-](?:password|token)\.txt|.*\.token"
    r"|(?:.*[._-])?(?:admin|root|db|database|vault|master|keystore|gpg)[._-]?pass(?:wd|word|phrase)?"
    r"|(?:.*[._-])?(?:api|access|auth|oauth2?|bearer|refresh|session|bot|admin|root|deploy|registry|git(?:hub|lab)|gh|vault"
    r"|slack|npm|pypi|hf|huggingface)[._-]?tokens?(?:\.json|\.ya?ml)?"
    r"|(?:.*[._-])?(?:service[._-]?(?:principal|account)s?|[a-z0-9]{3,}[._-]sa)(?:[._-]?keys?)?\.json"
    r"|\.?(?:dot)?env[._-](?:prod(?:uction)?|stag(?:e|ing)|dev(?:elopment)?|qa|test|live|ci)|(?:_|dot[._-]?)env(?:[._-]\w+)?"
    r"|\.?kube[._-]?config.*|.*[._-]kube[._-]?config|.*\.kube",
)
# Prose and code of such a name, unlike a copy.
_NOT_COPIES = frozenset(("identity.txt", "shadow.txt", "token.hex"))
# Code that has such a name handles secrets, and is judged by what it says.
_CODE = re.compile(
    r"\.(?:pyc?|pyi|ipynb|[cm]?[jt]sx?|vue|svelte|go|rs|java|kt|kts|swift|scala|dart|rb|erb|php|cs|vb|fs|c|h|cc|cpp|hpp|m|mm"
    r"|lua|pl|pm|r|jl|hs|ml|exs?|erl|cljs?|zig|nim|sh|bash|ps1|bat|sql|proto|graphql|md|mdx|rst|adoc|tex|html?|s?css|less|svg)$"
)
_SECRET_CODE = any_of(
    *("env.sh", "wp-config.php", "localsettings.php", "settings.local.php", "secret_token.rb", ".env.php"),
    *("*openrc.sh", ".mongorc.js"),
)
# A database as a program wrote it down, with all that its users typed.
_DUMP = re.compile(
    r"(?:.*[._ -])?(?:(?:db|database|mysql|pg|all)?_?(?:dump|backup|bak)s?|all[-_]databases)(?:[._ -].*)?"
    r"\.(?:sql|dmp|pgdump)(?:\.\w{1,4})?|.*\.pgdump|db\.dump"
)
# Names that say it only in their folder: in one of a program's in a home, and everything in some.
_PLACES = re.compile(
    r"/(?:\.docker/config\.json|\.kube/(?:config[^/]*|[^/]+\.ya?ml)|\.aws/(?:config|(?:cli|sso)/cache/.+)"
    r"|\.azure/(?:msal|service_principal|azureprofile|accesstokens)[^/]*|\.config/gcloud/(?!logs/).+"
    r"|\.config/(?:gh/hosts\.yml|hub|glab-cli/config\.yml|git/(?:config|credentials)|doctl/config\.yaml|hcloud/cli\.toml"
    r"|linode-cli|msmtp/config|openstack/[^/]+|netlify/config\.json|configstore/[^/]+|sentry/auth|op/config|s3cmd/config"
    r"|exercism/user\.json|stripe/config\.toml|wandb/settings|github-copilot/[^/]+\.json|hexchat/servlist\.conf)"
    r"|\.(?:cache/)?huggingface/token|\.bundle/config|\.gem/credentials|\.cargo/credentials\.toml|\.oci/config"
    r"|\.(?:bluemix|ibmcloud|railway|continue)/config\.json|\.(?:fly|travis)/config\.yml|\.circleci/cli\.yml|\.jfrog/.+"
    r"|\.op/config|\.wandb/settings|\.snowsql/config|\.netlify/(?:state|config)\.json|\.mc/config\.json"
    r"|\.subversion/auth/.+|\.dbeaver/credentials-config\.json|\.irssi/config|\.m2/settings\.xml|\.purple/accounts\.xml"
    r"|\.gradle/gradle\.properties|\.?nuget/(?:nuget/)?nuget\.config|\.idea/(?:datasources\.local|webservers|deployment)\.xml"
    r"|\.idea/sshconfigs\.xml|\.weechat/sec\.conf|\.mutt/passwords|\.(?:password-store|gnupg)/.+|keyrings/[^/]+\.keyring"
    r"|\.ssh/(?!known_hosts|authorized_keys|environment$|rc$)[^/]+|[^/]+\.(?:opvault|agilekeychain)/.+|openfortivpn/config"
    r"|(?:radius|raddb)[^/]*/(?:.+/)?clients\.conf|cvs/(?:root|entries|repository)|pgbouncer/userlist\.txt|vpnc/[^/]+\.conf|sqldeveloper/.*connections\.xml)$"
)


def is_secret_name(path: str) -> bool:
    """Return whether a file of this POSIX path holds secrets, judged by its name or by the name it is a copy of."""
    folder, _, name = path.lower().rpartition("/")
    name = _COPY_BEFORE.sub("", name)
    if name.startswith(".") and re.search(r"\.sw[nop]$", name):  # an editor's: .id_rsa.swp, ..env.swp
        name = name[1:]
    copied = name if name in _NOT_COPIES else _COPY.sub("", name) or name
    names = {name, copied, _COPY_WITHIN.sub("", copied)}
    if any(one.endswith(_SAFE_SUFFIXES) for one in names):
        return False
    return any(_is_secret(folder, one) for one in names)


def _is_secret(folder: str, name: str) -> bool:
    path = f"/{folder}/{name}"
    if _DUMP.fullmatch(name):
        return True
    if _CODE.search(name):
        return bool(_SECRET_CODE.match(name))
    words = re.split(r"[ ._()-]", name)
    if (_DATA.match(name) or "." not in name[1:]) and not _WORDS.isdisjoint(words) and "/templates/" not in path:
        return True
    return bool(_NAMES.match(name) or _LISTS.match(name) or _SINGLE.fullmatch(name) or _PLACES.search(path))
