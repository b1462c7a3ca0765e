"""Secrets that an attack on the first rules had found: each kind with values that no rule was written for."""

from __future__ import annotations

import pytest

from c2llm_integrations.code.secrets import BLOT, without_secrets
from tests.code.test_secrets import LETTERS, assert_blotted, assert_kept, drawn

DRAWN_LETTERS = ["kqzvtwmxhp", "bXtQwLzKvp", "zgmqxrvtkd", "fJqWvkXzTb"]


@pytest.mark.parametrize("password", DRAWN_LETTERS)
@pytest.mark.parametrize(
    ("line", "settings"),
    [
        *(("postgres://app:<>@db.prod:5432/x", False), ("redis://:<>@cache:6379/0", False)),
        *(("db_password: <>", True), ("spring.rabbitmq.password=<>", True), ('"passwd": "<>"', True)),
        *(('c = "Server=db;Uid=sa;Pwd=<>;"', False), ("MYSQL_ROOT_PASSWORD=<>", False), ('pass = "<>"', False)),
    ],
)
def test_a_password_of_letters_that_are_no_word(line, settings, password):
    assert_blotted(line, password, settings)


@pytest.mark.parametrize(
    ("line", "password", "settings"),
    [
        ("mysql://app:lighthouse@db/x", "lighthouse", False),
        ('"Data Source=h;Password=wintergarden;"', "wintergarden", False),
        ("host=h user=u password=bluebirds dbname=d", "bluebirds", False),
        ("password: purplemonkeydishwasher", "purplemonkeydishwasher", True),
        ("passphrase = copper-violin-meadow-frost", "copper-violin-meadow-frost", True),
    ],
)
def test_a_password_of_words_where_nothing_else_can_stand(line, password, settings):
    assert_blotted(line.replace(password, "<>"), password, settings)


@pytest.mark.parametrize("key", ["m4x8q1z7t2", "4be91f07ac2d", "Q7w2Er9t4Yu1", "ab12-cd34-ef56-78"])
@pytest.mark.parametrize(
    ("line", "settings"),
    [
        *(('api_key = "<>"', False), ("masterKey: '<>'", False), ("curl -H 'X-Auth-Key: <>' host", False)),
        *(("https://host/v1?apikey=<>&q=1", False), ("app.license-key=<>", True), ('("service_key", "<>")', False)),
    ],
)
def test_a_short_key_that_is_called_one(line, settings, key):
    assert_blotted(line, key, settings)


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        *(("passwords:\n  - <>\n", True), ("db_passwords: # two\n# old\n- other\n- '<>'\n", True)),
        *(('"passwords": ["first", "<>"]', True), ("passwd: [one, <>]", True), ('passwords = {"<>"}', False)),
        *(("const passwords = [\n  'one',\n  '<>',\n];", False), ('passwords := []string{"<>"}', False)),
        ('passwords = List.of("one", "<>")', False),
    ],
)
def test_each_element_of_a_list_of_secrets(text, settings):
    assert_blotted(text, "Wn7dq4Rt2x", settings)


def test_all_keys_of_a_list_are_blotted():
    text = "api_keys:\n" + "".join(f"  - {drawn(20 + number)}\n" for number in range(5)) + "other: 1\n"
    assert without_secrets(text, True) == "api_keys:\n" + f"  - {BLOT}\n" * 5 + "other: 1\n"


@pytest.mark.parametrize("password", ["Wn7dq4Rt2x", "kqzvtwmxhp"])
@pytest.mark.parametrize(
    "line",
    [
        *("jdbc:oracle:thin:app/<>@//db:1521/XE", "jdbc:oracle:oci8:hr/<>@tns", "rman target sys/<>@prod"),
        *("sqlplus -S app/<>@db/x", "impdp hr/<>@prod directory=d", "oracledb.connect('app/<>@db')"),
    ],
)
def test_a_password_of_oracle(line, password):
    assert_blotted(line, password)


@pytest.mark.parametrize("password", ["Wn7dq4Rt2x", "kqzvtwmxhp"])
@pytest.mark.parametrize(
    "user", ["{user}", "$DB_USER", "${DB_USER}", "%s", "%(user)s", "#{user}", "{{ user }}", "<user>", "' + user + '"]
)
def test_a_password_in_a_url_whose_user_is_a_variable(user, password):
    assert_blotted(f"u = f'amqp://{user}:<>@mq.internal/x'", password)


