from __future__ import annotations

import random
import re
import string
import time
from base64 import b64encode
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2llm_integrations.code import exclude
from c2llm_integrations.code.repository import iter_sources, open_tree
from c2llm_integrations.code.secrets import BLOT, find_secrets, is_token, named, without_secrets
from c2llm_integrations.code.secrets.bare import IN_SETTINGS
from tests.work import calls

LETTERS = string.ascii_letters + string.digits


def drawn(length: int, letters: str = LETTERS) -> str:
    return "".join(random.Random(length).choices(letters, k=length))


@pytest.mark.parametrize(
    ("line", "secret"),
    [
        ("clone https://bot:{}@git.acme-corp.io/o/r", "Sup3rSecret!2023"),
        ("db_password: {}", "fakeNewsKq92"),
        ('string password = @"{}";', "Zx7Kq93mQ!pL2v"),
        ('string Password {{ get; set; }} = "{}";', "Zx7Kq93mQ!pL2v"),
        ('Dim password As String = "{}"', "Zx7Kq93mQ!pL2v"),
        ('const PASSWORD: &str = "{}";', "Zx7Kq93mQ!pL2v"),
        ('password <- "{}"', "Zx7Kq93mQ!pL2v"),
        ("const p = process.env.DB_PASSWORD || '{}';", "Zx7Kq93mQ!pL2v"),
        ("ALTER LOGIN sa WITH PASSWORD = N'{}';", "Zx7Kq93mQ!pL2v"),
        ('storePassword "{}"', "Zx7Kq93mQ!pL2v"),
        ('PASSWORD = """{}"""', "Zx7Kq93mQ!pL2v"),
    ],
)
def test_forms_that_a_fresh_attack_found(line: str, secret: str) -> None:
    settings = line.startswith("db_")
    assert without_secrets(line.format(secret), settings) == line.format(BLOT)


@pytest.mark.parametrize(
    "line",
    [
        'password = "P@ssw0rd123"',
        "https://user:secret123@example.org",
        'password = "your-Passw0rd-42x9"',
        'password = "secret-key-for-tests-2023"',
        "token = 'test_token_1234567'",
    ],
)
def test_what_stands_where_a_password_will_be_is_none(line: str) -> None:
    assert without_secrets(line, False) == line


@pytest.mark.parametrize(
    ("line", "secret"),
    [
        ("x = 'AKIA{}'", drawn(16, string.ascii_uppercase)),
        ("x = 'ghp_{}'", drawn(36)),
        ("login('hf_{}')", drawn(34)),
        ("git clone https://x-access-token:{}@github.com/a/b", drawn(40)),
        ("x = 'xoxb-123456789012-{}'", drawn(24)),
        ("x = 'sk-ant-api03-{}'", drawn(90)),
        ("stripe.api_key = 'sk_live_{}'", drawn(24)),
        ("x = 'AIza{}'", drawn(35)),
        ("x = 'eyJhbGciOiJIUzI1NiIsInR5cCI6IkpXVCJ9.eyJ{}.b7K2mQ9xT4vL8nR3sW6yZ1cD5fG0hJ'", drawn(40)),
        ("aws_secret_access_key = '{}'", drawn(41)),
        ("curl -H 'Authorization: Bearer {}' example.org", drawn(42)),
        ("url = 'postgres://admin:{}@db.internal:5432/prod'", "hunt3rX9"),
        ('c = "Server=db;User Id=sa;Password={};"', "Zx9kkd22"),
        ("$password = '{}';", "Zk29dl!Xq"),
    ],
)
def test_a_secret_in_code_is_blotted_out_and_lines_stay(line: str, secret: str) -> None:
    text = f"def kept():\n    {line.format(secret)}\n\nlast = 1\n"
    clean = without_secrets(text, settings=False)
    assert BLOT in clean
    assert secret not in clean
    assert clean.startswith("def kept():\n")
    assert clean.endswith("\n\nlast = 1\n")


