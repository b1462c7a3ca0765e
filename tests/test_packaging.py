"""The built wheel, installed into a clean environment, does the main job from there."""

import json
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from importlib.metadata import requires, version
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[1]
SCRIPTS = "Scripts" if sys.platform == "win32" else "bin"


def run(*arguments, cwd):
    """Run a command that must succeed and return what it printed."""
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    done = subprocess.run(list(map(str, arguments)), cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Build from a copy, so that nothing of an earlier build gets in and nothing is left in the tree."""
    folder = tmp_path_factory.mktemp("wheel")
    sources = folder / "sources"
    shutil.copytree(
        ROOT / "c2llm_integrations", sources / "c2llm_integrations", ignore=shutil.ignore_patterns("__pycache__")
    )
    for file in (ROOT / "pyproject.toml", ROOT / "README.md", ROOT / "LICENSE", *ROOT.glob("NOTICE*")):
        shutil.copy(file, sources)
    build = ("--no-build-isolation", "--no-deps", "--no-index", "--wheel-dir")
    run(sys.executable, "-m", "pip", "wheel", *build, folder, sources, cwd=folder)
    return next(folder.glob("*.whl"))


@pytest.fixture(scope="module")
def clean_python(wheel, tmp_path_factory):
    """An environment of its own with the wheel; the dependencies, and only they, come from this one."""
    folder = tmp_path_factory.mktemp("environment")
    venv.create(folder, with_pip=False, symlinks=sys.platform != "win32")
    python = folder / SCRIPTS / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel, cwd=folder)
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).strip()
    # A folder named in a .pth file does not have its own .pth files read: no editable install comes along.
    shared = dict.fromkeys(sysconfig.get_path(name) for name in ("purelib", "platlib"))
    Path(site, "dependencies.pth").write_text("\n".join(shared))
    return python


def test_the_wheel_holds_the_package_its_model_and_its_licence(wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    packaged = {name.split("/", 1)[1] for name in names if name.startswith("c2llm_integrations/")}
    sources = {path.relative_to(ROOT / "c2llm_integrations").as_posix() for path in _sources()}
    assert packaged == sources
    assert {
        "py.typed",
        "cli/main.py",
        "model/nano/config.json",
        "model/nano/tokenizer.json",
        "model/nano/model.safetensors",
    } <= packaged
    assert any(name.endswith("licenses/LICENSE") for name in names)
    assert {name.split("/")[0].split("-")[0] for name in names} == {"c2llm_integrations"}


def _sources():
    folder = ROOT / "c2llm_integrations"
    return [path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts]


def test_the_installed_wheel_indexes_and_answers_with_its_own_model(clean_python, project):
    where = run(clean_python, "-c", "import c2llm_integrations as c; print(c.__file__)", cwd=project).strip()
    assert Path(where).is_relative_to(clean_python.parents[1])
    c2llm = clean_python.parent / "c2llm"
    assert "4 files" in run(c2llm, "index", cwd=project)
    best = run(c2llm, "search", "wait longer after each failed attempt", cwd=project / "shop").splitlines()[0]
    assert best.startswith(f"{Path('..', 'web', 'retry.js')}:")
    assert "nano" in run(c2llm, "status", cwd=project)


def test_every_dependency_is_pinned_in_the_tested_set_and_inside_its_range():
    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [Requirement(line) for line in lines if not line.startswith("#")]
    versions = {canonicalize_name(pin.name): pin.specifier for pin in pins if not pin.marker or pin.marker.evaluate()}
    for needed in map(Requirement, requires("c2llm-integrations") or []):
        if needed.name != "c2llm-integrations" and (not needed.marker or needed.marker.evaluate({"extra": "test"})):
            (pin,) = versions[canonicalize_name(needed.name)]
            assert pin.operator == "=="
            assert needed.specifier.contains(pin.version)


@pytest.fixture(scope="module")
def thin_packages(tmp_path_factory):
    """A folder with what the frameworks' thin packages install."""
    wheels, site = tmp_path_factory.mktemp("thin"), tmp_path_factory.mktemp("thin-site")
    run(sys.executable, ROOT / "packages" / "build.py", wheels, cwd=wheels)
    install = (sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target", site)
    run(*install, *wheels.glob("*.whl"), cwd=wheels)
    return site


@pytest.mark.parametrize(
    ("module", "source", "extra"),
    [
        ("langchain_c2llm", "langchain", "langchain"),
        ("llama_index.embeddings.c2llm", "llama_index", "llama-index"),
        ("llama_index.vector_stores.c2llm", "llama_index", "llama-index"),
    ],
)
def test_a_thin_package_gives_the_names_of_the_whole_one(thin_packages, module, source, extra):
    shown = (
        f"import sys; sys.path.insert(0, {str(ROOT)!r}); sys.path.insert(0, {str(thin_packages)!r})\n"
        f"import json, {module} as thin, c2llm_integrations.{source} as whole\n"
        "from importlib.metadata import requires\n"
        f"distribution = {module.replace('.', '-').replace('_', '-')!r}\n"
        "same = all(getattr(thin, name) is getattr(whole, name) for name in thin.__all__)\n"
        "print(json.dumps([thin.__file__, thin.__all__, same, requires(distribution)]))"
    )
    file, names, same, (needed,) = json.loads(run(sys.executable, "-c", shown, cwd=thin_packages))
    assert Path(file).is_relative_to(thin_packages)
    assert names
    assert same
    assert Requirement(needed).extras == {extra}
    assert Requirement(needed).specifier.contains(version("c2llm-integrations"))


def test_a_thin_package_lies_beside_the_framework(thin_packages):
    """No file of theirs hides the framework's own namespace."""
    files = {path.relative_to(thin_packages).as_posix() for path in thin_packages.rglob("*.py")}
    assert files == {
        "langchain_c2llm/__init__.py",
        "llama_index/embeddings/c2llm/__init__.py",
        "llama_index/vector_stores/c2llm/__init__.py",
    }
