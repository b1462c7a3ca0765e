"""`c2llm index-ray` without a cluster: what is refused, and by which line."""

import subprocess
import sys

import pytest

from tests.cli.running import complaint

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("store", ["qdrant+edge://x", "milvus+lite://x.db"])
def test_an_embedded_store_is_refused_with_the_way_out(project, monkeypatch, capsys, store):
    monkeypatch.chdir(project)
    assert "a cluster needs a server" in complaint(capsys, 1, "index-ray", ".", "--store", store)
    assert not (project / ".c2llm").exists()


def test_a_server_must_be_named(capsys):
    assert "--store" in complaint(capsys, 2, "index-ray", ".")


@pytest.mark.parametrize("option", [["--replace"], ["--dry-run"], ["--watch"], ["--repository", "one"]])
def test_an_option_that_means_nothing_there_is_refused(capsys, option):
    said = complaint(capsys, 2, "index-ray", ".", "--store", "qdrant+http://localhost:1", *option)
    assert option[0] in said


@pytest.mark.parametrize("option", [["--address", "auto"], ["--embedders", "2"], ["--gpus-each", "1"]])
def test_an_option_of_the_cluster_needs_the_cluster(capsys, option):
    assert option[0] in complaint(capsys, 2, "index", ".", *option)


def test_several_folders_need_the_cluster(tmp_path, capsys):
    assert str(tmp_path / "b") in complaint(capsys, 2, "index", tmp_path / "a", tmp_path / "b")


def test_without_ray_the_extra_is_named(tmp_path):
    code = (
        "import sys; sys.modules['ray'] = None; from c2llm_integrations.cli.main import run; "
        "sys.exit(run(['index-ray', '.', '--store', 'qdrant+http://localhost:1']))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=tmp_path)
    assert done.returncode == 1
    assert "[ray]" in done.stderr


@pytest.mark.parametrize("command", ["index", "index-ray", "search", "train"])
def test_help_loads_neither_ray_nor_torch(command):
    code = (
        f"import sys; from c2llm_integrations.cli.main import run; run([{command!r}, '--help']); "
        "sys.exit(bool({'ray', 'torch'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0
