"""The distributed run against the local one, on a real two-node Ray cluster and a real server: equal row for row."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
import urllib.request
import uuid
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
import ray
from ray.cluster_utils import Cluster as RayCluster

from c2llm_integrations.cli.main import run
from c2llm_integrations.errors import InputError, RepositoryError, StoreError
from c2llm_integrations.indexing.ingest import ingest
from c2llm_integrations.indexing.options import IngestOptions
from c2llm_integrations.indexing.ray.cluster import Cluster
from c2llm_integrations.indexing.ray.run import ingest_distributed
from c2llm_integrations.model.embedder import C2LLMEmbedder
from c2llm_integrations.stores import open_store
from tests.golden import COMPRESSED, TIED
from tests.ingesting import ROOT, assert_equal, contents_at, write_tree
from tests.qdrant_facade import ServerProcess
from tests.repositories import git

LOAD = partial(C2LLMEmbedder.from_pretrained, str(TIED), dtype="float32")
CLUSTER = Cluster(embedders=2, make_embedder=LOAD)

# A run in a process of its own, the driver; its model takes time, so that there is something to interrupt.
DRIVER = """
import sys
from functools import partial
from c2llm_integrations.indexing.options import IngestOptions
from c2llm_integrations.indexing.ray.cluster import Cluster
from c2llm_integrations.indexing.ray.run import ingest_distributed
from c2llm_integrations.model.embedder import C2LLMEmbedder
address, url, *folders = sys.argv[1:]
reports = ingest_distributed(
    folders,
    url,
    cluster=Cluster(
        address, embedders=2, make_embedder=partial(C2LLMEmbedder.from_pretrained, MODEL, dtype="float32")
    ),
    options=IngestOptions(progress=lambda *step: print(*step, flush=True)),
)
print("written", sum(report.written for report in reports), flush=True)
""".replace("MODEL", repr(str(TIED)))


@pytest.fixture(scope="module")
def cluster():
    """Two node processes on this machine."""
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    started = RayCluster(initialize_head=True, head_node_args={"num_cpus": 3, "object_store_memory": 2**28})
    started.add_node(num_cpus=3, object_store_memory=2**28)
    started.wait_for_nodes()
    ray.init(started.address, log_to_driver=False, logging_level="error")
    assert sum(node["Alive"] for node in ray.nodes()) == 2
    yield started
    ray.shutdown()
    started.shutdown()


@pytest.fixture(scope="module")
def embedder():
    return C2LLMEmbedder.from_pretrained(str(TIED), dtype="float32")


@pytest.fixture
def server(tmp_path):
    started = ServerProcess(tmp_path / "server")
    started.start()
    yield started
    started.kill()


def local(url, embedder, *folders):
    """What the local engine makes of the same folders."""
    with open_store(url) as store:
        for folder in folders:
            ingest(folder, embedder, store)
    return contents_at(url)


def distributed(server, *sources, **options):
    url = f"qdrant+{server.address}"
    return ingest_distributed(sources, url, cluster=CLUSTER, **options)


def two_trees(tmp_path, version):
    return write_tree(tmp_path / "one", version), write_tree(tmp_path / "two", version + 3)


def test_equal_to_the_local_engine_and_a_second_run_writes_nothing(cluster, server, embedder, tmp_path):
    trees = two_trees(tmp_path, 0)
    (trees[0] / "poison.py").write_bytes(b"\xff\xfe\x00binary")
    (trees[0] / "surrogate.py").write_bytes(b"x = '\xed\xa0\x80'\n")
    reports = distributed(server, *trees)
    url = f"qdrant+{server.address}"
    wanted = local(f"qdrant+edge://{tmp_path / 'local'}", embedder, *trees)
    assert_equal(contents_at(url), wanted)
    assert sum(report.written for report in reports) == len(wanted[0]) == sum(report.stored for report in reports)
    again = distributed(server, *trees)
    assert [(one.written, one.moved, one.deleted) for one in again] == [(0, 0, 0)] * 2
    for version in (1, 2):
        two_trees(tmp_path, version)
        changed = distributed(server, *trees)
        assert 0 < sum(one.written for one in changed) < len(wanted[0])
        assert sum(one.moved for one in changed) > 0
        assert sum(one.deleted for one in changed) > 0
        assert_equal(contents_at(url), local(f"qdrant+edge://{tmp_path / 'local'}", embedder, *trees))


def test_the_local_engine_goes_on_where_the_distributed_one_stopped(cluster, server, embedder, tmp_path):
    tree = write_tree(tmp_path / "one", 0)
    distributed(server, tree)
    with open_store(f"qdrant+{server.address}") as store:
        report = ingest(tree, embedder, store)
    assert (report.written, report.moved, report.deleted) == (0, 0, 0)


def test_rows_of_other_repositories_and_folders_are_left_alone(cluster, server, embedder, tmp_path):
    one, two = two_trees(tmp_path, 0)
    git(one, "init", "-q")
    (one / "inner").mkdir()
    (one / "inner" / "deep.py").write_text("def deep():\n    return 1\n")
    distributed(server, one, two)
    for file in two.glob("*.py"):
        file.unlink()
    (one / "file_1.py").unlink()
    (one / "inner" / "deep.py").write_text("def deep():\n    return 2\n")
    [report] = distributed(server, one / "inner")
    assert (report.written, report.deleted) == (1, 1)
    with open_store(f"qdrant+{server.address}") as store:
        assert any(row.path == "file_1.py" for row in store.scan(source="one"))
        assert store.count(source="two") > 50


def test_a_commit_read_without_one_of_its_files_is_not_taken_for_whole(cluster, server, embedder, tmp_path):
    tree = write_tree(tmp_path / "one", 0)
    git(tree, "init", "-q")
    git(tree, "add", ".")
    git(tree, "commit", "-qm", "one")
    kept = (tree / "file_1.py").read_bytes()
    (tree / "file_1.py").unlink()
    [first] = distributed(server, tree)
    (tree / "file_1.py").write_bytes(kept)
    [second] = distributed(server, tree)
    assert (second.files, second.written) == (first.files + 1, 3)
    assert_equal(contents_at(f"qdrant+{server.address}"), local(f"qdrant+edge://{tmp_path / 'local'}", embedder, tree))


def test_a_source_that_cannot_be_read_costs_itself_alone(cluster, server, tmp_path):
    one, two = write_tree(tmp_path / "one", 0, files=8), write_tree(tmp_path / "elsewhere" / "one", 3, files=8)
    missing, distant = tmp_path / "missing", (tmp_path / "no.git").as_uri()
    reports = distributed(server, one, two, missing, distant, one)
    told = {report.repository: report.skipped["unreadable"][0] for report in reports if "unreadable" in report.skipped}
    assert len(reports) == 4
    assert len(told) == 3
    assert "cannot list" in told[str(missing)]
    assert "cannot be read" in told[distant]
    [done] = [report for report in reports if report.repository == "one"]
    assert done.stored == done.chunks > 0
    with pytest.raises(RepositoryError, match="cannot list"):
        distributed(server, missing)


def test_a_git_url_and_a_bare_repository(cluster, server, embedder, tmp_path):
    tree = write_tree(tmp_path / "work", 0)
    git(tree, "init", "-q")
    git(tree, "add", ".")
    git(tree, "commit", "-qm", "one")
    git(tmp_path, "clone", "-q", "--bare", "work", "bare.git")
    url = (tmp_path / "bare.git").as_uri()
    [report] = distributed(server, url)
    assert report.files == len(list(tree.glob("*.py")))
    [again] = distributed(server, url)
    assert (again.files, again.stored) == (0, report.stored)
    with open_store(f"qdrant+{server.address}") as store:
        distant = {(row.path, row.start_line, row.symbol) for row in store.scan()}
    with open_store(f"qdrant+edge://{tmp_path / 'local'}") as store:
        ingest(tree, embedder, store)
        assert distant == {(row.path, row.start_line, row.symbol) for row in store.scan()}


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_a_data_set_of_texts(cluster, server, embedder, tmp_path, kind):
    tree = write_tree(tmp_path / "one", 0)
    file = tmp_path / f"corpus.{kind}"

    def write(paths):
        rows = [{"repository": "one", "path": path.name, "text": path.read_text()} for path in paths]
        if kind == "parquet":
            pa.parquet.write_table(pa.Table.from_pylist(rows), file)
        else:
            file.write_text("".join(json.dumps(row) + "\n" for row in rows))

    files = sorted(tree.glob("*.py"))
    write(files)
    distributed(server, file)
    url = f"qdrant+{server.address}"
    assert_equal(contents_at(url), local(f"qdrant+edge://{tmp_path / 'local'}", embedder, tree))
    write(files[3:])  # three files are gone
    files[4].write_text("def other():\n    return 1\n")
    write(files[3:])
    [report] = distributed(server, file)
    for gone in files[:3]:
        gone.unlink()
    assert report.deleted > 0
    assert_equal(contents_at(url), local(f"qdrant+edge://{tmp_path / 'local'}", embedder, tree))
    write([*files[3:], files[3]])
    with pytest.raises(RepositoryError, match="several texts of one path"):
        distributed(server, file)


@pytest.fixture(params=["milvus_address", "milvus_lite_address", "QDRANT_URL"])
def real_url(request):
    """A Milvus server, a served Milvus Lite, and the Qdrant server that the environment names."""
    if request.param != "QDRANT_URL":
        return f"milvus+{request.getfixturevalue(request.param)}"
    if not os.environ.get("QDRANT_URL"):
        pytest.skip("QDRANT_URL names no Qdrant server, such as http://localhost:6333")
    return f"qdrant+{os.environ['QDRANT_URL']}"


def test_a_real_server_holds_the_same(cluster, real_url, embedder, tmp_path):
    trees = two_trees(tmp_path, 0)
    name = f"c2llm_test_{uuid.uuid4().hex}"
    options = {"collection": name, "cluster": CLUSTER}
    try:
        ingest_distributed(trees, real_url, **options)
        two_trees(tmp_path, 1)
        reports = ingest_distributed(trees, real_url, **options)
        assert all(report.written and report.deleted for report in reports)
        wanted = local(f"qdrant+edge://{tmp_path / 'local'}", embedder, *trees)
        assert_equal(contents_at(real_url, name), wanted)
    finally:
        with open_store(real_url, name) as store:
            store.drop()


def test_the_command_reports_and_refuses(cluster, server, tmp_path, capsys):
    trees = two_trees(tmp_path, 0)
    url, common = f"qdrant+{server.address}", ["index-ray"]
    arguments = [*common, *map(str, trees), "--store", url, "--model", str(TIED), "--quantization", "int8"]
    assert run(arguments) == 0
    assert capsys.readouterr().out.startswith(("one: ", "two: "))
    assert run([*arguments[:2], "--store", url, "--json"]) == 0
    [report] = json.loads(capsys.readouterr().out)
    assert (report["repository"], report["written"]) == ("one", 0)
    with open_store(url) as store:
        assert store.spec.quantization == "int8"
    assert run([*common, str(tmp_path / "missing"), str(trees[0]), "--store", url]) == 1
    assert "unreadable" in capsys.readouterr().err
    assert run([*arguments, "--model", str(COMPRESSED)]) == 1
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1
    assert "another model" in said[0] or "--collection" in said[0]


@pytest.mark.parametrize("url", ["qdrant+edge://x", "qdrant+memory://", "milvus+lite://x.db"])
def test_an_embedded_store_is_refused_with_the_way_out(url):
    with pytest.raises(InputError, match=r"for one process; a cluster needs a server"):
        ingest_distributed(["."], url)


TOKEN = "glpat-aB3dE5gH7jK9mN1pQ3sT"


@pytest.mark.parametrize(
    "url",
    [
        *("https://user:hunter2@example.org/x.git", "https://hunter2@example.org/x.git"),
        *("https://example.org/x.git?t=hunter2", f"https://example.org/{TOKEN}/x.git"),
        *(f"https://example.org/x;t={TOKEN}/x.git", f"ssh://git@example.org/{TOKEN.replace('-', '%2D')}/x.git"),
    ],
)
def test_a_git_url_with_a_password_is_refused_and_not_shown(url):
    with pytest.raises(InputError, match="holds a password") as told:
        ingest_distributed([url], "qdrant+http://localhost:1")
    assert "hunter2" not in str(told.value)
    assert TOKEN not in str(told.value)


@pytest.mark.parametrize("url", ["http://[::1/x.git", "http://h/x\n.git", "http://h/\0x.git", "http://h/\ud800.git"])
def test_what_is_no_git_url_is_refused_in_one_line(url):
    with pytest.raises(InputError, match="is not a URL") as told:
        ingest_distributed([url], "qdrant+http://localhost:1")
    assert len(str(told.value).encode().splitlines()) == 1


def test_two_folders_of_one_repository_are_refused(tmp_path):
    (tmp_path / ".git").mkdir()
    with pytest.raises(InputError, match="in one repository"):
        ingest_distributed([tmp_path / "a", tmp_path / "b"], "qdrant+http://localhost:1")


def test_a_text_that_cannot_be_embedded_costs_itself_alone(cluster, server, tmp_path):
    tree = write_tree(tmp_path / "one", 0)
    (tree / "bad.py").write_text("def bad():\n    return 'UNLUCKY'\n")
    url = f"qdrant+{server.address}"
    options = IngestOptions(refused=tmp_path / "refused.jsonl")
    [report] = ingest_distributed([tree], url, cluster=replace(CLUSTER, make_embedder=Unlucky), options=options)
    [record] = [json.loads(line) for line in (tmp_path / "refused.jsonl").read_text().splitlines()]
    assert {record["id"]: record["reason"]} == report.refused
    assert "bad.py:1-2" in next(iter(report.refused.values()))
    assert report.stored == report.chunks - 1


class Unlucky:
    """An embedder that takes all texts but one."""

    def __init__(self):
        self.inner = C2LLMEmbedder.from_pretrained(str(TIED), dtype="float32")
        self.output_dim, self.fingerprint = self.inner.output_dim, self.inner.fingerprint
        self.tokens_seen = self.texts_cut = 0

    def encode_documents(self, texts, progress=None):
        if any("UNLUCKY" in text for text in texts):
            raise InputError("text 0 gives a vector with NaN")
        return self.inner.encode_documents(texts, progress=progress)


def test_ray_exports_what_each_actor_has_done(cluster, server, embedder, tmp_path):
    tree = write_tree(tmp_path / "one", 0)
    before = exported()
    [report] = distributed(server, tree)
    deadline = time.monotonic() + 60  # Ray's workers report every few seconds
    while exported()["chunks"] < before["chunks"] + report.chunks and time.monotonic() < deadline:
        time.sleep(1)
    done = {name: value - before[name] for name, value in exported().items()}
    assert done == {"files": report.files, "chunks": report.chunks, "tokens": report.tokens, "refused": 0}


def exported():
    """What the nodes' metrics ports show, summed over all actors."""
    pages = []
    for node in ray.nodes():
        with urllib.request.urlopen(f"http://127.0.0.1:{node['MetricsExportPort']}/metrics", timeout=10) as page:
            pages.append(page.read().decode())
    lines = [line for page in pages for line in page.splitlines()]
    return {
        name: sum(float(line.split()[-1]) for line in lines if line.startswith(f"ray_c2llm_{name}_total{{"))
        for name in ("files", "chunks", "tokens", "refused")
    }