@pytest.mark.parametrize(
    "line",
    [
        *("x=${DB_PASSWORD:-<>}", "x=${REDIS_PASS=<>}", '@Value("${mail.password:<>}")', "p: ${env:SMTP_PASSWORD:<>}"),
        *('getenv("DB_PASSWORD") ?: "<>"', "os.getenv('DB_PASSWORD') or '<>'", "ENV['DB_PASSWORD'] || '<>'"),
        *('env::var("DB_PASSWORD").unwrap_or_else(|_| "<>".into())', "ENV.fetch('SMTP_PASSWORD') { '<>' }"),
        *("config.get('password', default='<>')", "password: \"{{ env('DB_PASSWORD') | default('<>') }}\""),
    ],
)
@pytest.mark.parametrize("settings", [True, False])
def test_what_a_password_is_if_it_is_not_set(line, settings):
    assert_blotted(line, "Wn7dq4Rt2x", settings)


CRYPT = drawn(86, LETTERS + "./")


@pytest.mark.parametrize(
    "stored",
    [
        *(f"$6$s7Vw2xQ9${CRYPT}", f"$5$rounds=5000$s7Vw2xQ9${CRYPT[:43]}"),
        *(f"$y$j9T$Xq7Ld2w${CRYPT[:43]}", f"$2b$12${CRYPT[:53]}", f"$apr1$s7Vw2xQ9${CRYPT[:22]}"),
        *(
            f"{{SSHA}}{CRYPT[:38].replace('.', 'A')}==",
            f"$argon2id$v=19$m=65536,t=3,p=4${CRYPT[:22]}${CRYPT[22:65]}".replace(".", "A"),
        ),
        f"$pbkdf2-sha256$29000${CRYPT[:22]}${CRYPT[22:65]}",
    ],
)
@pytest.mark.parametrize("line", ["root:<>:19000:0:99999:7:::", "me@corp.com:<>", "password_hash: '<>'"])
def test_a_stored_password(line, stored):
    assert_blotted(line, stored)


@pytest.mark.parametrize(
    ("line", "settings"),
    [
        *(('secret_url: "https://h/?password=<>&x=1"', False), ("basic_auth: {user: me, password: <>}", True)),
        *(("auth: {password: <>, user: me}", True), ("session.auth = ('me', '<>')", False)),
        *(('psk="<>"', False), ("wpa_passphrase=<>", False), ("wifi_psk: <>", True), ("preSharedKey = '<>'", False)),
        *(("pw: <>", True), ("DB_PW=<>", False), ("userPw = '<>'", False), ('setPasscode("<>")', False)),
        *(("requirepass <>", False), ('new NetworkCredential("me", "<>")', False)),
        *(('buildConfigField "String", "DB_PASSWORD", "\\"<>\\""', False), ("define('DB_PASSWORD', '<>');", False)),
        *(("buildConfigField 'String', 'DB_PASSWORD', '\"<>\"'", False), ('{:password "<>"}', False)),
        *(('config :app, Repo, password: "<>"', False), ('{password, "<>"}', False), ('std::string pw{"<>"};', False)),
        *(('char pass[] = "<>";', False), ('password = String.valueOf("<>")', False), ('pw.equals("<>")', False)),
        *(('let pw = Some("<>".to_string());', False), ('DriverManager.getConnection(url, "me", "<>")', False)),
    ],
)
def test_more_names_and_forms(line, settings):
    assert_blotted(line, "Wn7dq4Rt2x", settings)


@pytest.mark.parametrize("name", ["master", "app", "shared", "session", "subscription", "storage", "jwt", "functions"])
@pytest.mark.parametrize("line", ["{}_key = '<>'", '"{}Key": "<>"', "{}-key: <>", "{}Key=<>;Endpoint=x"])
def test_what_a_key_is_for(line, name):
    assert_blotted(line.format(name), drawn(40))


