"""A batch takes no new memory from the system where the batch before it freed enough."""

import platform
import subprocess
import sys

import pytest

COUNT = """
import resource
from c2llm_integrations.embedder import C2LLMEmbedder
nano = C2LLMEmbedder.from_pretrained("nano", dtype="float32", batch_tokens=1024)
texts = [f"def function_{n}(first, second): return first + second * {n}" for n in range(400)]
counts = []
for _ in range(5):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    nano.encode(texts)
    counts.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
print(*counts)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep memory")
def test_pages_are_asked_for_once():
    done = subprocess.run([sys.executable, "-c", COUNT], capture_output=True, text=True, check=True)
    first, *later = map(int, done.stdout.split())
    assert min(later) < first / 20