# ---- what dies


def kill_one(cluster, fragment, random):
    """SIGKILL one process of the cluster whose title has `fragment`; say whether there was one."""
    raylets = {node.all_processes["raylet"][0].process.pid for node in cluster.list_all_nodes()}
    found = []
    for folder in Path("/proc").iterdir():
        try:
            title = (folder / "cmdline").read_bytes().decode(errors="replace")
            parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
        except (OSError, ValueError):
            continue
        if parent in raylets and fragment in title and title.startswith("ray::"):
            found.append(int(folder.name))
    if not found:
        return False
    os.kill(int(random.choice(found)), signal.SIGKILL)
    return True


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finding Ray's workers needs /proc")
@pytest.mark.parametrize("victim", ["Embedding", "(chunk)", "(write)", "driver", "server"])
def test_whatever_is_killed_nothing_is_lost_twice_or_stale(cluster, server, embedder, tmp_path, victim):
    """An actor, a task, the driver, the server: killed at random moments, then run to the end."""
    random = np.random.default_rng(int(os.environ.get("C2LLM_SEED", "0")))
    url, tree = f"qdrant+{server.address}", tmp_path / "one"
    kills, wanted = 0, int(os.environ.get("C2LLM_KILLS", "1"))
    for version in range(5 * wanted):
        write_tree(tree, version, files=200)
        process = driver(cluster, url, tree)
        kills += kill(victim, process, cluster, server, random)
        process.wait(180)
        if process.returncode:  # the driver was killed, or the server was gone for too long: start again
            again = driver(cluster, url, tree)
            assert again.wait(180) == 0, again.stdout.read()
        assert_equal(contents_at(url), local(f"qdrant+edge://{tmp_path / 'local'}", embedder, tree))
        if kills == wanted:
            break
    assert kills == wanted


