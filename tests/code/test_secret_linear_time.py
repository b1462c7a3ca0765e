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
]


@pytest.mark.parametrize("unit", KINDS)
def test_each_kind_takes_linear_time(unit: str) -> None:
    assert_linear(unit, 2**16)


@pytest.mark.parametrize("unit", PLACES)
def test_each_place_takes_linear_time(unit: str) -> None:
    assert_linear(unit, 2**17)
