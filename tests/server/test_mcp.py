"""The server, run for real and asked through the SDK's own client over standard input and output."""

import asyncio
import errno
import json
import os
import signal
import subprocess
import sys
from contextlib import asynccontextmanager

import anyio
import pytest

pytest.importorskip("mcp.server.mcpserver", reason="the extra mcp is not installed")

from mcp import Client, StdioServerParameters, stdio_client
from mcp.server.mcpserver.exceptions import ToolError, UnexpectedToolError

from c2llm_integrations.cli.main import run
from c2llm_integrations.server.live_index import WORDS_ALONE, LiveIndex, LiveIndexConfig
from c2llm_integrations.server.mcp import _server
from c2llm_integrations.server.mcp_answers import MAX_ANSWER_CHARS, MAX_HITS, SearchTools
from c2llm_integrations.server.mcp_tools import MAX_ERROR_CHARS
from tests.waiting import until

pytestmark = pytest.mark.slow


def command(*arguments):
    """Return the arguments that start the server in a process of its own."""
    return ["-m", "c2llm_integrations", "mcp", *map(str, arguments)]


@asynccontextmanager
async def served(*arguments):
    """Yield a client of a server that was just started."""
    parameters = StdioServerParameters(command=sys.executable, args=command(*arguments), env=dict(os.environ))
    async with Client(stdio_client(parameters)) as client:
        yield client


async def ask(client, tool="search_code", **arguments):
    """Call a tool that must succeed and return its text."""
    result = await client.call_tool(tool, arguments)
    assert not result.is_error, result.content
    return result.content[0].text


async def complaint(client, tool="search_code", **arguments):
    """Call a tool that must fail and return what it says."""
    result = await client.call_tool(tool, arguments)
    assert result.is_error, result.content
    return result.content[0].text


async def until_told(text, *question, **arguments):
    """Ask until an answer holds a text."""
    with anyio.fail_after(120):
        while text not in await ask(*question, **arguments):
            await asyncio.sleep(0.1)


async def test_from_words_to_vectors_to_what_changed(project, tiny_model):
    async with served(project, "--model", tiny_model) as client:
        assert [tool.name for tool in (await client.list_tools()).tools] == [
            "search_code",
            "find_similar",
            "index_status",
        ]
        first = await ask(client, query="retry delay")
        assert "web/retry.js:1-4  function retryDelay" in first
        assert WORDS_ALONE in first or "note" not in first
        await until_told("vectors and words", client, "index_status")
        assert "note" not in await ask(client, query="retry delay")
        assert "prices.py" in await ask(client, "find_similar", file="web/retry.js", line=2)
        (project / "web" / "backoff.js").write_text("export const jitterWindow = 5;\n")
        await until_told("backoff.js", client, query="jitterWindow", path="*.js")


async def test_without_indexing_nothing_is_written(project):
    async with served(project, "--no-index") as client:
        assert WORDS_ALONE in await ask(client, query="tax")
        assert "nothing is indexed yet" in await ask(client, "index_status")
    assert not (project / ".c2llm").exists()


async def test_bad_input_gets_a_clear_answer(project, tmp_path):
    (tmp_path / "outside.py").write_text("outside = 1\n")
    (project / "link.py").symlink_to(tmp_path / "outside.py")
    async with served(project, "--no-index") as client:
        assert "empty" in await complaint(client, query=" ")
        assert "no word that lexical search could look for" in await complaint(client, query="?!;")
        assert "prices.py" in await ask(client, query="tax " * 250_000)
        assert "\x1b" not in await ask(client, query="tax\x1b[2J\x07\u202e\U000e0041")
        assert "no language 'klingon'" in await complaint(client, query="tax", language="klingon")
        assert "no kind" in await complaint(client, query="tax", kind="gadget")
        assert "selects nothing" in await complaint(client, query="tax", path="# all")
        assert "not served" in await complaint(client, query="tax", folder="/etc")
        for path in ("/etc/passwd", "../outside.py", "link.py", ".env"):
            assert "not an indexed file" in await complaint(client, "find_similar", file=path)
        long = await complaint(client, "find_similar", file="\u202e" * 4000)
        assert len(long.removeprefix("Error executing tool find_similar: ")) == MAX_ERROR_CHARS
        for name in ("path", "language", "kind", "folder"):
            assert "at most 4096" in await complaint(client, query="tax", **{name: "x" * 5000})
        assert "greater than or equal to 1" in await complaint(client, query="tax", limit=0)
        assert str(MAX_HITS) in await complaint(client, query="tax", limit=10**9)
        assert await complaint(client) == "search_code: query: Field required"
        refused = await complaint(client, query="tax", limit="\nmany\n", kind=["x"])
        assert refused.startswith("search_code: limit: Input should be a valid integer")
        assert "kind: Input should be a valid string, got ['x']" in refused
        for said in (refused, await complaint(client, "find_similar", file="no\nsuch\nfile")):
            assert len(said.splitlines()) == 1
        assert await complaint(client, query="tax", langauge="python") == (
            "search_code has no argument 'langauge'; did you mean language?"
        )
        assert "there are: folder, kind, language, limit, path, query" in await complaint(client, query="x", zzz=1)
        assert "index_status has no argument 'query', it takes none" in await complaint(
            client, "index_status", query="x"
        )
        for none in (None, "", " "):
            blank = dict.fromkeys(("folder", "language", "path", "kind", "limit"), none)
            assert "prices.py" in await ask(client, query="tax", **blank)
            code = {"code": "def tax(): ...", "file": none, "line": none, "limit": none, "folder": none}
            assert "prices.py" in await ask(client, "find_similar", **code)
            assert "rows: " in await ask(client, "index_status", folder=none)
        assert "no tool 'search_cod'; did you mean search_code" in await complaint(client, "search_cod")
        tools = (await client.list_tools()).tools
        assert [tool.input_schema["additionalProperties"] for tool in tools] == [False, False, False]
        assert "no hits" in await ask(client, query="outside", limit=MAX_HITS)
        project.rename(project.with_name("gone"))
        assert "is gone" in await complaint(client, query="tax")


