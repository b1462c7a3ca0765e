"""What many tests share: small checkpoints, a small project, and no way to a model hub."""

import os
from pathlib import Path

import pytest

# Set before any test imports a library that would read it.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ.pop("C2LLM_DEBUG", None)

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "data" / "golden"

PROJECT = {
    "README.md": "# Shop\n\nA small shop: prices, carts and orders.\n",
    "shop/__init__.py": "",
    "shop/prices.py": '''"""Prices in cents."""


def with_tax(cents: int, rate: float) -> int:
    """Add the tax to a net price and round to whole cents."""
    return round(cents * (1 + rate))


class Cart:
    """What a customer wants to buy."""

    def __init__(self) -> None:
        self.items: list[int] = []

    def total(self) -> int:
        """Sum up the prices of all items."""
        return sum(self.items)
''',
    "web/retry.js": """// Waits longer after each failure.
export function retryDelay(attempt) {
  return Math.min(1000 * 2 ** attempt, 30000);
}
""",
    ".env": "PASSWORD=hunter2\n",
}


@pytest.fixture(scope="session")
def tiny_model() -> Path:
    """The folder of a checkpoint with random weights and the real layout."""
    return GOLDEN / "c2llm-tiny-tied"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A folder with a little source code, a secret and no git."""
    folder = tmp_path / "shop-project"
    for name, text in PROJECT.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text, encoding="utf-8", newline="\n")
    return folder
