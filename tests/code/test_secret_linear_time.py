"""Looking for secrets takes linear time, whatever is repeated."""

from __future__ import annotations

import pytest

from tests.code.test_secrets import assert_linear

pytestmark = pytest.mark.slow

KINDS = [
    *(
        "pwd-pwd-",
        "pwd- ",
        "kind: Secret\n",
        "kind: Secret\ndata:\n",
        "- kind: Secret\n  data:\n    a: b\n",
        " kind: Secret\n data: {a: ",
    ),
    *(
        '{"kind":"Secret","data":{',
        "a:\n",
        "password: |\n  a\n",
        "password:\n",
        "pwd=\\\n",
        'pwd = """\n',
        "<key>pwd</key>",
        "<pwd>\n",
    ),
    *(
        "pwd = a || ",
        "pwd=a(b,",
        "pwd=env(",
        "pwd: a.b[c] ?? ",
        "param pwd string ",
        'variable "pwd" {\na,',
        "pwd:{a,b,",
    ),
    *(
        "jwt.sign(",
        "jwt.sign(a, ",
        "jwt.sign({a}",
        ".connect(a, b, ",
        '.connect("a", "b", ',
        "login('",
        "Wallet(",
        "hmac.new(b",
    ),
    *(
        "--set a,pwd=",
        "--set a,",
        "-e pwd=",
        "echo a | ",
        "echo a:b\\n",
        "echo a | sudo -S ",
        "chpasswd <<< ",
        "net use /user:",
        "plink -pw ",
    ),
    *(
        "htpasswd -b a ",
        'password send "',
        "user: a / ",
        "**pwd:** ",
        "pwd is `",
        "| pwd | a ",
        "|a|b|\n|--|--|\n",
        "|pwd|b|\n|--|--|\n|a|b|\n",
    ),
    *(
        "a,pwd\n",
        "pwd,",
        "insert into a (pwd) values (",
        "insert into a (pwd) values ('a'),",
        "base64:aaaa",
        "accounts=[a",
        "accounts=['0xab",
    ),
    *(
        "define('AUTH_KEY', '",
        "password = [[",
        "pwd=[==[",
        "key 6 ABC",
        "пароль: ",
        "пароль-",
        "mot de passe ",
        "pwd=:",
        "pwd" + " " * 40,
    ),
    *("--pwd_a,", "pwd :", "/pass:", "[" * 9 + "pwd", "- - - kind: Secret\n", "%pwd", "x\t" * 20 + "|\n"),
]
PLACES = [
    "   .. csv-table:: x\n   :header: password,b\n",
    *(
        "a:b1c2d3@h:11,",
        "@a:11",
        "{a}:b@{c}",
        "a:5432:b:c:d",
        "]:587 a:",
        "vault kv put a=",
        "create secret --from-literal=a=",
    ),
    *(
        "nmcli password ",
        "nmcli a.",
        "put-parameter --value ",
        "SecureString put-parameter ",
        "openssl passwd -a ",
        "curl -aaau ",
    ),
    *(
        "a b\n== ==\n",
        "== ==\npwd a\n",
        "\n-- --",
        "== " * 50 + "\n",
        ".. list-table::\n * - pwd\n   - a\n",
        ".. csv-table::\n",
    ),
    *(
        ".. list-table::\n",
        ".. csv-table::\n :header: pwd\n a\n",
        " * - a\n",
        "> |--|\n",
        "pwd: a[b]|c ",
        "pwd: a | b ? ",
    ),
    *(
        "pwd: {{ a ",
        'pwd: {{ a or "',
        "pwd string `a ",
        "pwd '''",
        "pwd='a''",
        "pwd=${1:-",
        'a, pwd = "b", "',
        "pwd: &a !b ",
    ),
    *(
        'pwd a="b"',
        '<pwd a="b" c="d"',
        "value: a name: pwd\n",
        "pwd {\n a { b }\n",
        "pwd {\n a {",
        'value="a" name="pwd" ',
        "pwd: {a,value:",
        "user_pwd, 'a:",
    ),
    *(
        "mnemonic ",
        "seed words a",
        "pwd, 'a', default",
        "pwd != '",
        "pwd eq '",
        "config set pwd ",
        "credentials={pwd:a,",
    ),
    *(
        "identified with ",
        "identified\n ",
        "IDENTIFIED WITH a\n\n",
        "pwd =\n ",
        "pwd =" + " " * 39,
        "pwd varchar(20) default ",
    ),
    *(
        "set password for a = ",
        "(a, pwd) = (",
        "a, pwd) = ('b',",
        "{{ pwd | default ",
        "authenticate(a,",
        "pwd)=",
        "pwd) =",
    ),
]
ATTACKS = [
    *(
        "chpasswd:\n list: |\n  a:bbbbb\n",
        "a:bbbb@tcp(",
        "@tcp(:aaaaaa",
        "create user a identified by ",
        "stats auth a:",
    ),
    *("passwd/a password ", "rabbitmqctl add_user ", "lftp -u a,", 'curl -u a:"', "PlainAuth(a,", "basic_auth a,"),
    *('.load(a, "b".toCharArray(', "create_user(a,", 'pwd" a="b"', '<pwd type="', "pwd=a;b,", "pwd=a,b;pwd="),
    *('pwd: String = String::from("', 'pwd").fill("', "set -x pwd ", 'pwd="{a[', 'pwd="' + "{Ab" * 60 + '" '),
    *('pwd="' + "aA1" * 60 + '[" ', 'pwd="' + "${a" * 60 + '" ', "phrase abandon ", "ParameterKey: pwd "),
]
FORMS = [
    *(
        'pwd="\\"',
        "pwd='\\\\",
        "pwd=`\"'",
        'pwd=\\"a',
        "auth=('a','",
        "creds=[a,",
        "snmpget -A ",
        "kubectl --from-literal=a=",
    ),
    *(
        "wpa_passphrase a ",
        "freerdp /p:",
        "pwd</a><b>",
        "<td>pwd</td>",
        "pwd | default('",
        "pwds=['[",
        "+====+\n|",
        ":pwd: ",
    ),
    *('resource "kubernetes_secret" {\n data = {\n', ' data = {\n  a = "b"\n'),
]
LENGTHS = {2**16: [*KINDS, *ATTACKS], 2**17: [*PLACES, *FORMS]}


@pytest.mark.parametrize(("length", "unit"), [(length, unit) for length, units in LENGTHS.items() for unit in units])
def test_each_takes_linear_time(length: int, unit: str) -> None:
    assert_linear(unit, length)
