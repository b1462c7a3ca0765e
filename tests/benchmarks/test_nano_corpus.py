import io
import json
import tarfile
import zipfile
from pathlib import Path

import pytest

from benchmarks.nano_recipe.corpus import allowed, package_of, read_archive, wanted
from benchmarks.nano_recipe.metadata import licence_of, permissive, source_of
from benchmarks.nano_recipe.mine import mine, sample
from c2llm_integrations.training.docstring_pairs import fingerprint

BODY = '''def {name}(rows):
    """{doc}"""
    total = 0
    for row in rows:
        total += row * {number}
    unused = "a file shorter than two hundred bytes is not worth reading, so here is a line that makes it longer"
    return total
'''


def wheel(folder: Path, name: str, licence: str, files: dict[str, str]) -> Path:
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as zipped:
        for file, text in files.items():
            zipped.writestr(file, text)
        zipped.writestr(
            f"{name}-1.0.dist-info/METADATA", f"Name: {name}\nVersion: 1.0\nLicense-Expression: {licence}\n"
        )
    return path


@pytest.mark.parametrize(
    ("archive", "package"),
    [
        ("scikit_learn-1.9.1-cp311-cp311-manylinux_2_28_x86_64.whl", "scikit-learn"),
        ("babylonjs-core-9.34.0.tgz", "babylonjs-core"),
        ("golang-golang-x-net-dev_0.7.0-1_all.deb", "golang-golang-x-net-dev"),
        ("commons-io_2.11.0.orig.tar.gz", "commons-io"),
    ],
)
def test_package_names(archive: str, package: str) -> None:
    assert package_of(Path(archive)) == package


@pytest.mark.parametrize(
    ("package", "path"),
    [
        ("networkx", "networkx/a.py"),
        ("flask", "flask/app.py"),
        ("something", "something/sklearn/base.py"),
        ("pip", "pip/_internal/requests/api.py"),
        ("golang-github-spf13-cobra-dev", "usr/share/x.go"),
        ("librust-serde-dev", "src/lib.rs"),
        ("libjackson-databind-java", "x/y.java"),
        ("bundle", "package/zod/index.js"),
        ("stdlib", "redis.py"),
        ("tool", "curl-7.88.1/lib/url.c"),
    ],
)
def test_benchmarked_and_held_out_sources_are_refused(package: str, path: str) -> None:
    assert not allowed(package, path)


def test_others_are_allowed() -> None:
    assert allowed("numpy", "numpy/linalg/core.py")
    assert allowed("librust-rand-dev", "usr/share/cargo/registry/rand-0.8.5/src/lib.rs")


@pytest.mark.parametrize(
    ("path", "size", "expected"),
    [
        ("a/b.py", 1000, True),
        ("a/b.py", 100, False),
        ("a/b.txt", 1000, False),
        ("a/_vendor/b.py", 1000, False),
        ("a/jquery.min.js", 1000, False),
        ("a/test_b.py", 1000, False),
        ("a/b.d.ts", 1000, False),
        ("a/b.go", 1_000_000, False),
    ],
)
def test_wanted(path: str, size: int, expected: bool) -> None:
    assert wanted(path, size) is expected


@pytest.mark.parametrize(
    ("licence", "expected"),
    [
        ("MIT", True),
        ("BSD-3-Clause OR GPL-2.0", True),
        ("LGPL-2.1-only", False),
        ("MPL-2.0", False),
        ("Public Domain; BSD License; GNU General Public License (GPL)", False),
        ("", False),
    ],
)
def test_permissive(licence: str, expected: bool) -> None:
    assert permissive(licence) is expected


def test_a_tarball_declares_its_licence_and_gives_its_sources(tmp_path: Path) -> None:
    path = tmp_path / "thing-1.0.0.tgz"
    with tarfile.open(path, "w:gz") as tar:
        for name, text in {
            "package/package.json": json.dumps({"name": "@a/thing", "version": "1.0.0", "license": "ISC"}),
            "package/a.js": "x;" * 200,
        }.items():
            info = tarfile.TarInfo(name)
            info.size = len(text)
            tar.addfile(info, io.BytesIO(text.encode()))
    assert licence_of(path) == "ISC"
    assert source_of(path) == "npm:@a/thing=1.0.0"
    assert list(read_archive(path)) == [("package/a.js", "x;" * 200)]


def test_mining_drops_bad_licences_repeats_and_what_is_held_out(tmp_path: Path) -> None:
    same = BODY.format(name="scale", doc="Add up all scaled rows.", number=2)
    held = wheel(tmp_path, "networkx", "BSD-3-Clause", {"networkx/a.py": same})
    fresh = BODY.format(name="triple", doc="Add up three times each row.", number=3)
    good = wheel(tmp_path, "good", "MIT", {"good/a.py": same.replace("\n    ", "\n  "), "good/b.py": fresh})
    copy = wheel(tmp_path, "copy", "MIT", {"copy/b.py": fresh})
    bad = wheel(
        tmp_path, "bad", "GPL-3.0", {"bad/a.py": BODY.format(name="q", doc="Multiply every row by four.", number=4)}
    )
    mine([good, copy, bad, held], tmp_path / "out", [held], processes=1)
    rows = [json.loads(line) for line in (tmp_path / "out" / "pairs.jsonl").read_text().splitlines()]
    assert [(row["name"], row["package"]) for row in rows] == [("triple", "copy")]
    table = (tmp_path / "out" / "corpus.tsv").read_text()
    assert "pypi:bad=1.0\tGPL-3.0\trefused" in table


def test_a_sample_repeats_itself_and_skipping_gives_others(tmp_path: Path) -> None:
    files = {
        f"p/{i}.py": BODY.format(name=f"f{i}", doc=f"Weigh rows with variant {i * 'x'}.", number=i) for i in range(6)
    }
    archive = wheel(tmp_path, "p", "MIT", files)
    first, again, rest = sample([archive], 3), sample([archive], 3), sample([archive], 3, skip=3)
    assert first == again
    assert len(first) == len(rest) == 3
    assert not {r["name"] for r in first} & {r["name"] for r in rest}


def test_a_fingerprint_ignores_layout() -> None:
    assert fingerprint("a = b( c )") == fingerprint("a=b(c)") != fingerprint("a=c(b)")
