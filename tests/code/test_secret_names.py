from __future__ import annotations

import pytest

from c2llm_integrations.code.secret_names import is_secret_name


@pytest.mark.parametrize(
    "path",
    [
        *(".flaskenv", "secrets.enc.yaml", "a/id_rsa.bak", "id_ed25519.old", "kubeconfig.yaml", "prod.tfvars.json"),
        *("serviceAccountKey.json", "shop-firebase-adminsdk-x1.json", "token.json", "appsettings.Staging.json"),
        *("wp-config.php", ".dockerconfigjson", "home/.aws/config", "k8s/db-secret.yaml", "aws-credentials.csv"),
        *(".cvspass", "krb5.keytab", "home/.subversion/auth/svn.simple/1f", "home/.mc/config.json", "password.lst"),
        *("vault_pass.txt", ".env.production~", ".zsh_history", "home/.ssh/config", "ssh_host_rsa_key"),
        *("ppp/chap-secrets", "etc/ipsec.secrets", "ipsec.d/ipsec.vpn.secrets"),
    ],
)
def test_names_of_files_that_hold_secrets(path: str) -> None:
    assert is_secret_name(path)


@pytest.mark.parametrize(
    "path",
    [
        *("secrets.go", "api_key.py", "kubeconfig.ts", "charts/templates/secret.yaml", "token.rs"),
        *("password_reset_email.txt", "wp-config-sample.php", "config.json", "settings.xml", "secretary.yaml"),
    ],
)
def test_names_that_only_sound_like_it(path: str) -> None:
    assert not is_secret_name(path)


@pytest.mark.parametrize(
    "path",
    [
        *(
            "config.kube",
            "my-kubeconfig.yml",
            "kubeconfig-prod",
            ".kube/config.bak",
            ".kube/prod.yaml",
            ".docker/config.json~",
        ),
        *("gcp-sa.json", "service-principal.json", "deploy-sa-key.json", "azure_service_principal.json"),
        *("rsa_key.txt", "private-key.txt", "signing-key.asc", "tls.key.b64", "keys.json", "ssh-key", "jwt_key.old"),
        *("token", ".token", "vault-token", "github_token.txt", "oauth_token.json", "slack-token", "deploy_token"),
        *(
            "env.production",
            "env.staging",
            "dotenv",
            ".env-prod",
            "dot.env.bak",
            ".authinfo",
            ".authinfo.gpg",
            ".credentials",
        ),
    ],
)
def test_names_by_kind(path: str) -> None:
    assert is_secret_name(path)


@pytest.mark.parametrize(
    "name", [".env", "id_rsa", ".npmrc", "home/.aws/credentials", "tls.key", ".netrc", "wp-config.php"]
)
@pytest.mark.parametrize(
    "copy",
    [
        *(
            "{}.bak",
            "{}.old",
            "{}.orig",
            "{}.txt",
            "{}.b64",
            "{}.asc",
            "{}.local",
            "{}~",
            "{}.1",
            "{}.save",
            "{}.copy",
            "{} copy",
        ),
        *("{}.dpkg-old", "{}.rpmsave", "{} (1)", "{}.bak~", "{}_backup_2024", "{}.base64.txt", "{} - Copy"),
    ],
)
def test_a_copy_of_a_secret_is_one(name: str, copy: str) -> None:
    assert is_secret_name(copy.format(name))


@pytest.mark.parametrize(
    "path",
    [
        "a/.id_rsa.swp",
        "..env.swo",
        "#.env#",
        "Copy of id_rsa",
        "credentials (1).json",
        "wp-config.old.php",
        "prod - copy.tfvars",
    ],
)
def test_what_editors_and_file_managers_leave(path: str) -> None:
    assert is_secret_name(path)


@pytest.mark.parametrize(
    "path",
    [
        *(
            "token.py",
            "keys.go",
            "token.md",
            "env.ts",
            "token.py.bak",
            "token.vue",
            "keys.rs",
            "api_key.dart",
            "dotenv.js",
        ),
        *("design-tokens.json", "tokenizer.json", "special_tokens_map.json", "tokens.txt", "stop_token"),
        *(
            "ar-sa.json",
            "messages_ar_sa.json",
            "primary_key.txt",
            "hotkeys.json",
            "monkey.json",
            "keys.txt",
        ),
        *(
            "id_rsa.pub.bak",
            ".env.example.txt",
            "config.json.bak",
            "environment.yml",
            "env.d.ts",
            "identity.txt",
            "shadow.txt",
        ),
        *(
            "copy.txt",
            "backup.sh",
            "README.txt",
            "requirements.old.txt",
            "kubeconfig.md",
            "passkey.md",
            "csrf_token.html",
        ),
    ],
)
def test_names_of_sources_and_of_other_things(path: str) -> None:
    assert not is_secret_name(path)


