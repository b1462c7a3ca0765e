import pytest
from hypothesis import given
from hypothesis import strategies as st

from c2llm_integrations.code import languages, parsing
from c2llm_integrations.training.docstring_pairs import LANGUAGES, definitions, first_paragraph, masked, words

PYTHON = '''
class Cache:
    """A cache that forgets the oldest entry."""

    def get(self, key):
        """Return the value stored under the key.

        Args:
            key: what it was stored under
        """
        value = self.values[key]
        return value

    def undocumented(self):
        a = 1
        return a
'''
OTHERS = {
    "javascript": "/**\n * Reads the whole file into memory.\n * @param {string} p the path\n */\n"
    "function readFile(p) {\n  const x = open(p);\n  return x;\n}\n",
    "typescript": "/** Reads the whole file into memory. */\nexport function readFile(p: string): Buffer {\n"
    "  const x = open(p);\n  return x;\n}\n",
    "go": "package a\n\n"
    "// readFile reads the whole\n// file into memory.\n"
    "func readFile(p string) []byte {\n\tx := 1\n\treturn x\n}\n",
    "java": "class A {\n  /**\n   * Reads the whole file into memory.\n   * @return bytes\n   */\n"
    "  @Override\n  byte[] readFile(String p) {\n    int x = 1;\n    return x;\n  }\n}\n",
    "rust": "/// Reads the whole file into memory.\n"
    "#[inline]\npub fn readFile(p: &str) -> u8 {\n    let x = 1;\n    x\n}\n",
    "c": "/* Reads the whole file into memory. */\n"
    "static char *readFile(const char *p)\n{\n  int x = 1;\n  return 0;\n}\n",
    "cpp": "/// Reads the whole file into memory.\n"
    "std::string A::readFile(const char *p) {\n  int x = 1;\n  return x;\n}\n",
    "csharp": "class A {\n  /// <summary>\n  /// Reads the whole file into memory.\n  /// </summary>\n"
    "  [Pure]\n  public byte[] readFile(string p) {\n    int x = 1;\n    return x;\n  }\n}\n",
    "ruby": "class A\n  # Reads the whole file\n  # into memory.\n  def readFile(p)\n    x = 1\n    x\n  end\nend\n",
    "php": "<?php\n/**\n * Reads the whole file into memory.\n * @return string\n */\n"
    "function readFile($p) {\n  $x = 1;\n  return $x;\n}\n",
    "tsx": "/** Reads the whole file into memory. */\nexport function readFile(p: string) {\n"
    "  const x = open(p);\n  return <b>{x}</b>;\n}\n",
    "cuda": "/// Reads the whole file into memory.\n"
    "__global__ void readFile(const char *p) {\n  int x = 1;\n  use(x);\n}\n",
}


def test_a_file_that_no_parser_survives_gives_no_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    assert list(definitions(PYTHON, "python"))
    monkeypatch.setattr(parsing, "survives", lambda *_: False)
    assert list(definitions(PYTHON, "python")) == []


def test_python_docstrings_become_pairs_without_themselves() -> None:
    found = {d.name: d for d in definitions(PYTHON, "python")}
    assert set(found) == {"Cache", "get"}
    assert found["get"].doc == "Return the value stored under the key."
    assert found["get"].bare == "def get(self, key):\n    value = self.values[key]\n    return value"
    assert "stored under the key" in found["get"].source


def test_all_languages_of_the_chunker_are_mined() -> None:
    assert {"python", *OTHERS} == LANGUAGES == set(languages._GRAMMARS)


@pytest.mark.parametrize("language", OTHERS)
def test_doc_comments_become_pairs(language: str) -> None:
    (found,) = [d for d in definitions(OTHERS[language], language) if "readFile" in d.name]
    assert found.name == "readFile"
    assert "whole file into memory" in found.doc
    assert "@" not in found.doc
    assert "whole" not in found.bare


@pytest.mark.parametrize(
    ("doc", "expected"),
    [
        ("Split a text.\ninto words\n\nMore.", "Split a text. into words"),
        ("See base class for details.", ""),
        ("Two words", ""),
        ("Parse the header line :class:`Foo` <b>fast</b>.", "Parse the header line `Foo` fast."),
        ("Sum of all rows.\n\n    Parameters\n    ----------\n    x : int", "Sum of all rows."),
    ],
)
def test_first_paragraph(doc: str, expected: str) -> None:
    assert first_paragraph(doc) == expected


def test_a_masked_name_is_gone_but_longer_names_stay() -> None:
    assert masked("def load(x): return load(x) + reload(x)", "load") == "def f(x): return f(x) + reload(x)"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("getHTTPServerName2", "get http server name 2"),
        ("snake_case_", "snake case"),
        ("__init__", "init"),
        ("ID", "id"),
    ],
)
def test_words(name: str, expected: str) -> None:
    assert " ".join(words(name)) == expected


@given(st.text(max_size=200))
def test_no_text_breaks_the_miner(text: str) -> None:
    for language in ("python", "javascript", "c", "ruby", "php"):
        assert all(d.doc and d.bare for d in definitions(text, language))
