"""What the README and docs/ show works."""

import json
import re
import sys

import pytest

from c2llm_integrations.cli.main import app
from tests.docs.pages import (
    DOCS,
    ELSEWHERE,
    PAGES,
    ROOT,
    blocks,
    check_names,
    command_lines,
    mention,
    parse,
    run_line,
    run_page,
)

ALL_PAGES = [
    *PAGES,
    *map(DOCS.joinpath, sorted(ELSEWHERE)),
    DOCS / "cli.md",
    DOCS / "api.md",
    ROOT / "CHANGELOG.md",
    ROOT / "CONTRIBUTING.md",
]


def test_the_design_says_in_which_module_each_command_is():
    design = (DOCS / "design.md").read_text(encoding="utf-8")
    [row] = [line for line in design.splitlines() if line.startswith("| options of a command")]
    for command in app.registered_commands:
        name = command.name or command.callback.__name__.replace("_", "-")
        module = command.callback.__module__.rpartition(".")[2]
        if module != name.replace("-", "_"):
            before, found, _ = row.partition(f"`cli/{module}.py`")
            assert found, f"{name} is in {module}.py"
            assert f"`{name}`" in before.rpartition(".py`")[2], f"{name} is in {module}.py"


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_runs_from_top_to_bottom(page, project, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.chdir(project)
    run_page(page)


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda page: page.stem)
def test_every_link_leads_somewhere(page):
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for link in re.findall(r"\]\(([^)]+)\)", text):
        if link.startswith("https://"):
            continue
        file, _, heading = link.partition("#")
        target = page.parent / file if file else page
        assert target.exists(), f"{page.name}: {link}"
        if heading:
            assert heading in headings(target), f"{page.name}: {link}"


def headings(page):
    """The anchors of a page's headings, as GitHub and MkDocs make them."""
    found = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"\s+", "-", re.sub(r"[^\w\s-]", "", text).strip().lower()) for text in found}


@pytest.mark.parametrize("page", ALL_PAGES, ids=lambda page: page.stem)
def test_commands_in_sentences_exist(page):
    prose = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.DOTALL | re.MULTILINE)
    for line in re.findall(r"`((?:c2llm|make|pip install) [^`\n]+)`", prose):
        if line.startswith("c2llm "):
            mention(line)
        else:
            run_line(*command_lines(line))


def test_the_readme_fits_two_screens():
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= 150
    assert all(len(block.code.splitlines()) <= 10 for block in blocks(ROOT / "README.md") if block.language == "python")


def test_every_page_is_in_the_menu():
    menu = (ROOT / "mkdocs.yml").read_text(encoding="utf-8")
    pages = {page.name for page in DOCS.glob("*.md")}
    assert set(re.findall(r"(\S+\.md)$", menu, re.MULTILINE)) == pages


def test_the_places_that_the_design_names_exist():
    places = re.findall(r"`([\w/]+(?:\.py|/))`", (DOCS / "design.md").read_text(encoding="utf-8"))
    assert places
    assert not [one for one in places if not any((root / one).exists() for root in (ROOT, ROOT / "c2llm_integrations"))]


def test_an_unknown_option_and_keyword_are_noticed():
    with pytest.raises(Exception, match="--no-such-option"):
        parse(["search", "words", "--no-such-option"])
    with pytest.raises(AssertionError, match="no_such_keyword"):
        check_names("from c2llm_integrations import open_store\nopen_store('http://x', no_such_keyword=1)\n")
    with pytest.raises(AttributeError):
        check_names("from c2llm_integrations import no_such_name\n")


def test_each_measurement_is_named_with_its_date():
    pages = [(DOCS / f"{page}.md").read_text(encoding="utf-8") for page in ("performance", "experiments")]
    text = " ".join(" ".join(pages).split())
    for file in (ROOT / "benchmarks" / "results").glob("*.json"):
        date = json.loads(file.read_text(encoding="utf-8"))["date"]
        assert re.search(rf"`{file.name}`[^)]*{date}", text), f"{file.name} of {date}"


@pytest.mark.slow
@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="signatures read differently in other versions of Python")
def test_the_references_are_current():
    sys.path.insert(0, str(DOCS))
    try:
        from reference import PAGES as made
    finally:
        sys.path.remove(str(DOCS))
    for name, make in made.items():
        assert (DOCS / name).read_text(encoding="utf-8") == make(), "run make reference"
