"""Secrets and long lines that a later attack had found: passwords with any sign, common calls and commands."""

from __future__ import annotations

import random
import string
import time

import pytest

from c2llm_integrations.code.secrets import BLOT, without_secrets
from c2llm_integrations.code.secrets.tables import find_in_tables
from c2llm_integrations.code.secrets.values import is_generated
from tests.code.test_secrets import assert_blotted, assert_kept

pytestmark = pytest.mark.slow

PASSWORD = "hZ8!kq2Wn5tB"


@pytest.mark.parametrize(
    "unit", ["-- ", "--bs-blue:#0d6efd;|", "--|", "|--\n", "\n--|--", "a|b\n--|--x\n", "a|b\n--|--\n", " \t", "\n|-"]
)
@pytest.mark.parametrize("before", ["|", "a|pwd\n"])
def test_a_long_line_of_signs_is_read_once(before: str, unit: str) -> None:
    text = before + unit * (2**20 // len(unit))
    start = time.thread_time()
    assert not list(find_in_tables(text))
    assert time.thread_time() - start < 5  # a tenth of a second or so; the square of the length would take minutes


@pytest.mark.parametrize("rule", ["--|--", "|:--|--:|", "+----+----+", " -----+-----\r"])
def test_a_table_goes_on_below_its_rule(rule: str) -> None:
    assert_blotted(f"x\nuser | password\n{rule}\nme | <>\n", PASSWORD)


@pytest.mark.parametrize("rule", ["--", "-|-", "--|--x", "-" * 1100 + "|"])
def test_what_is_no_rule_of_a_table(rule: str) -> None:
    text = f"x\nuser | password\n{rule}\nme | {PASSWORD}\n"
    assert without_secrets(text, False) == text


SIGNS = {
    "python": "".join(set(string.punctuation) - set("\"'\\`")),
    "terraform": "!@#$%&*()-_=+[]{}<>:?",
    "aws": "!#$%&()*+,-./:;<=>?@[]^_{|}~",
    "keepass": "!#$%&*+-=?@^_.,;:/",
}


def generated(signs: str, length: int, count: int) -> list[str]:
    """Return passwords as a program draws them, the same in each run."""
    letters = string.ascii_letters + string.digits + "".join(sorted(signs))
    choose = random.Random(letters).choice
    return ["".join(choose(letters) for _ in range(length)) for _ in range(count)]


@pytest.mark.parametrize("length", [16, 20, 32])
@pytest.mark.parametrize("generator", SIGNS)
@pytest.mark.parametrize(
    ("line", "settings"),
    [
        *(('password: "<>"', True), ('password = "<>"', False), ('{"password": "<>"}', True)),
        *(("const dbPassword = '<>';", False), ('getConnection(url, "root", "<>");', False), ("db.password=<>", True)),
    ],
)
def test_a_generated_password_whatever_signs_it_has(line: str, settings: bool, generator: str, length: int) -> None:
    passwords = generated(SIGNS[generator], length, 600)
    clear = [one for one in passwords if one in without_secrets(line.replace("<>", one) + "\n", settings)]
    assert len(clear) < 0.05 * len(passwords), clear  # what has a template's form, or ends in what may end a value


@pytest.mark.parametrize(
    "value",
    [
        *("x7K<p2;mQ9[vLw4T", "{aQ2%kL9|wZ0", "/tR4>b,N8~cV", "kP3(q]W9$zR:", "%dF7gH2#jK1", "tY|uQ<oP{aS}d"),
        *("q7#kw2!mz9,r", "Q7#KW2!MZ9,R"),
    ],
)
def test_one_bracket_is_a_sign_like_any_other(value: str) -> None:
    assert is_generated(value)
    assert_blotted('password: "<>"', value, True)


@pytest.mark.parametrize(
    "value",
    [
        *("{{dbPass1}}", "${DB_Pass1}", "$(get-Pass1)", "<DB-Pass1>", "%(dbPass1)s", "[db:Pass1]", "#{@dbPass1}"),
        *("{err_msg[0]}:A", "[A-Z0-9a-z]{8,}", "(?=.*[a-z])(?=.*[A-Z])", "getUser1().Name2", "<%=Env1%>:A2"),
        *("user+1:a+b", "bm90IG15IHJlYWwgcGFzc3dvcmQ=", "Form.User.Pass.Field1", "%s:%S/1", "s3://Bucket1/A2"),
        *("/properties/UserPoolId", "./src/Pass/User.Form1", "Config::App::Pass.User1"),
    ],
)
def test_templates_patterns_and_names_are_not_generated(value: str) -> None:
    assert not is_generated(value)


@pytest.mark.parametrize(
    "line", ["pwd_conn=user=me;password=<>", "credentials=user=me,password=<>", "password: <>, user: me"]
)
def test_a_value_with_names_in_it_is_read_on(line: str) -> None:
    assert_blotted(line, PASSWORD, True)


@pytest.mark.parametrize(
    ("line", "settings"),
    [
        *(('var dsn = "root:<>@tcp(db:3306)/app?parseTime=true"', False), ("DSN=root:<>@tcp(db)/x", False)),
        *(('smtp.PlainAuth("", "me@x.com", "<>", "smtp.x.com")', False), ("http.basic_auth 'bob', '<>'", False)),
        *(('Credentials.basic("bob", "<>")', False), ('a.withUser("u").password("{noop}<>");', False)),
        *(('store.load(in, "<>".toCharArray());', False), ('let password = String::from("<>");', False)),
        *(('let password: String = String::from("<>");', False), ("createUser(a, 'me', 'x', password='<>')", False)),
        *(("find(By.ID, 'password').send_keys('<>')", False), ("getByLabel('Password').fill('<>')", False)),
        *(("signInWithEmailAndPassword(auth, 'a@x.com', '<>')", False), ("create_superuser('a', 'b', '<>')", False)),
        *(('CREATE USER scott IDENTIFIED BY "<>";', False), ("ALTER USER scott IDENTIFIED BY <>;", False)),
        *(('<setting name="Password" serializeAs="String">\n  <value><></value>', True),),
        *(('<wsse:Password Type="PasswordText"><></wsse:Password>', True),),
        *(('[{"ParameterKey": "DBPassword", "ParameterValue": "<>"}]', True),),
        *(("listen stats\n  stats auth admin:<>", True), ("rootpw --plaintext <>", True)),
        *(("d-i passwd/root-password password <>", True), ("chpasswd:\n  list: |\n    root:<>\n", True)),
        *(("chpasswd:\n  expire: false\n  list:\n    - 'me:<>'\n", True), ("set -x DB_PASSWORD <>", False)),
        *(("curl --user bob:'<>' https://x", False), ("rabbitmqctl add_user bob '<>'", False)),
        *(("rabbitmqctl -n a@b change_password bob <>", False), ("lftp -u bob,'<>' h", False)),
        *(("cqlsh -u cassandra -p <>", False), ("htpasswd -bc f me '<>'", False), ("net user me '<>' /add", False)),
        *(("ftp_login($c, 'bob', '<>');", False), ('userManager.CreateAsync(user, "<>");', False)),
        *(("keyring.set_password('svc', 'bob', '<>')", False), ("get('input[name=password]').type('<>')", False)),
    ],
)
def test_common_forms(line: str, settings: bool) -> None:
    assert_blotted(line, PASSWORD, settings)


@pytest.mark.parametrize(
    ("line", "settings"),
    [
        *(("sshpass -p '<>' ssh host", False), ('mysql -u root -p"<>" db', False)),
        *(("rabbitmqctl add_user bob '<>'", False), ('{"ParameterKey": "Password", "ParameterValue": "<>"}', True)),
        *(('store.load(in, "<>".toCharArray());', False), ('{"name": "DB_PASSWORD", "value": "<>"}', True)),
    ],
)
def test_a_password_with_any_sign_in_these_forms(line: str, settings: bool) -> None:
    assert_blotted(line, "x7K<p2;mQ9[vLw4T", settings)


def test_each_user_of_a_list_is_replaced() -> None:
    text = "chpasswd:\n  list: |\n" + f"    user:{PASSWORD}\n" * 8 + "users:\n  - me:a1b2c3d4\n"
    assert without_secrets(text, True) == text.replace(PASSWORD, BLOT)


@pytest.mark.parametrize(
    "text",
    [
        *("The user is identified by sha256 or id42.", 'keys.load(in, "v1.2-beta")', "http.basic_auth user, name2"),
        *("stats auth is on since v1.8", "users:\n  list: |\n    root:a1b2c3d4\n", "create_user(a, b, '{user_1}')"),
        *(
            "d-i passwd/user-fullname string me2",
            "oauth2client1: oauth2Client<1.5dev>",
            '<setting name="Password" type="String"><value></value>',
        ),
    ],
)
def test_what_only_resembles_these_forms_stays(text: str) -> None:
    assert_kept(text)