@pytest.mark.parametrize("path", ["identity.age", "Login Data", ".config/gcloud/legacy_credentials/a/adc.json"])
def test_more_names_of_secrets(path: str) -> None:
    assert is_secret_name(path)


@pytest.mark.parametrize(
    "path",
    [
        *("chrome-passwords.csv", "logins.csv", "bitwarden_export_2024.json", "lastpass_export.csv", "vault.1pif"),
        *("github-recovery-codes.txt", "backup_codes.txt", "seed-phrase.txt", "a.mnemonic", "keys/id_ed25519_work"),
        *("etc/wpa_supplicant-wlan0.conf", ".clasprc.json", ".sentryclirc", "pgpassword"),
    ],
)
def test_what_password_managers_export_and_people_keep_is_secret(path):
    assert is_secret_name(path)


@pytest.mark.parametrize(
    "path", ["mnemonic.json", "lastpass_export.py", "recovery_codes.rb", "docs/recovery-codes.md", "seed_phrase.dart"]
)
def test_code_and_prose_about_such_files_is_read(path):
    assert not is_secret_name(path)


@pytest.mark.parametrize(
    "path",
    [
        *(
            ".gitconfig",
            "dotfiles/hgrc",
            ".yarnrc.yml",
            "tokens.json",
            "netrc",
            ".my.cnf",
            "pip.ini",
            ".boto",
            ".prod.vars",
        ),
        *("dump.sql", "prod-backup-2024.sql", "all_databases.sql.gz", "shop.dump.sql", "x.pgdump", "mysqldump.sql"),
        *(".local/share/fish/fish_history", ".Rhistory", ".psql_history", "ConsoleHost_history.txt", "login.har"),
        *("etc/gshadow", "etc/postfix/sasl_passwd.db", "etc/ipsec.secrets", "wifi.nmconnection", "raddb/clients.conf"),
        *("login.keyring", "work.psafe3", "keepass_export.xml", "vault.opvault/a/folders.1", "x.wallet"),
        *(".openrc.sh", "prod-openrc.sh", "clouds.yaml", ".erlang.cookie", "values.dec.yaml", "x.key.enc", "id_xmss"),
    ],
)
def test_names_of_public_rule_sets(path):
    assert is_secret_name(path)


@pytest.mark.parametrize(
    "path",
    [
        *(".ssh/work", ".ssh/keys.old", ".gnupg/random_seed", ".aws/sso/cache/1f.json", ".azure/msal_token_cache.bin"),
        *(
            ".config/gcloud/configurations/config_default",
            ".config/hub",
            ".config/glab-cli/config.yml",
            ".jfrog/a",
        ),
        *(".config/configstore/firebase-tools.json", ".nuget/NuGet/NuGet.Config", ".idea/dataSources.local.xml"),
        *(".password-store/mail/work.txt", ".config/github-copilot/hosts.json", ".docker/config.json.bak"),
    ],
)
def test_names_that_say_it_in_their_folder_alone(path):
    assert is_secret_name(path)


@pytest.mark.parametrize(
    "path",
    [
        *(
            ".ssh/known_hosts",
            ".ssh/authorized_keys",
            ".ssh/id_rsa.pub",
            "ssh/verify",
            "docs/history.md",
            "history.txt",
        ),
        *("schema.sql", "seed_data.sql", "dumper.sql", "backup.py", "dump.go", "data/dump.json", "config/hub.json"),
        *("NuGet.Config", "settings.xml", "cookies.py", "shadow.css", "wallet.ts", "keyring.py", "clients.conf"),
        *("environment.yaml", "gitconfig.md", "lib/tokens.py", "har.js", "secrets.rs", "userlist.txt"),
    ],
)
def test_names_beside_those_of_secrets(path):
    assert not is_secret_name(path)