@pytest.mark.parametrize("count", [12, 15, 24])
@pytest.mark.parametrize("line", ['mnemonic = "<>"', "Seed phrase: <>", "RECOVERY_PHRASE='<>'", "wallet.mnemonic=<>"])
def test_the_words_of_a_wallet(line, count):
    words = "pelican marble orbit velvet sugar canyon lantern thumb rocket olive banjo fossil tiger wagon quilt "
    words += "hammer ivory jungle kitten lemon mango noble ocean pepper"
    assert_blotted(line, " ".join(words.split()[:count]))


@pytest.mark.parametrize("seed", ["HXDMVJECJJWSRBYH", "JBSWY3DPEHPK3PXQ", "gezdgnbvgy3tqojqgezdgnbv"])
@pytest.mark.parametrize(
    "uri", ["otpauth://totp/A:me@corp.com?secret=<>&issuer=A", "otpauth://hotp/A?issuer=A&secret=<>"]
)
def test_the_seed_of_one_time_passwords(uri, seed):
    assert_blotted(f'qr("{uri}")', seed)
    assert_blotted("x: otpauth-migration://offline?data=<>", f"{seed}{seed}%3D%3D")


@pytest.mark.parametrize("indent", ["", " "])
@pytest.mark.parametrize(
    "line",
    [
        *("snmp-server community <> RO", "snmp-server host 10.0.0.1 version 2c <>", "rocommunity <> 10.0.0.0/8"),
        *("com2sec local default <>", "set snmp community <> authorization read-only", "enable password <>"),
        *("enable secret level 15 0 <>", "username me password <>", "username me privilege 15 secret 0 <>"),
        *("tacacs-server host 10.0.0.1 key <>", "radius-server key <>", "crypto isakmp key <> address 0.0.0.0"),
        *("neighbor 10.0.0.1 password <>", "ppp chap password <>", "key-string 0 <>"),
    ],
)
def test_what_devices_of_a_network_log_in_with(line, indent):
    begin = f"hostname r1\n!\n{indent}"
    for settings in (True, False):
        assert without_secrets(begin + line.replace("<>", "Wn7dq4Rt2x"), settings) == begin + line.replace("<>", BLOT)


@pytest.mark.parametrize(
    ("line", "stored"),
    [
        *(("username me password 7 <>", "0822455D0A16544541"), ("server-private x key 7 <>", "13061E010803")),
        ("enable secret 4 <>", CRYPT[:43]),
        *(
            ("enable secret 9 <>", f"$9${CRYPT[:14]}${CRYPT[:43]}"),
            ("enable secret 8 <>", f"$8${CRYPT[:14]}${CRYPT[:43]}"),
        ),
        *(('authentication-key "<>";', "$9$aBcD3fGhIjK"), ('pre-shared-key ascii-text "<>";', "$9$aBcD3fGhIjK")),
    ],
)
def test_how_devices_of_a_network_store_passwords(line, stored):
    assert_blotted(line, stored)


@pytest.mark.parametrize(
    ("text", "settings"),
    [
        *(
            ("passwords:\n      alice: Kd8fj3Lq9z\n  # new\n      bob: '<>'\n", True),
            ("PASSWORDS:\n      a: <> # b\n", True),
        ),
        *(('"passwords": {"a": "Kd8fj3Lq9z", "b": "<>"}', True), ("passwords: {a: Kd8fj3Lq9z, b: <>}", True)),
        *(('PASSWORDS = {\n  "a": "Kd8fj3Lq9z",\n  "b": "<>",\n}', False), ("passwords = {'a' => '<>'}", False)),
        *(('passwords := map[string]string{"a": "<>"}', False), ('passwords = Map.of("a", "<>")', False)),
        *(("passwords = %w[Kd8fj3Lq9z <>]", False), ("my @passwords = qw(Kd8fj3Lq9z <>);", False)),
    ],
)
def test_each_password_of_a_mapping_or_a_list_of_words(text, settings):
    assert_blotted(text, "Wn7dq4Rt2x", settings)
    assert "Kd8fj3Lq9z" not in without_secrets(text, settings)


@pytest.mark.parametrize("name", ["secrets", "credentials", "api_tokens"])
def test_each_key_of_a_mapping(name):
    text = f"{name}:\n" + "".join(f"  k{number}: {drawn(20 + number)}\n" for number in range(5)) + "other: 1\n"
    clean = f"{name}:\n" + "".join(f"  k{number}: {BLOT}\n" for number in range(5)) + "other: 1\n"
    assert without_secrets(text, True) == clean