async def test_a_link_that_vanishes_while_it_is_read_is_told(project, monkeypatch):
    (project / "link").symlink_to(project / "web")

    def gone(path):
        raise FileNotFoundError(errno.ENOENT, "no such file", path)

    server = _server(SearchTools([LiveIndex(LiveIndexConfig(folder=project))]))
    monkeypatch.setattr(os, "readlink", gone)  # as if it was removed just before
    with pytest.raises(ToolError, match=r"no such file: '.*/link'") as raised:
        await server.call_tool("find_similar", {"file": "link/retry.js"})
    assert not isinstance(raised.value, UnexpectedToolError)


def test_half_an_emoji_and_worse_are_answered(project):
    """Written as a client written in JavaScript writes what was cut; the SDK's own client cannot."""
    requests = [
        '{"jsonrpc":"2.0","id":0,"method":"initialize","params":{"protocolVersion":"2025-06-18","capabilities":{},'
        '"clientInfo":{"name":"t","version":"1"}}}',
        '{"jsonrpc":"2.0","method":"notifications/initialized"}',
        *(
            f'{{"jsonrpc":"2.0","id":{number},"method":"tools/call","params":{{"name":"{tool}","arguments":{asked}}}}}'
            for number, (tool, asked) in enumerate(
                [
                    ("search_code", r'{"query":"tax \ud83d"}'),
                    ("find_similar", r'{"code":"\ude00 tax"}'),
                    ("search_code", r'{"query":"tax","path":"\ud800"}'),
                    ("search_code", '{"query":"tax","limit":' + "9" * 5000 + "}"),
                    ("search_code", '{"query":"tax","limit":NaN}'),
                    (r"\ud83d", "{}"),
                    ("index_status", "[" * 900 + "]" * 900),
                ],
                1,
            )
        ),
        "this is not JSON",
    ]
    server = subprocess.Popen(
        [sys.executable, *command(project, "--no-index")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    server.stdin.write("".join(f"{line}\n" for line in requests))
    server.stdin.flush()
    answers = [json.loads(server.stdout.readline()) for _ in range(9)]
    assert {answer["id"] for answer in answers} == {*range(8), None}
    assert "prices.py" in next(answer for answer in answers if answer["id"] == 1)["result"]["content"][0]["text"]
    server.stdin.close()
    assert server.wait(30) == 0
    server.stdout.close()


async def test_sixty_four_questions_at_once(project, tiny_model):
    assert run(["index", str(project), "--model", str(tiny_model)]) == 0
    async with served(project) as client:
        answers = await asyncio.gather(*(ask(client, query=f"tax {number}", limit=50) for number in range(64)))
    assert all("prices.py" in answer and len(answer) <= MAX_ANSWER_CHARS + 200 for answer in answers)


async def test_servers_and_a_person_share_one_index(project, tiny_model):
    """Two agents' servers on one repository and a command line beside them: none fails."""
    async with served(project, "--model", tiny_model) as one, served(project, "--model", tiny_model) as two:
        await until_told("vectors and words", one, "index_status")
        await until_told("vectors and words", two, "index_status")
        search = [sys.executable, "-m", "c2llm_integrations", "search", "tax", "--store"]
        person = await asyncio.create_subprocess_exec(
            *search, f"qdrant+edge://{project / '.c2llm'}", stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        asked = [ask(client, query="tax") for client in (one, two) * 4]
        *answers, (printed, complaints) = await asyncio.gather(*asked, person.communicate())
    assert all("prices.py" in answer for answer in answers)
    assert (person.returncode, b"prices.py" in printed) == (0, True), complaints


def test_it_ends_soon_when_standard_input_does(project):
    started = subprocess.Popen(
        [sys.executable, *command(project)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    started.stdin.close()
    assert started.wait(60) == 0
    assert started.stdout.read() == b""
    assert b"Traceback" not in started.stderr.read()
    started.stdout.close(), started.stderr.close()


@pytest.mark.skipif(os.name == "nt", reason="no such signal")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_ends_when_it_is_told_to_though_the_agent_is_silent(number, project, tiny_model, tmp_path):
    (tmp_path / "temporary").mkdir()
    told = subprocess.Popen(
        [sys.executable, *command(project, "--model", tiny_model)],
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path / "temporary")},
    )
    until((project / ".c2llm" / "code").exists)
    told.send_signal(number)
    assert told.wait(60) == 128 + number
    assert told.communicate()[1] == b""
    assert list((tmp_path / "temporary").iterdir()) == []


@pytest.mark.skipif(os.name == "nt", reason="no such signal")
def test_a_killed_server_leaves_nothing_that_stops_the_next(project, tiny_model):
    killed = subprocess.Popen([sys.executable, *command(project, "--model", tiny_model)], stdin=subprocess.PIPE)
    until((project / ".c2llm" / "code").exists)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert run(["index", str(project), "--model", str(tiny_model)]) == 0


def test_a_folder_that_is_not_there(tmp_path, capsys):
    assert run(["mcp", str(tmp_path / "nosuch")]) == 1
    assert "cannot list" in capsys.readouterr().err
