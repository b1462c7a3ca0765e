"""Kinds of secrets, each in several forms: manifests, values on the next line, defaults, calls, commands, documents."""

from __future__ import annotations

import re

import pytest

from c2llm_integrations.code.secrets import BLOT, without_secrets
from tests.code.test_secrets import assert_blotted, assert_kept, drawn

pytestmark = pytest.mark.slow

PASSWORD = "Wn7dq4Rt2x"
HEX = "a8b6f3a6a9421cc1c93016f1c4261e5351d30b49895d1a0d1f13dce20c4fd32f"


def assert_only(text: str, settings: bool, *secrets: str) -> None:
    """Assert that these are replaced, as a whole, and nothing else."""
    wanted = text
    for secret in secrets:
        wanted = wanted.replace(secret, BLOT)
    assert without_secrets(text, settings) == wanted


HELM = """{{- if .Values.auth }}
apiVersion: v1
kind: Secret
metadata:
  name: app-v2x
{{- with .Values.labels }}
  labels: {{ toYaml . | nindent 4 }}
{{- end }}
type: Opaque
stringData:
  hook: plainwords
  {{- if .Values.other }}
  "other key": 'two words'
  {{- end }}
  variable: {{ .Values.x | b64enc | quote }}
{{- end }}
"""


@pytest.mark.parametrize("settings", [True, False])
@pytest.mark.parametrize(
    ("text", "secrets"),
    [
        (
            "apiVersion: v1\nkind: Secret\nmetadata:\n  name: app-v2x\ndata:\n  hook: cGxhaW4=\n  b: YQ==\n",
            ("cGxhaW4=", "YQ=="),
        ),
        (
            'kind: Secret # of the app\nstringData:\n  a: plainwords # old\n\n  # note\n  b: "two words"\n',
            ("plainwords", "two words"),
        ),
        ("data:\n  a: lower\nkind: Secret\nmetadata:\n  a: lower2x\n", ("lower\n",)),
        (
            "kind: Secret\nstringData:\n  f: |-\n    one line\n    other=line\n  g: last\nx: y\n",
            ("one line", "other=line", "last"),
        ),
        ("kind: Secret\ndata: {a: YWJj, b: 'ZGVm'}\n", ("YWJj", "ZGVm")),
        (
            "items:\n- kind: ConfigMap\n  data:\n    a: kept\n- apiVersion: v1\n  data:\n    a: YWJj\n  kind: Secret\n",
            ("YWJj",),
        ),
        (
            "kind: ConfigMap\ndata:\n  a: kept\n---\nkind: Secret\ndata:\n  a: YWJj\n---\nkind: A\ndata:\n  a: kept\n",
            ("YWJj",),
        ),
        (
            '{\n  "kind": "Secret",\n  "data": {\n    "a": "YWJj",\n    "b": "ZGVm"\n  },\n  "c": {"a": "kept"}\n}\n',
            ("YWJj", "ZGVm"),
        ),
        ('{"data":{"a":"YWJj"},"kind":"Secret","metadata":{"name":"kept"}}', ("YWJj",)),
        (HELM, ("plainwords", "two words")),
        ("cat <<EOF | kubectl apply -f -\n  kind: Secret\n  data:\n    a: YWJj\nEOF\n", ("YWJj",)),
    ],
)
def test_each_value_of_a_kubernetes_secret(text, secrets, settings):
    wanted = text
    for secret in secrets:
        wanted = re.sub(rf"(?<=[ '\"\n]){re.escape(secret.strip())}(?=[ '\",\n}}])", BLOT, wanted)
    assert wanted != text
    assert without_secrets(text, settings) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "kind: ConfigMap\ndata:\n  a: kept\n",
        "kind: SealedSecret\nspec:\n  encryptedData:\n    a: kept\n",
        "kind: SecretStore\ndata:\n  a: kept\n",
        "kind: Secret\nmetadata:\n  name: kept\n  annotations:\n    a: kept\n",
        "kind: Secret\ndata:\n  a: {{ .Values.a }}\n  b: ${B}\n  c: <base64>\n",
        "The kind: Secret of objects\n  data: kept\n",
    ],
)
def test_what_is_no_value_of_a_kubernetes_secret_stays(text):
    assert without_secrets(text, True) == text