@pytest.mark.parametrize("line", ["$password = q{<>};", "my $pw = qq(<>);", "password => q|<>|,", "PASSWORD = %q[<>]"])
def test_a_password_in_the_quotes_of_perl_and_ruby(line):
    assert_blotted(line, "Wn7dq4Rt2x")


@pytest.mark.parametrize("token", ["x7Qp2kLm", "a1b2c3d4", "tok3n99x4", "9f3k2m8z1q7w"])
@pytest.mark.parametrize("line", ['token = "<>"', "auth_token: '<>'", 'TOKEN="<>"', '"token": "<>"'])
def test_a_short_token_in_quotes(line, token):
    assert_blotted(line, token)


@pytest.mark.parametrize(
    "line",
    [
        "snmp-server community public RO\nsnmp-server community <name> ro\nrocommunity public\nenable secret WORD",
        "the key 7 00000; password 7 times; a secret 5 of them; key 0 is first\nenable password encryption",
        "otpauth://totp/A?secret=BASE32SECRETYOUREXAMPLE&issuer=A; otpauth://totp/A?secret={seed}&issuer=A",
        "secrets:\n  db_password:\n    file: ./db_password.txt\n  app: app-secret-v2\n  token: ${{ secrets.TOKEN }}\n",
        "app:\n  secrets:\n    a: b\n  image: 7f3a9c2e5b8d1f4a6c0e\n  secrets:\n  image: 7f3a9c2e5b8d1f4a6c0e\n",
        "credentials:\n  provider: vault\n  region: us-east-1\npasswords:\n  length: 16\n  policy: strong\n",
        "token = 'utf8mb4x'; token = 'int32'; token = 'iso8601x'; token = 'abcd1234'; token = 'test1a2b3c'",
        '"AWS::AccessToken": "ebce066c0deb24b4"; token: "x86_64"',
        '<assemblyIdentity publicKeyToken="1fc8b3b9a1e18e3b"/>; token = "sha256sum"',
        "password = %q(your_password1); passwords = %w[first second]; $password = q{changeme1};",
        "password=%(DB_PASSWORD1)s; tokens = {'pad': '<pad>', 'bos': '<s>'}; tokens = {'a': 'B1', 'c': 'D2'}",
    ],
)
def test_what_only_resembles_these_stays(line):
    assert_kept(line)


@pytest.mark.parametrize(
    "line",
    [
        "password: Exception; passwd: Kennwort; password=invalid; pass: ProxyPass; password: cloudstack",
        "postgres://postgres:postgres@db; https://username:password@host; x://apiKey:apiSecret@host; a://u:userpass@h",
        "secrets:\n  - source\n  - server-cert-v2\n  - my_secret_1\n",
        "tokens:\n  - BOS\n  - <eos>\nimagePullSecrets:\n  - name: regcred2\n",
        "token_types = ['A1', 'B2', 'C3']",
        "mnemonic = 'test test test test test test test test test test test junk'",
        "phrase: the words of this line are those of prose and they are not kept in any wallet",
        "password: ${DB_PASSWORD:-changeme1}; token: ${TOKEN:default1}; x=${PASSWORD:1:3}",
        "apiKey = 'RSA2048'; api_key: us-east-1a; AccountKey = AES256GCM16; session_key='rfc2616-sec4'",
        "setAlgorithm('isAuthKey8021xPlusFT'); password = password.encode('latin1')",
        "#define PSK RSN_SELECTOR(0x00, 2); psk: WPA2-Personal; en_PW: en_001",
        "password_path: /etc/app/one; passwordEncoder: BCryptPasswordEncoder; password: messages.password",
        "AccountKey: 'RuleAzureSandboxesProxyAzureAccountKeyConfig'; token = 'ACDEFGHIKLMNPQRSTVWY'",
        "$1 costs $2; ${x}; $6$; {SHA}; key:value; url:Abc123",
    ],
)
def test_what_only_resembles_a_secret_stays(line):
    assert without_secrets(line, settings=True) == line


def test_names_in_a_list_of_code_are_no_passwords():
    line = "passwords = [first, second1, third2]"
    assert without_secrets(line, settings=False) == line
