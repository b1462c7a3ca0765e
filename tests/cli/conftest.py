import pytest

from tests.cli.running import answer


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """A cache folder of this test's own."""
    for name in ("XDG_CACHE_HOME", "LOCALAPPDATA"):
        monkeypatch.setenv(name, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def indexed(project, tiny_model, monkeypatch, capsys):
    """The project, indexed with the tiny model, as the current folder."""
    monkeypatch.chdir(project)
    answer(capsys, "index", "--model", tiny_model)
    return project
