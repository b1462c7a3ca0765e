from pathlib import Path

import pytest

from benchmarks.nano_recipe.fetch import command, fetch


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("pypi:numpy=2.4.6", ["download", "--no-deps", "numpy==2.4.6"]),
        ("npm:@babel/core=7.29.14", ["npm", "pack", "@babel/core@7.29.14"]),
        ("debian:golang-golang-x-tools-dev=1:0.5.0+ds-1", ["apt-get", "golang-golang-x-tools-dev=1:0.5.0+ds-1"]),
        ("debian-source:commons-io=2.11.0", ["source", "--download-only", "commons-io"]),
    ],
)
def test_each_registry_has_its_client(source: str, words: list[str]) -> None:
    assert set(words) <= set(command(source, Path("archives")))


def test_what_was_refused_is_not_fetched(tmp_path: Path) -> None:
    table = tmp_path / "corpus.tsv"
    table.write_text("source\tlicence\tpairs\npypi:bad=1.0\tGPL-3.0\trefused\n")
    assert fetch(table, tmp_path / "archives") == []
    assert list((tmp_path / "archives").iterdir()) == []
