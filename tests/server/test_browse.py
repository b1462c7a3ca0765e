"""The page: what it serves and refuses, and a real browser that clicks through it."""

import http.client
import json
import socket
import threading
from contextlib import ExitStack, contextmanager

import pytest

pytest.importorskip("websockets", reason="the test extra is not installed")

from c2llm_integrations.code.chunk import CodeChunk
from c2llm_integrations.errors import SpecMismatch, StoreError
from c2llm_integrations.indexing.ingest import ingest
from c2llm_integrations.model.embedder import C2LLMEmbedder
from c2llm_integrations.server import browse
from c2llm_integrations.server.browse import MAX_BODY_BYTES, MAX_SHOWN, Browser, _hit, make_server
from c2llm_integrations.server.highlight import highlighted, weighted
from c2llm_integrations.stores import open_store
from c2llm_integrations.stores.records import Hit
from tests import chromium
from tests.conftest import PROJECT
from tests.waiting import until

pytestmark = pytest.mark.slow

HOSTILE = """def tax():
    return "<script>document.title = 'taken'</script><img src=x onerror=alert(1)>&amp; tax \u202e\x1b[2J"
"""


@pytest.fixture(scope="module")
def model():
    return C2LLMEmbedder.from_pretrained("nano")


@contextmanager
def served(browser):
    """Serve a page and yield its port."""
    server = make_server(browser)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield server.server_address[1]
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture(scope="module")
def store(model, tmp_path_factory):
    """The project and three hostile files, indexed."""
    project = tmp_path_factory.mktemp("browse") / "shop-project"
    for name, text in {**PROJECT, "hostile.py": HOSTILE, "<b>name.py": "tax_of_name = 1\n"}.items():
        (project / name).parent.mkdir(parents=True, exist_ok=True)
        (project / name).write_text(text, encoding="utf-8")
    (project / "exe.\u202eyp").write_text("def turned():\n    return 1\n")
    with open_store(f"qdrant+edge://{project / '.c2llm'}", wait=10) as store:
        ingest(project, model, store)
        yield store


@pytest.fixture(scope="module")
def browser(store, model):
    """What the page asks."""
    return Browser(store, model, lambda: ["answers may be stale: <i>"])


def test_a_request_that_comes_a_byte_at_a_time_is_ended(browser, monkeypatch):
    monkeypatch.setattr(browse, "TIMEOUT_SECONDS", 0.2)

    def is_closed():
        try:
            slow.sendall(b"x")
        except ConnectionError:
            return True

    with served(browser) as port, socket.create_connection(("127.0.0.1", port)) as slow:
        slow.sendall(b"GET / HTTP/1.1\r\nX-Y: ")
        until(is_closed)


def answers(port):
    try:
        return request(port)[0] == 200
    except ConnectionError:
        return False


def test_silent_connections_beyond_the_bound_are_closed(browser, monkeypatch):
    monkeypatch.setattr(browse, "MAX_CONNECTIONS", 4)
    with served(browser) as port:
        with ExitStack() as opened:
            silent = [opened.enter_context(socket.create_connection(("127.0.0.1", port), 30)) for _ in range(6)]
            assert [one.recv(1) for one in silent[4:]] == [b"", b""]
        until(lambda: answers(port))  # they are gone


@pytest.fixture(scope="module")
def port(browser):
    with served(browser) as port:
        yield port


