"""Where secrets stand: templates, tables, command lines, addresses without a scheme, YAML, and languages' own forms."""

from __future__ import annotations

import pytest

from c2llm_integrations.code.secrets import BLOT, without_secrets
from tests.code.test_secrets import assert_blotted, assert_kept

pytestmark = pytest.mark.slow

PASSWORD = "Wn7dq4Rt2x"
TOKEN = "q7Rk2Wd9Lm4Xc8Vb3Nz6"


@pytest.mark.parametrize("secret", [PASSWORD, "hunter2hunter9", "hZ8!kq2Wn5tB"])
@pytest.mark.parametrize(
    ("line", "settings"),
    [
        *(('f"postgres://app:<>@{host}/db"', False), ("`https://u:<>@${host}/x`", False)),
        *(('"amqp://app:<>@#{host}/"', False), ('f"{user}:<>@{host}"', False)),
        *(('password: {{ .Values.pw | default "<>" | quote }}', True), ("db_pw: {{ '<>' | b64encode }}", True)),
        *(('password: {{ default "<>" .Values.pw }}', True), ("password: <%= '<>' %>", True)),
        *(
            ("password = {{ pw or '<>' }}", True),
            ('password: \'{{ lookup("env", "X") or "<>" }}\'', True),
            ("password: \"{{ '<>' | password_hash('sha512') }}\"", True),
        ),
    ],
)
def test_a_password_in_a_template(line: str, settings: bool, secret: str) -> None:
    assert_blotted(line, secret, settings)


RST = "====  ===========  ====\nUser  Password     Note\n====  ===========  ====\n"
LIST = ".. list-table:: Accounts\n   :header-rows: 1\n\n   * - User\n     - Password\n"


@pytest.mark.parametrize(
    "text",
    [
        *(f"{RST}me    <>   Kept1a2b\nyou   Kept1a2b\n", f"{RST}me    ``<>``\n====  ===========  ====\n"),
        *(
            "Setting   Value\n========  =====\npassword  <>\n",
            "user  password\n----  --------\nme    <>\n\nKept1a2b  x\n",
        ),
        *(f"{LIST}   * - me\n     - <>\n", f"{LIST}\n   * - a\n     - b\n   * - ``me``\n     - ``<>``\n"),
        *(".. list-table::\n\n   * - DB password\n     - ``<>``\n     - Kept1a2b\n",),
        *('.. csv-table::\n   :widths: 1, 1\n   :header: "user", password\n\n   "me", "<>"\n\nKept1a2b,Kept1a2b\n',),
        *(
            "> | User | Password |\n> |---|---|\n> | me | <> |\n",
            " * | User | Password |\n * |--|--|\n * | me | <> |\n",
        ),
    ],
)
def test_a_password_in_its_column(text: str) -> None:
    text = f"x\n\n{text}"
    wanted = text.replace("<>", BLOT).replace("you   Kept1a2b", f"you   {BLOT}")
    assert without_secrets(text.replace("<>", PASSWORD), False) == wanted


@pytest.mark.parametrize("secret", [PASSWORD, TOKEN])
@pytest.mark.parametrize(
    "line",
    [
        *(
            "vault kv put secret/x user=me password=<>",
            "vault kv patch secret/x other='<>'",
            "fly secrets set A=b C=<>",
        ),
        "kubectl create secret generic x --from-literal=user=me99999 \\\n  --from-literal=other='<>'",
        *("nmcli dev wifi connect home password <>", "nmcli con modify home wifi-sec.psk '<>'"),
        *("mysqladmin -u root password <>", "curl -sSu 'me:<>' h", "curl --cert c.pem:<> h", "htpasswd -nb me <>"),
        *(
            "mosquitto_passwd -b f me <>",
            "openssl passwd -6 -salt xy '<>'",
            "net user /add me <>",
            "net use z: /u:me <>",
        ),
        *("az sql server create -u me -p <>", "az keyvault secret set -n x --value <>", "twine upload -u me -p <>"),
        *(
            "gh secret set X --body <>",
            "gh secret set X -b'<>'",
            "aws ssm put-parameter --value '<>' --type SecureString",
        ),
        *(
            "pulumi config set --secret dbPassword <>",
            "npm config set //r/:_password <>",
            "cf set-env a DB_PASSWORD <>",
        ),
        *("ssh-keygen -t rsa -N <> -f k", "etcdctl --user root:<> get x", "skopeo copy --src-creds me:<> a b"),
        *("echo '<>' | docker secret create x -", "echo <> | gh auth login --with-token", "chpasswd <<EOF\nme:<>\nEOF"),
        *(
            "echo '<>' | su - me",
            "args:\n- --password\n- <>",
            "args: [--password, <>]",
            "run(['docker', 'login', '-p', '<>'])",
            "//h/s /mnt cifs username=me,password=<>,uid=0 0 0",
        ),
    ],
)
def test_a_secret_of_a_command(line: str, secret: str) -> None:
    assert_blotted(line, secret)


