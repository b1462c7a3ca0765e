"""The golden checkpoints and the vectors they must give."""

import json
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).parent / "data" / "golden"
NAMES = ("c2llm-tiny-tied", "c2llm-tiny-compressed")
TIED, COMPRESSED = (FOLDER / name for name in NAMES)


def expected(folder: Path) -> tuple[list[str], np.ndarray, list[int]]:
    """Inputs (prompt + text), raw vectors and token counts after truncation to 2048."""
    cases = json.loads((folder / "expected.json").read_text(encoding="utf-8"))["expected"]
    texts = [case["prompt"] + case["text"] for case in cases]
    return texts, np.array([case["raw"] for case in cases], np.float32), [case["tokens"] for case in cases]


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(-1) / (np.linalg.norm(a, axis=-1) * np.linalg.norm(b, axis=-1))