@pytest.mark.parametrize(
    "text",
    [
        *("password: >-\n  <>\n", "db:\n  password: |\n    <>\n", "  - passwd: >\n      <>\n", "password:\n  <>\n"),
        *("db_password: |2+ # old\n    <>\n", '"password": |-\n  "<>"\n', "client_secret: >\n  <>\n"),
        *('password = """\n<>"""\n', "password =\n    <>\n", "db.password=\\\n<>\n", "smtp_password = \\\n    <>\n"),
        *("<key>DBPassword</key><string><></string>", "<key>password</key>\n\t<string><></string>"),
        *("<password><></password>", "<password>\n  <>\n</password>", "<dbPassword><![CDATA[<>]]></dbPassword>"),
        *("<name>jdbc.password</name>\n  <value><></value>", '<property name="password">\n<value><></value>'),
        *('<user password="<>"/>', '<add key="MailPassword" value="<>"/>'),
    ],
)
def test_a_password_on_the_next_line_and_between_tags(text):
    assert PASSWORD not in without_secrets(text.replace("<>", PASSWORD), True)


def test_each_line_of_a_value_is_replaced_and_what_follows_stays():
    text = f"tokens:\n  token: |\n    {drawn(30)}\n    {drawn(31)}\n  image: {drawn(32)}\n"
    assert without_secrets(text, True) == f"tokens:\n  token: |\n    {BLOT}\n    {BLOT}\n  image: {drawn(32)}\n"


@pytest.mark.parametrize(
    "line",
    [
        *('const secret = process.env.JWT_SECRET || "<>";', "password: process.env.DB_PASSWORD ?? '<>',"),
        *("export const KEY = process.env.API_KEY ?? '<>';", 'pw = os.environ.get("DB_PASSWORD", "<>")'),
        *('password = ENV.fetch("SMTP_PASSWORD", "<>")', 'token = env("API_TOKEN", default="<>")'),
        *("$password = getenv('DB_PASSWORD') ?: '<>';", "password = settings.password or '<>'"),
        *('var password = Environment.GetEnvironmentVariable("DB_PASSWORD") ?? "<>";', '@Value("${x.password:<>}")'),
        *(
            "param adminPassword string = '<>'",
            'String password = cfg.get("x", "<>");',
            "DECLARE @password varchar(20) = '<>'",
        ),
        *("var dbPassword string = '<>'", "passwd = config['pw'] || '<>'"),
    ],
)
@pytest.mark.parametrize("secret", ["Wn7dq4Rt2x9K", "i6HWGK10Zb0RLZ5TR9SPofbciOx9gy1C"])
def test_what_a_secret_is_if_none_is_given(line, secret):
    assert_blotted(line, secret)


@pytest.mark.parametrize(
    "text",
    [
        'variable "db_password" {\n  type = string\n  description = "Of the database, old"\n  default = "<>"\n}',
        '"adminPassword": {"type": "securestring", "defaultValue": "<>"}',
        '"adminPassword": {\n  "type": "securestring",\n  "defaultValue": "<>"\n}',
        "DBPassword:\n  Type: String\n  NoEcho: true\n  Default: <>\n",
    ],
)
def test_the_default_of_a_declared_parameter(text):
    assert PASSWORD not in without_secrets(text.replace("<>", PASSWORD), True)


@pytest.mark.parametrize(
    "line",
    [
        *('jwt.sign(payload, "<>", {expiresIn: "1h"})', "jwt.sign({ id: user.id, a: 1 }, '<>')", 'jwt.encode(p, "<>")'),
        *(
            'hmac.new(b"<>", msg, "sha256")',
            'AES.new(b"<>", AES.MODE_ECB)',
            'Fernet(b"<>")',
            'new SecretKeySpec("<>".getBytes())',
        ),
        *(
            'WiFi.begin("home", "<>");',
            "WiFi.begin(ssid, '<>')",
            "WiFiMulti.addAP('home', '<>')",
            "createCipheriv('aes', Buffer.from('<>'))",
            "OpenSSL::HMAC.hexdigest('sha256', '<>', d)",
            'createHmac("sha256", "<>")',
            "createCipheriv('aes', '<>', iv)",
        ),
        *(
            'ssh.connect("h", 22, "root", "<>")',
            'ssh.connect(\n    host,\n    user,\n    "<>",\n)',
            'FTP(host, user, "<>")',
        ),
        *('ftp.login(user, "<>")', 'server.login("me@corp.com", "<>")', "new Sequelize('db', 'user', '<>', {})"),
        *(
            'Credentials("Realm", "host", "user", "<>")',
            'new ethers.Wallet("<>", provider)',
            "openssl_encrypt($d, $m, '<>')",
        ),
        'new SqlConnection("Server=h;User Id=sa;Password=<>")',
    ],
)
def test_an_argument_that_is_a_secret_by_its_position(line):
    assert_blotted(line, "i6HWGK10Zb0RLZ5TR9SPofbciOx9gy1C")