@pytest.mark.parametrize(
    "line",
    [
        *('dsn = "app:<>@unix(/tmp/x.sock)/db"', "DSN=app:<>@/db", "proxy = 'me:<>@proxy.corp:8080'"),
        *("me@x.com:<>@smtp.x.com:587", "smtps://me@x.com:<>@smtp.x.com:465", "mysql://me:<>@(h:3306)/d"),
        *("mq://a:Kd8fj3Lq9z@10.0.0.1:5672,a:<>@10.0.0.2:5672", "postgresql://me:<>@/db?host=/run"),
        *("db.x.com:5432:prod:app:<>", "# .pgpass\nlocalhost:5433:*:me:<>", "[smtp.x.com]:587 me@x.com:<>"),
        *("login x machine h password <> login me", "auth: 'me:<>'", "curl_setopt($c, CURLOPT_USERPWD, 'me:<>');"),
    ],
)
def test_a_password_in_an_address_without_a_scheme(line: str) -> None:
    assert_blotted(line, PASSWORD)


@pytest.mark.parametrize(
    "text",
    [
        *("password: '<>''x'", "password: 'it''s<>'", 'password: &db "<>"\nother: *db', "password: !str &x <>"),
        *("- name: DB_PASSWORD\n  value: >-\n    <>\n", "- name: DB_PASSWORD\n  # kept\n  value: <>\n"),
        *("- value: <>\n  name: DB_PASSWORD\n", '{"value": "<>", "name": "DB_PASSWORD"}', "env: [DB_PASSWORD=<>]"),
        *("env: [{name: DB_PASSWORD, value: <>}]", '{"adminPassword": {"value": "<>"}}', "password:\n  value: <>\n"),
        *('{"credentials": {"user": "me", "password": "<>"}}', '{"key": "password", "type": "text", "value": "<>"}'),
        *(
            '<add value="<>" key="Password"/>',
            '<password encrypted="false"><></password>',
            "<pwd xsi:type='x'><></pwd>",
        ),
        *('<string name="db_password" translatable="false"><></string>', '<a name="pwd" type="x" value="<>"/>'),
        'variable "db_password" {\n  type = string\n  validation {\n    condition = true\n  }\n  default = "<>"\n}',
        *("<param-name>password</param-name>\n<param-value><></param-value>",),
        *('resource "aws_ssm_parameter" "db_password" {\n  name = "x"\n  type = "SecureString"\n  value = "<>"\n}',),
    ],
)
def test_a_password_in_settings(text: str) -> None:
    assert_blotted(text, "hunter2hunter9", settings=True)


@pytest.mark.parametrize("secret", ["x7K]mQ9vLw4T", "x7K}mQ9vLw4T", "x7K[mQ9vLw4T"])
@pytest.mark.parametrize(
    "text", ["run -e DB_PASSWORD=<> a", "- name: DB_PASSWORD\n  value: <>\n", "password:\n  value: <>\n"]
)
def test_a_bracket_within_does_not_end_a_password(text: str, secret: str) -> None:
    assert_blotted(text, secret, settings=True)


