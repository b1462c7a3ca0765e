"""Forms of secrets: quotes inside quotes, pairs of a user and a password, options of commands, tables, Terraform."""

from __future__ import annotations

import pytest

from c2llm_integrations.code.secrets import BLOT, without_secrets
from tests.code.test_secrets import assert_blotted, assert_kept

PASSWORD = "Wn7dq4Rt2x"


@pytest.mark.parametrize(
    "secret", [r"x7K\"mQ9vLw4T", r"x7K\\mQ9vLw4T", r"x7K'mQ9vLw4T", r"x7K`mQ9vLw4T", r"hunter\"2go"]
)
@pytest.mark.parametrize(
    ("line", "settings"),
    [
        *(
            ('password = "<>"', False),
            ('{"db_password": "<>"}', True),
            ('const pw = process.env.PASSWORD || "<>";', False),
        ),
        *(('password = f"<>"', False), ('let password = String::from("<>");', False), ('password: "<>"', True)),
    ],
)
def test_a_password_with_quotes_or_a_backslash(line: str, settings: bool, secret: str) -> None:
    assert without_secrets(line.replace("<>", secret), settings) == line.replace("<>", BLOT)


@pytest.mark.parametrize(
    "line",
    [
        *('auth = ("admin", "<>")', "credentials = ('admin', '<>')", 'AUTH: ["admin", "<>"]', "creds=(USER, '<>')"),
        *("'http_auth': ('elastic', '<>')", 'CryptoJS.AES.encrypt(text, "<>")', '.signWith(HS256, "<>")'),
        *("snmpwalk -v3 -u me -A <> host", "ipmitool -H h -U root -P '<>' power status", "useradd -m -p <> me"),
        *(
            "xfreerdp /u:me /p:<> /v:host",
            "wpa_passphrase home '<>'",
            "winexe -U me%<> //h cmd",
            "rdesktop -u me -p <> h",
        ),
        *("kubectl create secret generic x --from-literal=a=<>", "oc create secret generic x --from-literal 'a=<>'"),
    ],
)
def test_a_password_beside_its_user_or_behind_an_option(line: str) -> None:
    assert_blotted(line, PASSWORD)


@pytest.mark.parametrize(
    "text",
    [
        *("<tr><td>Password</td><td><></td></tr>", "<tr>\n <th>Password</th>\n <td><code><></code></td>\n</tr>"),
        *("<dt>Password:</dt><dd><></dd>", '<td><b>password</b></td> <td class="x"><></td>', ":Password: <>"),
        *("+----+-----+\n| me | Password |\n+====+=====+\n| a | b |\n+----+-----+\n| c | <> |\n", "Password — `<>`"),
        *("- Username/password: admin/<>",),
    ],
)
def test_a_password_in_a_page(text: str) -> None:
    blotted = text.replace("admin/<>", BLOT).replace("<>", BLOT)
    assert without_secrets(text.replace("<>", PASSWORD), False) == blotted


def test_elements_of_a_list_may_have_brackets() -> None:
    text = "passwords = ['x7K[mQ9vLw4T', \"x7K}mQ9vLw4T\"]\n"
    assert without_secrets(text, False) == f"passwords = ['{BLOT}', \"{BLOT}\"]\n"


@pytest.mark.parametrize("expression", ["pw | default('<>', true)", "db_password | default('<>')"])
def test_a_default_of_ansible(expression: str) -> None:
    assert_blotted(f'db: "{{{{ {expression} }}}}"', PASSWORD, settings=True)


def test_each_value_of_a_secret_of_terraform() -> None:
    data = '  metadata {\n    name = "kept"\n  }\n  data = {\n    hook = "<>"\n  }\n}\n'
    secret = f'resource "kubernetes_secret" "a" {{\n{data}'
    other = 'resource "kubernetes_config_map" "a" {\n  data = {\n    hook = "kept"\n  }\n}\n'
    text = secret + other + secret.replace("kubernetes_secret", "kubernetes_secret_v1")
    assert without_secrets(text.replace("<>", "two words"), True) == text.replace("<>", BLOT)


@pytest.mark.parametrize(
    "line",
    [
        *('where = "password=\'" + password1 + "\'"', "sql = 'password=\"' + pw1 + '\"';", 'password: "^\\\\w{8,}1A$"'),
        *(
            "auth = ('user', password1)",
            "credentials: ['read', 'write:all']",
            "'auth': ('s3_auth', 'AWS_S3_AUTH', None)",
            "<td>token</td><td>int32</td>",
        ),
        *("<td>Password</td><td>required</td>", "snmpget -v2c -c public host", "usermod -a -G docker1 me"),
        *("{{ password | default(omit) }}", "{{ token_type | default('Bearer2') }}", ":param password: sha256"),
        *('data = {\n  hook = "kept"\n}', "passwords = ['<first>', '[second]', '{third1}']"),
    ],
)
def test_what_only_resembles_these_stays(line: str) -> None:
    assert_kept(line)