@pytest.mark.parametrize(
    "line",
    [
        *(
            "helm install x --set auth.rootPassword=<>",
            "helm upgrade x y --set a=b,auth.password=<>,c=d",
            "helm x --set-string pw=<>",
        ),
        *(
            "docker build --build-arg db_password=<> .",
            "terraform apply -var 'db_password=<>'",
            "docker run -e db_pw=<> a",
        ),
        *(
            "echo me:<> | chpasswd",
            "echo 'root:<>' | sudo chpasswd",
            "chpasswd <<< 'me:<>'",
            'echo -e "<>\\n<>" | passwd me',
        ),
        *(
            "echo <> | sudo -S ls",
            "echo '<>' | docker login -u me --password-stdin",
            "printf '<>' | kinit me",
            "sudo -S ls <<< <>",
        ),
        *(
            "psexec \\\\host -u me -p <> cmd",
            "plink -pw <> me@host",
            "PsExec64.exe -p <> cmd".lower(),
            "sshpass -p <> ssh host",
        ),
        *(
            "net use Z: \\\\host\\a /user:me <>",
            "net use Z: \\\\host\\a <> /user:me",
            "net user me <> /add",
            "htpasswd -b f me <>",
        ),
        *(
            "cmdkey /add:host /user:me /pass:<>",
            "setenv DB_PASSWORD <>",
            "SetEnv DB_PASS <>",
            "heroku config:set db_password=<>",
        ),
        *(
            "DB_PASSWORD := <>",
            "DB_PASSWORD ?= <>",
            "DB_PASSWORD ::= <>",
            "export DB_PASSWORD := <>",
            "ENV DB_PASSWORD <>",
        ),
        *(
            "ConvertTo-SecureString -AsPlainText '<>' -Force",
            'expect "password:" { send "<>\\r" }',
            "export DB_PASSWORD=<>",
        ),
    ],
)
def test_a_password_of_more_commands(line):
    assert_blotted(line, PASSWORD)


@pytest.mark.parametrize(
    "line",
    [
        *(
            "**Password:** <>",
            "**Password**: `<>`",
            "- Password: `<>`",
            "The root password is ``<>``.",
            "__Password:__ <>",
        ),
        *(
            "| admin password | <> |",
            "| Password | `<>` |",
            "|**Password**|<>|",
            "Login: admin / <>",
            'The password is "<>".',
            "+------+----------+\n| user | password |\n+------+----------+\n| me | <> |\n",
            "*password:* `<>`",
        ),
        *("| user | password |\n|------|:---:|\n| a | b |\n| c | <> |", "user | Password\n--|--\nme | `<>`"),
        "| Password of root | Note |\n|:--|--:|\n| **<>** | first |",
    ],
)
def test_a_password_in_a_document(line):
    text = line.replace("<>", PASSWORD)
    assert without_secrets(text, False) == line.replace("<>", BLOT)


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_password_in_its_column(separator):
    text = separator.join(("id", "password", "note")) + "\n" + separator.join(("a1b2c3", "<>", "d4e5f6g7")) + "\n"
    assert without_secrets(text.replace("<>", PASSWORD), False) == text.replace("<>", BLOT)


@pytest.mark.parametrize("tail", ["(1, 'a1b2c3', '<>');", "(1, 'a, b', '<>'), (2, 'it\\'s', 'Kd8fj3Lq9z');"])
def test_a_password_in_its_column_of_sql(tail):
    text = f"INSERT INTO users (id, name, password) VALUES {tail}"
    wanted = text.replace("<>", BLOT).replace("Kd8fj3Lq9z", BLOT)
    assert without_secrets(text.replace("<>", PASSWORD), False) == wanted