@pytest.mark.parametrize("secret", [PASSWORD, "hunter2hunter9"])
@pytest.mark.parametrize(
    "line",
    [
        *('var password: String? = "<>"', 'password: Optional[str] = "<>"', 'password: str | None = "<>"'),
        *('const PASSWORD: &[u8; 10] = b"<>";', 'PASSWORD: constant String := "<>";', "pw VARCHAR2(20) := '<>';"),
        *('wchar_t password[] = L"<>";', "password?: string = '<>'", 'client.password(Some("<>"))'),
        *('user, password = "me", "<>"', 'Password string `env:"X" envDefault:"<>"`', "set :password, '<>'"),
        *('add_argument("--password", type=str, default="<>")', 'password: str = Field(default="<>", env="X")'),
        *('password = config.get("db", "password", fallback="<>")', 'flag.StringVar(&pw, "password", "<>", "x")'),
        *("if password != '<>':", "$password eq '<>'", 'strcmp(password, "<>") == 0', "PASSWORD=${1:-<>}"),
        *('url.UserPassword("me", "<>")', "bcrypt.hash('<>', 10)", 'sessions.NewCookieStore([]byte("<>"))'),
        *('new ClientSecretCredential("t", "c", "<>")', 'AwsBasicCredentials.create("A", "<>")'),
        *("CONNECT TO me IDENTIFIED BY <> USING 'x'", "page.fill('input[type=password]', '<>')"),
        *("CREATE USER me IDENTIFIED WITH caching_sha2_password\n  BY '<>';", 'GRANT x TO me IDENTIFIED\n BY "<>"'),
        *(
            "SET PASSWORD FOR 'me'@'%' = '<>';",
            "password varchar(20) NOT NULL DEFAULT '<>',",
            'authenticate("me", "<>")',
        ),
        *(
            'String password =\n            "<>";',
            '{{ .Values.password | default "<>" }}',
            'sql.Open("x", "me:<>@tcp(db)/x")',
        ),
        *(
            '(user, password) = ("me", "<>")',
            'const [user, password] = ["me", "<>"];',
            "my ($user, $password) = ('me', '<>');",
        ),
    ],
)
def test_a_password_in_a_language_of_its_own(line: str, secret: str) -> None:
    assert_blotted(line, secret)


@pytest.mark.parametrize(
    "text",
    [
        *("mailto:user1@x.com:25; sip:user1@x.com:5060; image: app:v1.2@sha256:ab12; host:a1b2c3@x.com", "a:b1@/x"),
        *('f"{user}:{password1}@{host}"', "`https://u:${pass1}@${host}`", "password: {{ .Values.db1 | quote }}"),
        *('TEST_PASSPHRASE = "testkeypassphrase"\nKEY_ID = "7416F045"', "value: a1b2c3d4\n- name: PASSWORD"),
        *("- name: A\n  value: a1b2c3d4\n- name: PASSWORD\n  valueFrom: x", "password_type: {value: a1b2c3d4}"),
        *(
            "name   token\n====   =====\nx1     int32\n",
            "name   note\n-----  --------\nx1     a1b2c3d4\n",
            "---- ----\n",
        ),
        *("credentialTypes: ['extends:oAuth2Api', 'has:oAuth1Api']", "'--auth_key':\n  value: $snmpv3_auth_key$"),
        *("vault kv get secret/v2; kubectl get secret x1=a1b2c3d4; nmcli con show", "openssl passwd -6 $PASS1"),
        *("add_argument('--token-type', default='Bearer2')", "auth: 'oauth:basic'", "'it''s a password'; x = 'a1b2c3'"),
        *("at 12:34:56:a1b2c3d4 it ended", "x:5432:a:b", "password as x := 1; password eq a1b2c3d4"),
    ],
)
def test_what_only_resembles_these_stays(text: str) -> None:
    assert_kept(text)


@pytest.mark.parametrize(
    "line",
    [
        "pod:frontend-v2@node-1:10250",
        "topic:orders-v2@kafka-1:9092",
        "scp file:photos2024@/backup",
        "encoder.encode('function_name2')",
        "auth: jwt:rs256",
        "credentials: default:profile2",
        "credentials: s3:prod-bucket-1",
        "vault kv put secret/aws region=eu-central-1 role=deploy_role2",
        "fly secrets set LOG_LEVEL=debug1",
        'resource "aws_secretsmanager_secret" "db_password" {\n  value = local.something2\n}',
        "========  ==========\nargument  type\n========  ==========\npassword  varchar255\n========  ==========",
    ],
)
def test_a_name_with_a_number_is_no_password(line):
    assert_kept(line)