def assert_blotted(line: str, secret: str, settings: bool = False) -> None:
    text = f"def kept():\n    {line.replace('<>', secret)}\n\nlast = 1\n"
    clean = without_secrets(text, settings)
    assert secret not in clean, line
    assert clean.startswith("def kept():\n")
    assert clean.endswith("\n\nlast = 1\n")


def assert_kept(text: str) -> None:
    for settings in (True, False):
        assert without_secrets(text, settings) == text


def assert_linear(unit: str, length: int) -> None:
    text = unit * (length // len(unit))
    start = time.thread_time()
    for settings in (True, False):
        assert len(without_secrets(text, settings)) > 0
    assert time.thread_time() - start < 10  # it takes a tenth of a second; the square of the length would take minutes


UUID = "3f2b8c1e-9d4a-4c7b-8e6f-5a1d2c3b4e7f"


@pytest.mark.parametrize(
    "line",
    [
        "https://<>@github.com/a/b",
        "pip install git+https://<>:x-oauth-basic@host/a",
        "url = 'https://<>@o1.ingest.io/2'",
    ],
)
@pytest.mark.parametrize(
    "token", [drawn(40), drawn(40, "0123456789abcdef"), drawn(52, "abcdefghijklmnopqrstuvwxyz234567")]
)
def test_a_token_as_the_user_of_a_url(line: str, token: str) -> None:
    assert_blotted(line, token)


@pytest.mark.parametrize("password", ["p%40ssX9%2Fx", "p%40ss", "Zk%239dl%24a", "k9%21mqz", "n%3A0n%25e4"])
@pytest.mark.parametrize("scheme", ["postgres", "amqps", "mongodb+srv", "http"])
def test_an_escaped_password_in_a_url(scheme: str, password: str) -> None:
    assert_blotted(f"{scheme}://admin:<>@db.internal/x", password)


@pytest.mark.parametrize(
    "line",
    [
        *(
            "curl -u admin:<> https://host",
            "curl -sS --user 'me@corp.com:<>' https://host",
            'run(["curl", "-u", "me:<>"])',
        ),
        *("curl -X POST \\\n    -u me:<> \\\n    https://host", "http -a me:<> GET host", "wget --password=<> host"),
        *(
            "wget --http-password <> host",
            "mysql -uroot -p<> db",
            "mysqldump -u root -p'<>' db",
            "sshpass -p <> ssh host",
        ),
        *(
            "docker login -u me -p <> host",
            "redis-cli -a <> ping",
            "openssl enc -pass pass:<> -in a",
            "zip -P <> a.zip b",
        ),
        *(
            "keytool -list -storepass <>",
            "smbclient -U me%<> //host/a",
            "ldapsearch -D cn=me -w <>",
            "gpg --passphrase <>",
        ),
        *("java -Dspring.datasource.password=<> -jar a", "kubectl create secret generic a --from-literal=password=<>"),
        *("machine host login me password <>", "CREATE USER me IDENTIFIED BY '<>';", "ALTER ROLE me PASSWORD '<>';"),
        *("machine host\n  login me\n  password <>", "machine host\n\tlogin\tme\n\tpassword\t<>", "bindpw <>"),
    ],
)
def test_a_password_of_a_command(line: str) -> None:
    assert_blotted(line, "hunt3rX9")


@pytest.mark.parametrize(
    "line",
    [
        *("export PGPASSWORD=<>", "MYSQL_PWD=<> mysql -u root", "export SSHPASS=<>", "docker run -e DB_PASSWORD=<> a"),
        *("db_password=<>", "set RABBIT_PASS=<>", "  - REDIS_PASSWORD=<>", "ENV ADMIN_PASSWORD <>", "password: <>"),
        *(
            "host1 ansible_user=me ansible_ssh_pass=<>",
            '#define WIFI_PASSWORD "<>"',
            "jdbc:mysql://h/a?user=me&password=<>",
        ),
    ],
)
def test_a_password_in_the_environment_or_on_a_line_of_its_own(line: str) -> None:
    assert_blotted(line, "hunt3rX9")


@pytest.mark.parametrize(
    "line", ["aws_secret_access_key = <>", "api_token: <>", "client-secret = <>", "AccountName=a;AccountKey=<>;B=c"]
)
@pytest.mark.parametrize("key", [drawn(40), drawn(41, LETTERS + "/+"), UUID, drawn(30, LETTERS[:26] + "0123456789")])
def test_a_key_without_quotes(line: str, key: str) -> None:
    assert_blotted(line, key)


@pytest.mark.parametrize("key", [UUID, UUID.upper(), drawn(18), drawn(24, LETTERS[:26] + "0123456789")])
@pytest.mark.parametrize("name", ["api_key", "clientSecret", '"access-token"', "auth_key"])
def test_a_key_in_quotes(name: str, key: str) -> None:
    assert_blotted(f'{name} = "<>"', key)


@pytest.mark.parametrize("password", ["hunter2hunter9", "winter2019", "kitty77cat", "P@$5w1rd!9x"])
@pytest.mark.parametrize(
    "line",
    [
        *('password = "<>"', "password: str = '<>'", 'const dbPass = "<>";', 'setPassword("<>")', '("password", "<>")'),
        *(
            '{"user": "me", "password": "<>"}',
            'a = "{\\"passwd\\": \\"<>\\"}"',
            "if pwd == '<>':",
            "'passphrase' => '<>',",
        ),
    ],
)
def test_a_typed_password_in_quotes(line: str, password: str) -> None:
    assert_blotted(line, password)


@pytest.mark.parametrize(
    "line",
    [
        *('c = "Password=<>;Server=a"', '"Server=a;Pwd=<>"', 'c = "host=a user=me password=<> dbname=b"'),
        *("get(url, auth=('me', '<>'))", "smtp.login('me@corp.com', '<>')", "ConvertTo-SecureString '<>' -AsPlainText"),
    ],
)
def test_a_password_of_a_connection(line: str) -> None:
    assert_blotted(line, "winter2019")


@pytest.mark.parametrize("begin", [f"ghp_{drawn(36)}", f"AIza{drawn(35)}", f"npm_{drawn(36)}"])
def test_a_token_that_a_longer_secret_begins_with(begin: str) -> None:
    assert "Xk29tail" not in without_secrets(f"password = '{begin}/Xk29tail'\n", settings=False)


@pytest.mark.parametrize("login", ["admin:hunter2", "me:winter2019", "svc:k9!mqz"])
@pytest.mark.parametrize("line", ["Authorization: Basic <>", '{"auths": {"a": {"auth": "<>"}}}', "//host/:_auth=<>"])
def test_a_login_in_base64(line: str, login: str) -> None:
    assert_blotted(line, b64encode(login.encode()).decode())


@pytest.mark.parametrize(
    "token",
    [
        *(
            f"gloas-{drawn(40)}",
            f"aB18Q~{drawn(34)}",
            f"{drawn(52)}JQQJ99{drawn(18)}AZDO{drawn(4)}",
            f"nvapi-{drawn(64)}",
        ),
        *(
            f"pat-eu1-{UUID}",
            f"pul-{drawn(40, '0123456789abcdef')}",
            f"dckr_oat_{drawn(32)}",
            f"{drawn(76)}+ASt{drawn(6)}==",
        ),
    ],
)
def test_a_token_by_its_issuer(token: str) -> None:
    assert_blotted("x = '<>'", token)
    assert is_token(token)


@pytest.mark.parametrize(
    "line",
    [
        "DB_PASSWORD=Tr0ub4dor3x",
        '"password": "Tr0ub4dor3x"',
        "<password>Tr0ub4dor3x</password>",
        "storePassword: Tr0ub4dor3x",
        "- name: DB_PASSWORD\n  value: Tr0ub4dor3x",
        "- name: DB_PASSWORD\n  value: 'Tr0ub4dor3x'\n",
        '{"key": "password", "value": "Tr0ub4dor3x"}',
        '{\n      "key": "adminPassword",\n      "value": "Tr0ub4dor3x"\n}',
        'variable "db_password" {\n  default = "Tr0ub4dor3x"\n}',
    ],
)
def test_settings_need_no_quotes(line: str) -> None:
    assert "Tr0ub4dor3x" not in without_secrets(line, settings=True)


@pytest.mark.parametrize("number", ["d", "p", "dp", "qi", "k"])
def test_the_private_numbers_of_a_web_key(number: str) -> None:
    public = f'{{"kty": "RSA", "e": "AQAB", "n": "{drawn(342)}"'
    assert without_secrets(f'{public}, "{number}": "{drawn(43)}"}}', settings=True) == (
        f'{public}, "{number}": "{BLOT}"}}'
    )


@pytest.mark.parametrize(
    "line",
    [
        "password = get_password()",
        "api_key = os.environ['API_KEY']",
        "password: ${DB_PASSWORD}",
        "postgres://user:password@localhost/db",
        "x = 'AKIAIOSFODNN7EXAMPLE'",
        f"sha256 = '{drawn(64, '0123456789abcdef')}'",
        "ghp_xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx",
        "token: V1LocalObjectReference = google_oauth2_credentials",
        "secret_name = 'projects/my-project/secrets/db-1'",
        "curl -u $NAME:$PASS1 host; curl -u user:password1 host; curl https://host:8080/a",
        "mysql -u root -p db1; mysql -p3306; docker run -p 8080:8080 a; ssh -p 2222 me@host",
        "export PASSWORD=$1; PGPASSWORD=${DB_PASS1} psql; PASSWORD=/run/secrets/db1 a",
        "git+https://git@host/a; https://me@host/a; https://host/a@v1.2.3; postgres://%s:%s@host",
        "api_key='xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx' or '00000000-0000-0000-0000-000000000000'",
        "password = self.password1; password = getpass('Password 1: '); password=password1",
        "password = models.CharField(max_length=128)",
        "def login(password: str = 'changeme1', token: Optional[str] = None): ...",
        "pass_name = 'b2b_gemm_pass'; bypass='crc16x25'; passwordPolicy: NIST800-63b; secretRef: db-v2",
        '"password", "scram-sha-256", "HTTPPasswordMgr", "urllib2"',
        "#define GL_STENCIL_PASS_DEPTH_PASS 0x0B96",
        "self.embed_tokens = M2M100ScaledWordEmbedding(",
        "Authorization: Basic dXNlcm5hbWU6cGFzc3dvcmQ=",
        "auth: oauth2; auth_type = 'sha256'; tokenizer_class: Qwen2Tokenizer",
        "- name: DB_PASSWORD\n  valueFrom: {secretKeyRef: {name: db-v2, key: pass2}}",
        '{"name": "token_type", "value": "Bearer2"}; - name: PASSWORD_FILE\n  value: /run/secrets/db1',
    ],
)
def test_what_is_no_secret_stays(line: str) -> None:
    assert without_secrets(line, settings=True) == line


@pytest.mark.slow
@pytest.mark.parametrize(
    "unit",
    [
        *("eyJ-", "pwd=", "pwd='a", "://a:bbbbb", "semi;pwd=aaa", "curl -u ", "sig=%", "auth=('a', "),
        *(
            "key: pwd ",
            'variable pwd"{',
            "pass=${",
            "passwords:\n- a\n",
            "secret=[",
            "mnemonic: abc ",
            "://{a}",
            "$6$a$",
        ),
        *(
            "sqlplus a/",
            "passwords:\n- a #\n",
            "tokens = ['a', ",
            "getConnection(a,a,",
            "pass') || ",
            "a:A1bcdefghijkl\n",
        ),
        *(
            "otpauth://?",
            "pwd=q{",
            "pwds=%w[a ",
            "pwds={a:b,",
            "pwds:\n a: b\n",
            "key 7 0",
            "username a role b ",
            "com2sec a ",
        ),
        *("snmp-server host a ", "radius-server ", 'x-key "$9$', "pwd", "tokentoken"),
    ],
)
def test_many_beginnings_come_to_an_end(unit: str) -> None:
    assert len(without_secrets(unit * (2**18 // len(unit)), settings=True)) > 0


@pytest.mark.parametrize(
    "pattern",
    [
        named._QUOTED,
        named._OTHER_QUOTES,
        named._SECOND,
        *(form.after for form in IN_SETTINGS if "(?=(" in form.after.pattern),
    ],
)
@given(
    st.sampled_from(["", ":", "=", " = ", " := ", "s=", "[0]: "]),
    st.sampled_from(["", '"', "'"]),
    st.lists(st.sampled_from([*"aZ9_=.%-+/:;,\"' (<&|\\\n\t!", "abcDEF12", "a" * 190, "b" * 390]), max_size=12),
)
def test_a_value_that_is_taken_as_a_whole_is_the_one_that_fits(pattern, between, quote, value):
    tried = re.compile(re.sub(r"\(\?=(\(.*?\))\)\\\d", r"\1", pattern.pattern), pattern.flags)
    assert tried.pattern != pattern.pattern
    text = between + quote + "".join(value)
    found, wanted = pattern.match(text), tried.match(text)
    assert (found and found.span(found.lastindex)) == (wanted and wanted.span(wanted.lastindex))


@given(st.sampled_from(["sig=", "token=", "pass=", "secret%", "PWD=a/", "auth+"]), st.integers(451, 700), st.booleans())
def test_in_a_line_of_data_no_value_is_missed(unit, size, quoted):
    line = (unit * size)[:size]
    end = ("'" if quoted else "") + " token = 'q7Rk2Wd9Lm4Xc8Vb3Nz6'"
    with_rest = [(start, stop) for start, stop in find_secrets(line + end, False) if stop <= size]
    assert with_rest == [(start, stop) for start, stop in every_rule(line + end) if stop <= size]
    assert BLOT in without_secrets(line + end, False)


def every_rule(text):
    """Yield what is found where no line is taken for data."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(named, "_DATA", re.compile(r"(?!)"))
        yield from list(find_secrets(text, False))


def test_a_word_in_a_line_of_data_costs_few_attempts():
    assert calls(list, find_secrets("token=" * 10_000, False)) < 15 * 10_000


@pytest.mark.parametrize("unit", ["pwd", "token", "api_key", "secret"])
def test_a_word_in_one_long_name_costs_few_attempts(unit: str) -> None:
    count = 10_000
    assert calls(list, find_secrets(unit * count, True)) < 5 * count
    assert BLOT in without_secrets(unit * 3 + " = 'q7Rk2Wd9Lm4Xc8Vb3Nz6'", False)


def test_a_tree_names_what_it_blots_and_gives_all_when_told_to(tmp_path: Path) -> None:
    token = f"ghp_{drawn(36)}"
    (tmp_path / "a.py").write_text(f"def one():\n    return '{token}'\n")
    (tmp_path / ".env").write_text("A=1\n")
    tree = open_tree(tmp_path)
    for _ in range(2):
        (source,) = iter_sources(tree)
        assert token not in source.text
        assert tree.skipped == {exclude.REDACTED: ["a.py"], exclude.SECRET: [".env"]}
    everything = open_tree(tmp_path, include_secrets=True)
    assert [source.path for source in iter_sources(everything)] == [".env", "a.py"]
    assert token in list(iter_sources(everything))[1].text
    assert everything.skipped == {}