@pytest.mark.parametrize(
    ("line", "secret"),
    [
        *(
            ("'key' => 'base64:<>',", f"{drawn(43)}="),
            ("APP_KEY=base64:<>", f"{drawn(43)}="),
            ("x: base64:<>", f"{drawn(22)}=="),
        ),
        *(('accounts: ["0x<>"]', HEX), ("accounts = ['<>', '" + HEX[::-1] + "']", HEX), ("privateKey: '0x<>'", HEX)),
        *(
            ("define('AUTH_KEY', '<>');", "x<Hq 2k|P~v9 {Zr7}Lm4@ wT5 j&e:Yb6^uD"),
            ('define( "NONCE_SALT", "<>" );', ";q9>Xw& 3[Lt7^ k2=Vb8/ nR$4mC _gH(1fS"),
        ),
        ("define('SECURE_AUTH_SALT', '<>')", drawn(64)),
        *(
            ('-define(PASSWORD, "<>").', PASSWORD),
            ("set(DB_PASSWORD '<>')", PASSWORD),
            ('-define(db_password, "<>").', PASSWORD),
        ),
        *(("password = [[<>]]", PASSWORD), ("password = [==[<>]==]", PASSWORD), ('let password = r#"<>"#;', PASSWORD)),
        ('password = R"(<>)";', PASSWORD),
        *(
            ("username me password 6 <>", "RAdcVgBFDH[V_YQGXd_Y"),
            ("key 6 <>", "QBdTfJ`aWcQ^RgFXbZ]Hc"),
            (" secret 6 <>", "YAABdeHG^fQ[SiZYXWVUTS"),
        ),
        *(
            ('<machineKey validationKey="<>" />', HEX.upper()),
            ('<machineKey a="b" decryptionKey="<>" />', HEX.upper()[:48]),
        ),
    ],
)
def test_a_key_by_its_form(line, secret):
    assert_blotted(line, secret)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "Passwort",
            "Kennwort",
            "mot de passe",
            "mot_de_passe",
            "motdepasse",
            "contraseña",
            "contrasena",
            "contrasenya",
            "senha",
        ),
        *(
            "пароль",
            "пароля",
            "密码",
            "密碼",
            "口令",
            "비밀번호",
            "암호",
            "パスワード",
            "wachtwoord",
            "hasło",
            "haslo",
            "heslo",
            "lösenord",
        ),
        *(
            "losenord",
            "passord",
            "adgangskode",
            "salasana",
            "parola",
            "şifre",
            "jelszó",
            "κωδικός",
            "סיסמה",
            "كلمة المرور",
            "كلمة السر",
        ),
    ],
)
def test_a_password_in_another_language(name):
    for line, settings in (("{}: <>", True), ("{}: <>", False), ("db_{} = '<>'", False), ("**{}:** <>", False)):
        for spelled in (name, name.capitalize()):
            assert_blotted(line.format(spelled), PASSWORD, settings)


@pytest.mark.parametrize("secret", ["x7Qp2kLm", "a1b2c3d4", "tok3n99x4"])
@pytest.mark.parametrize("line", ["api_token: <>", "auth.token=<>", "api_key: <>", "client_secret = <>", "TOKEN: '<>'"])
def test_a_short_token_without_quotes_in_settings(line, secret):
    assert_blotted(line, secret, settings=True)


@pytest.mark.parametrize("line", ["token = x7qp2klm", "api_key: x7qp2klm", "token=a1b2c3d4"])
def test_a_short_name_in_code_is_no_token(line):
    assert without_secrets(line, settings=False) == line


@pytest.mark.parametrize(
    "line",
    [
        "token: x86_64; token: utf8mb4; max_tokens: 4096; api_key: us-east-1a; token: sha256sum; key: AES256GCM16",
        "| token | int32 | the password | string |\n| password | md5 |",
        "| password | type |\n|---|---|\n| string | sha256 |\n| <password> | `null` |",
        "name,token,kind\nx1,int32,a1b2c3d4\n",
        "password is `None`; the password is ``md5``; token is `int32`; **Note:** a1b2c3d4; **Password:** required",
        "INSERT INTO users (id, name) VALUES (1, 'a1b2c3d4')",
        "('OAUTH2_CLIENT_SECRET', 'oauth2ClientSecret'); db1-password: db1Password",
        "signal.connect('a', 'b', callback); FTP(host, user, password1); jwt.sign(p, key1); jwt.verify(a, getKey1)",
        "echo done | sudo tee a1b2c3; echo $PASS | chpasswd; sudo -S ls <<< $PW; echo me:$PASSWORD1 | chpasswd",
        "password: |\n  ${PASSWORD}\npassword:\n  minimum: a1b2c3d4\npassword: >-\nother: a1b2c3d4\n",
        "password:\n- a\nnext1value\n",
        "senhalib: a1b2c3d4; parolanda: a1b2c3d4; chtwoord: a1b2c3d4; slot: a1b2c3d4",
        "accounts: ['0x71C7656EC7ab88b098defB751B7401B5f6d8976F']; define('AUTH_KEY', 'put your unique phrase here!');",
        "accounts = [first, second]; base64:AAAA; image: base64:abc=",
        "helm x --set password=$PASSWORD1; docker run -e PASSWORD a; net use Z: /delete; net user me /add",
        "password = process.env.DB_PASSWORD || config.password1; pw = os.environ.get('DB_PASSWORD', None)",
        "<key>Password</key><true/><string>a1b2c3d4</string>",
    ],
)
def test_what_only_resembles_these_kinds_stays(line):
    assert_kept(line)