def request(port, method="GET", path="/", body=None, **headers):
    """Return status, headers and body of one request."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request(method, path, body, {name.replace("_", "-"): value for name, value in headers.items()})
    answer = connection.getresponse()
    found = answer.status, dict(answer.headers), answer.read()
    connection.close()
    return found


def ask(port, address="/api/search", /, status=200, **asked):
    """Post a question and return the answer, which must have this status."""
    code, _, body = request(port, "POST", address, json.dumps(asked), Content_Type="application/json")
    assert code == status, body
    return json.loads(body)


# ---- what it serves


def test_a_question_and_where_the_model_looked(port):
    answer = ask(port, query="add the tax", limit="3")
    assert len(answer["hits"]) == 3
    hit = next(hit for hit in ask(port, query="with_tax")["hits"] if hit["place"].startswith("shop/prices.py:"))
    assert any(piece == ["with_tax", "n", True] for line in hit["lines"] for piece in line)
    looked = ask(port, "/api/attention", text=hit["text"])
    as_shown = ["".join(text for text, *_ in line) for line in hit["lines"]]
    assert ["".join(text for text, *_ in line) for line in looked["lines"]] == as_shown
    assert "w9" in {kind for line in looked["lines"] for _, kind, _ in line}
    assert "%" in looked["share"]
    assert "cosine" in dict(hit["explanation"]) or len(hit["explanation"]) > 1


def test_filters(port):
    assert {hit["place"].split(":")[0] for hit in ask(port, query="delay", path="web/")["hits"]} == {"web/retry.js"}
    assert ask(port, query="delay", language="rust")["hits"] == []
    assert ask(port, query="delay", mode="lexical", kind="function")["hits"][0]["place"] == "web/retry.js:1-4"
    assert ask(port, query="delay", repository="nosuch")["hits"] == []
    about = json.loads(request(port, path="/api/about")[2])
    assert about["repositories"] == ["shop-project"]
    assert "nano" in about["text"]


@pytest.mark.parametrize(
    ("asked", "why"),
    [
        ({"query": ""}, "empty"),
        ({"query": "tax", "limit": "0"}, "1 to 100"),
        ({"query": "tax", "limit": "٣"}, "1 to 100"),
        *(({"query": "tax", "limit": many}, "1 to 100") for many in ("101", "1" * 5000, "000000001" + "9" * 5000)),
        ({"query": "tax", "limit": "0000000019999999"}, "1 to 100"),
        ({"query": 7}, "expected text"),
        ({"query": "tax", "path": "# all"}, "selects nothing"),
        *(({"query": "tax", name: "x" * 5000}, "at most 4096") for name in ("path", "language", "repository", "kind")),
        ({"query": "tax\ud800"}, "surrogate"),
        ({"query": "tax", "language": "klingon"}, "no language"),
        ({"query": "tax", "kind": "gadget"}, "no kind"),
        ({"query": "tax", "mode": "psychic"}, "psychic"),
    ],
)
def test_bad_questions(port, asked, why):
    assert why in ask(port, status=400, **asked)["error"]


@pytest.mark.parametrize("question", ["?!", "tax " * 250_000, "\x00\x1b[2J", "税"])
def test_odd_questions(port, question):
    assert "hits" in ask(port, query=question)


def test_what_the_page_shows_of_a_row_is_bounded():
    chunk = CodeChunk("1", "r" * 9_000, "a/" * 9_000 + "x.py", "python", "S" * 9_000, "k" * 9_000, 1, 2, "x = 1\n")
    shown = _hit(Hit(chunk, 1.0), [])
    assert len(shown["what"]) == MAX_SHOWN
    assert len(shown["place"]) == MAX_SHOWN + len(":1-2")
    assert shown["place"].endswith("/x.py:1-2")


def test_attention_of_what_is_no_hits_text(port):
    assert "surrogate" in ask(port, "/api/attention", status=400, text="tax\ud800")["error"]
    assert "expected text" in ask(port, "/api/attention", status=400, text=7)["error"]
    assert ask(port, "/api/attention")["share"] == "nothing of it was read"


def test_many_at_once(port):
    found = []
    threads = [threading.Thread(target=lambda: found.append(len(ask(port, query="tax")["hits"]))) for _ in range(64)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 64
    assert len(set(found)) == 1


def test_another_model_or_nothing_indexed_is_an_error(store, model, tiny_model, tmp_path):
    with pytest.raises(SpecMismatch):
        Browser(store, C2LLMEmbedder.from_pretrained(str(tiny_model)))
    with (
        open_store(f"qdrant+edge://{tmp_path / 'none'}") as empty,
        pytest.raises(StoreError, match="nothing is indexed"),
    ):
        Browser(empty, model)


# ---- what it refuses


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:{port}", "127.0.0.1", "127.0.0.1:1", "[::1]:{port}", ""]
)
def test_another_name_for_this_machine(port, host, method):
    status, _, body = request(port, method, "/api/search", "{}", Host=host.format(port=port))
    assert (status, b"only" in body) == (403, True)


def test_another_sites_page(port):
    body = json.dumps({"query": "tax"})
    for origin in ("https://evil.example", "null", f"https://127.0.0.1:{port}", "http://127.0.0.1:1"):
        found = request(port, "POST", "/api/search", body, Content_Type="application/json", Origin=origin)
        assert found[0] == 403
    own = request(port, "POST", "/api/search", body, Content_Type="application/json", Origin=f"http://127.0.0.1:{port}")
    assert own[0] == 200
    assert "Access-Control-Allow-Origin" not in own[1]
    assert request(port, "POST", "/api/search", body, Content_Type="text/plain")[0] == 415


@pytest.mark.parametrize(
    "path", ["/../browse.py", "/browse.py", "//etc/passwd", "/%2e%2e/browse.py", "/api", "/index.html/"]
)
def test_no_other_file(port, path):
    assert request(port, path=path)[0] == 404
    assert request(port, "POST", path, "{}", Content_Type="application/json")[0] == 404


def test_requests_that_make_no_sense(port):
    assert request(port, "DELETE")[0] == 501
    assert json.loads(request(port, "PUT", "/" + "a" * 70_000)[2])["error"]
    assert request(port, "POST", "/api/search", "{", Content_Type="application/json")[0] == 400
    assert request(port, "POST", "/api/search", "[" * 100_000, Content_Type="application/json")[0] == 400
    assert request(port, "POST", "/api/search", "[]", Content_Type="application/json")[0] == 400
    too_long = {"Content_Type": "application/json", "Content_Length": str(MAX_BODY_BYTES + 1)}
    assert request(port, "POST", "/api/search", "{}", **too_long)[0] == 413
    assert request(port, "POST", "/api/search", "{}", Content_Type="application/json", Content_Length="-1")[0] == 411


def test_every_answer_has_the_strict_headers(port):
    for path in ("/", "/page.js", "/page.css", "/api/about", "/nosuch"):
        _, headers, body = request(port, path=path)
        assert headers["Content-Security-Policy"].startswith("default-src 'none'")
        assert "unsafe" not in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert b"style=" not in body
    page = request(port)[2].decode()
    assert page.count("<script") == page.count('<script src="page.js" defer></script>') == 1
    assert "//" not in page.replace("<!DOCTYPE html>", "")


def test_a_failure_shows_nothing_of_the_inside(browser, port, monkeypatch, capsys):
    monkeypatch.setattr(browser, "search", lambda asked: 1 / 0)
    assert ask(port, status=500, query="tax") == {"error": "unexpected ZeroDivisionError; the terminal shows where"}
    assert "ZeroDivisionError" in capsys.readouterr().err


# ---- the picture


def test_lines_and_marks():
    lines = highlighted("a.py", "def maxPool(x):\n\n    return x\n", ["pool", "x"])
    assert lines[0] == [
        ("def", "k", False),
        (" ", "", False),
        ("maxPool", "n", True),
        ("(", "", False),
        ("x", "", True),
        ("):", "", False),
    ]
    assert (lines[1], len(lines)) == ([], 3)


def test_a_name_reorders_nothing_that_the_page_shows(port):
    assert "exe.\N{REPLACEMENT CHARACTER}yp:1-2" in {hit["place"] for hit in ask(port, query="turned")["hits"]}


def test_weights_are_relative_to_the_heaviest_token():
    assert weighted("ab\ncd", [(0, 1, 0.1), (1, 2, 0.0), (3, 5, 0.2)]) == [
        [("a", "w4", False), ("b", "", False)],
        [("cd", "w9", False)],
    ]
    assert weighted("ab", [(0, 1, 0.5), (1, 2, 0.5)]) == [[("ab", "", False)]]
    assert weighted("", []) == [[]]


def test_a_line_of_blanks_is_shown_without_colors():
    lines = highlighted("a.c", f"int retry(){' ' * 15_900}!\nint wait();\n", ["wait"])
    assert {color for line in lines for _, color, _ in line} == {""}
    assert ("wait", "", True) in lines[1]


@pytest.mark.parametrize("name", ["a.py", "a.js", "a.rs", "a.c", "nosuch.zzz", "Makefile", "a.md"])
def test_a_picture_keeps_every_character(name):
    text = "x = 'é日本' # \t tab\r\nif a < b && c > d:\n\tyield `q`\n\n\n"
    lines = highlighted(name, text, [])
    assert "\n".join("".join(piece for piece, *_ in line) for line in lines) + "\n" == text.replace("\r", " ")


# ---- in a browser


@pytest.fixture
def page(tmp_path):
    if chromium.find() is None:
        pytest.skip("no Chromium is installed")
    opened = chromium.Page(tmp_path / "profile")
    yield opened
    opened.close()


def test_a_person_clicks_through(port, page, tmp_path):
    page.open(f"http://127.0.0.1:{port}/")
    page.until("document.querySelector('#about').textContent.includes('nano')")
    page.click("#query")
    page.type("retry delay")
    page.press_enter()
    page.until("document.querySelectorAll('article').length > 2")
    places = page.evaluate("[...document.querySelectorAll('.place')].map(e => e.textContent)")
    assert "web/retry.js:1-4" in places[:3]
    assert page.evaluate("[...document.querySelectorAll('mark')].some(e => e.textContent === 'retryDelay')")
    assert page.evaluate("document.querySelector('.code td').textContent") == "1"

    page.click(".attention")
    page.until("document.querySelector('.attention').getAttribute('aria-pressed') === 'true'")
    assert page.evaluate("document.querySelectorAll('article:first-child .w9').length") > 0
    assert "%" in page.evaluate("document.querySelector('.share').textContent")
    heat = page.evaluate("getComputedStyle(document.querySelector('.w9')).backgroundColor")
    assert heat.startswith("rgb")
    assert heat != "rgba(0, 0, 0, 0)"
    page.click(".attention")
    page.until("document.querySelectorAll('article:first-child .w9').length === 0")

    page.click("#path")
    page.type("web/")
    page.click("#ask")
    page.until("document.querySelectorAll('article').length === 1")
    assert page.evaluate("document.querySelector('.place').textContent").startswith("web/")
    assert page.evaluate("[...document.querySelectorAll('#repository option')].map(e => e.value)") == [
        "",
        "shop-project",
    ]
    assert page.complaints() == []
    assert {address.split("/")[2] for address in page.requested()} == {f"127.0.0.1:{port}"}


def test_what_files_hold_is_shown_and_never_run(port, page):
    page.open(f"http://127.0.0.1:{port}/")
    page.click("#query")
    page.type("tax <script>")
    page.press_enter()
    page.until("document.querySelectorAll('article').length > 2")
    shown = page.evaluate("document.querySelector('#hits').textContent")
    assert "<script>document.title = 'taken'</script><img src=x onerror=alert(1)>&amp; tax" in shown
    assert "<b>name.py" in shown
    assert "\u202e" not in shown
    assert "answers may be stale: <i>" in page.evaluate("document.querySelector('#note').textContent")
    assert page.evaluate("document.title") == "c2llm browse"
    assert page.evaluate("document.querySelectorAll('#hits script, #hits img, #hits b, #note i').length") == 0
    assert page.complaints() == []


def test_an_error_is_said_on_the_page(port, page):
    page.open(f"http://127.0.0.1:{port}/")
    page.click("#ask")
    page.until("document.querySelector('#note').textContent.includes('empty')")
    assert page.evaluate("document.querySelector('#note').className") == "error"


def test_no_inline_script_could_run(port, page):
    page.open(f"http://127.0.0.1:{port}/")
    page.evaluate(
        "new Promise((refused) => { document.addEventListener('securitypolicyviolation', () => refused(true));"
        " const s = document.createElement('script'); s.textContent = 'document.title = \"taken\"';"
        " document.body.append(s); })"
    )
    assert page.evaluate("document.title") == "c2llm browse"
    assert any("Content Security Policy" in one for one in page.complaints())
