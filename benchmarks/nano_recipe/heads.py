"""The heads that ship with nano: 128, 64 and 32 dimensions, trained on documented code of the packages installed here.

    nice python -m benchmarks.nano_recipe.heads [--texts 40000] [--steps 1000] [--seed 0] [--work work] [--out FOLDER]

The shipped ones took --texts 24000 --steps 2000.

Only distributions with a permissive license are read, none that must never be trained on, and no code or documentation
that the docstring benchmark holds. `heads.tsv`, beside the heads, lists each distribution with the pairs it gave.
Score the result with `python -m benchmarks.docstring_retrieval`, an embedder of each `output_dim`.
"""

from __future__ import annotations

import argparse
import csv
import json
import random
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from importlib.metadata import Distribution, distributions
from pathlib import Path

import numpy as np

from benchmarks.docstring_retrieval import VALIDATION, load
from benchmarks.nano_recipe.corpus import EXTENSIONS, allowed, wanted
from benchmarks.nano_recipe.metadata import licence_in, permissive
from c2llm_integrations.model.checkpoint import load_checkpoint
from c2llm_integrations.training.docstring_pairs import DocumentedCode, definitions, fingerprint
from c2llm_integrations.training.head import train_head
from c2llm_integrations.training.options import HeadOptions
from c2llm_integrations.training.token_state_cache import cache_states

WIDTHS = (128, 64, 32)
PAIRS_PER_DISTRIBUTION = 2500
TOKENS_READ = 256


def installed_pairs(sources: dict[str, tuple[str, int]]) -> Iterator[tuple[str, str]]:
    """Yield documentation and code of what is installed; fill `sources` with each distribution's license and pairs."""
    held = [*load(), *load(VALIDATION)]
    seen = {fingerprint(pair["bare"]) for pair in held} | {pair["doc"].lower() for pair in held}
    for one in sorted(distributions(), key=lambda found: found.metadata["Name"].lower()):
        license_name = licence_in(one.metadata)
        found = list(read_distribution(one)) if permissive(license_name) else []
        random.Random(f"0 {one.metadata['Name']}").shuffle(found)
        kept = 0
        for definition in found:
            keys = {fingerprint(definition.bare), definition.doc.lower()}
            if kept < PAIRS_PER_DISTRIBUTION and not keys & seen:
                seen |= keys
                kept += 1
                yield definition.doc, definition.bare
        if kept:
            sources[f"pypi:{one.metadata['Name']}={one.version}"] = license_name, kept


def read_distribution(one: Distribution) -> Iterator[DocumentedCode]:
    """Yield the documented definitions of one installed distribution that may be trained on."""
    package = one.metadata["Name"].lower().replace("_", "-")
    for path in one.files or ():
        file = Path(str(path.locate()))
        if not allowed(package, str(path)) or not file.is_file() or not wanted(str(path), file.stat().st_size):
            continue
        try:
            text = file.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue
        yield from definitions(text, EXTENSIONS[file.suffix])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=40_000)
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--work", type=Path, default=Path("work"))
    parser.add_argument("--out", type=Path, default=Path("c2llm_integrations/model/nano"))
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    checkpoint = load_checkpoint("nano")
    listed = options.work / f"texts-{options.texts}.json"
    if not listed.exists():
        sources: dict[str, tuple[str, int]] = {}
        pairs = list(installed_pairs(sources))
        random.Random(options.seed).shuffle(pairs)
        listed.write_text(json.dumps([text for pair in pairs[: options.texts // 2] for text in pair]))
        with (options.out / "heads.tsv").open("w") as table:
            rows = csv.writer(table, delimiter="\t", lineterminator="\n")
            rows.writerow(["source", "license", "pairs"])
            rows.writerows([source, license_name, kept] for source, (license_name, kept) in sources.items())
        print(f"{len(pairs):,} pairs", Counter(license_name for license_name, _ in sources.values()), flush=True)
    states = cache_states(checkpoint, json.loads(listed.read_text()), options.work, max_length=TOKENS_READ)
    groups = [[row, row + 1] for row in range(0, len(states.ends), 2)]
    for width in WIDTHS:
        head, losses = train_head(checkpoint, states, groups, HeadOptions(width, options.steps, seed=options.seed))
        head = replace(head, tensors={name: tensor.half() for name, tensor in head.tensors.items()})  # as nano's own
        head.save(options.out / f"head-{width}.safetensors")
        print(f"{width}: loss {losses[0]:.4f} → {np.mean(losses[-20:]):.4f}", flush=True)


if __name__ == "__main__":
    main()