def kill(victim, process, cluster, server, random):
    """Kill once while the run goes on; say whether there was anything to kill."""
    if victim == "driver":
        time.sleep(random.uniform(2, 9))
        was_running = process.poll() is None
        process.kill()
        return was_running
    if victim == "server":
        time.sleep(random.uniform(2, 9))
        was_running = process.poll() is None
        server.kill()
        time.sleep(1)
        server.start()
        return was_running
    while process.poll() is None:
        if kill_one(cluster, victim, random):
            return True
        time.sleep(0.01)
    return False


def driver(cluster, url, tree):
    command = [sys.executable, "-c", DRIVER, cluster.address, url, str(tree)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT)


def test_a_store_that_loses_rows_is_found_out(cluster, server, tmp_path):
    tree = write_tree(tmp_path / "one", 0, files=150)
    stop = threading.Event()

    def lose():
        with open_store(f"qdrant+{server.address}") as store:
            while not stop.is_set():
                store.delete([row.id for row in store.scan(source="one")][:1])
                time.sleep(0.01)

    distributed(server, write_tree(tmp_path / "other", 0, files=2))
    thread = threading.Thread(target=lose)
    thread.start()
    try:
        with pytest.raises(StoreError, match="not verified after 3 passes: one"):
            distributed(server, tree)
    finally:
        stop.set()
        thread.join()
    [report] = distributed(server, tree)
    assert report.stored == report.chunks
