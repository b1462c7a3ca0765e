"""A head for late interaction: a linear layer over `nano`'s token states, trained on hard negatives of its vectors.

An experiment that `benchmarks.late_interaction` runs and measures; nothing of it is in the package. Each token state is
mapped by the layer and normalized; score(question, text) is the mean over the question's tokens of the largest dot
product with a token of the text. The backbone stays as it is, its states are computed once.
"""

from __future__ import annotations

import pickle
import random
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import Distribution, distributions
from pathlib import Path

import numpy as np
import torch
from torch.nn import functional as F

from benchmarks.docstring_languages import draw
from benchmarks.docstring_retrieval import VALIDATION, load
from benchmarks.nano_recipe.corpus import EXTENSIONS, allowed, wanted
from benchmarks.nano_recipe.metadata import licence_in, permissive
from benchmarks.nano_recipe.mine import read_definitions
from benchmarks.nano_recipe.nano import is_archive
from benchmarks.repositories import UNSEEN
from c2llm_integrations.model.checkpoint import load_checkpoint
from c2llm_integrations.model.dtype_choice import best_dtype
from c2llm_integrations.model.encoder import groups_of, load_encoder, pool_packed
from c2llm_integrations.model.pma import PMA, FoldedPMA
from c2llm_integrations.training.docstring_pairs import DocumentedCode, definitions, fingerprint
from c2llm_integrations.training.token_state_cache import token_ids

QUESTION_TOKENS, TEXT_TOKENS, TRAINED_TOKENS = 48, 256, 128
PYTHON_PAIRS, OTHER_PAIRS, PAIRS_OF_ARCHIVE, PAIRS_OF_DISTRIBUTION = 8000, 1300, 700, 2500
NOT_TRAINED_ON = frozenset({*UNSEEN, "jinja2", "urllib3", "websockets"})  # repository search is measured on them
BATCH, HARD, NEAREST, SKIPPED = 32, 9, 50, 2  # the two nearest others may well be right answers too
CPU = torch.device("cpu")


@dataclass
class Texts:
    """States (tokens, 384) float16 of texts end to end, where each starts and ends, and the vectors (n, 256)."""

    states: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    vectors: np.ndarray


def encode(texts: Sequence[str], longest: int, file: Path) -> Texts:
    """Compute the states and vectors of texts, or find them in `file`."""
    if file.exists():
        found: Texts = pickle.loads(file.read_bytes())
        return found
    checkpoint = load_checkpoint("nano")
    encoder = load_encoder(checkpoint, best_dtype(checkpoint, [CPU]), CPU)
    sizes = checkpoint.sizes
    pooling = FoldedPMA(PMA.from_tensors(checkpoint.tensors(), sizes.pma_num_heads, sizes.pma_layer_norm))
    tokens = [ids for ids, _ in token_ids(checkpoint, texts, longest)]
    lengths = np.array([len(ids) for ids in tokens])
    ends = np.cumsum(lengths)
    states, vectors = np.empty((ends[-1], 384), np.float16), np.empty((len(texts), 256), np.float32)
    order = np.argsort(lengths, kind="stable")
    for rows in np.split(order, np.flatnonzero(np.diff(np.cumsum(lengths[order]) // 2048)) + 1):
        found_states = encoder.states([tokens[row] for row in rows]).float()
        vectors[rows] = F.normalize(pool_packed(pooling, found_states, list(groups_of(lengths[rows].tolist()))))
        for row, one in zip(rows, found_states.split(lengths[rows].tolist()), strict=True):
            states[ends[row] - len(one) : ends[row]] = one.numpy()
    file.write_bytes(pickle.dumps(Texts(states, ends - lengths, ends, vectors), protocol=5))
    return encode(texts, longest, file)


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
            if kept < PAIRS_OF_DISTRIBUTION and not keys & seen:
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


def training_pairs(archives: Path, languages: Path) -> list[tuple[str, str]]:
    """Documentation and code, half of it Python; nothing of what is measured here."""
    sources: dict[str, tuple[str, int]] = {}
    installed = list(installed_pairs(sources))
    names = [name for name, (_, number) in sources.items() for _ in range(number)]
    plain = [name.partition(":")[2].partition("=")[0].lower().replace("-", "_") for name in names]
    rows = [("python", *pair) for name, pair in zip(plain, installed, strict=True) if name not in NOT_TRAINED_ON]
    held = [(pair["doc"], pair["bare"]) for pair in [*load(), *load(VALIDATION)]]
    held += [pair for pairs in draw(filter(is_archive, languages.iterdir())).values() for pair in pairs]
    seen = {key for doc, bare in [*held, *(row[1:] for row in rows)] for key in (doc.lower(), fingerprint(bare))}
    for archive in sorted(filter(is_archive, archives.iterdir())):
        found = [one for one in read_definitions(archive) if one.name]
        random.Random(0).shuffle(found)
        taken = 0
        for one in found:
            keys = {one.doc.lower(), fingerprint(one.bare)}
            if taken < PAIRS_OF_ARCHIVE and not keys & seen:
                seen |= keys
                taken += 1
                rows.append((one.language, one.doc, one.bare))
    random.Random(0).shuffle(rows)
    count: Counter[str] = Counter()
    kept = []
    for language, doc, bare in rows:
        count[language] += 1
        if count[language] <= (PYTHON_PAIRS if language == "python" else OTHER_PAIRS):
            kept.append((doc, bare))
    return kept


def nearest(questions: Texts, texts: Texts, number: int) -> np.ndarray:
    """(n, number) rows of the texts whose vectors are nearest, best first, by blocks of questions."""
    found = []
    for start in range(0, len(questions.vectors), 1000):
        scores = questions.vectors[start : start + 1000] @ texts.vectors.T
        best = np.argpartition(-scores, number - 1)[:, :number]
        found.append(np.take_along_axis(best, np.argsort(-np.take_along_axis(scores, best, 1), kind="stable"), 1))
    return np.concatenate(found)


def padded(texts: Texts, rows: np.ndarray, longest: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The rows' states end to end, and where each token of each row is among them (n, T), with the mask."""
    lengths = np.minimum((texts.ends - texts.starts)[rows], longest)
    flat = np.concatenate(
        [np.arange(texts.starts[row], texts.starts[row] + n) for row, n in zip(rows, lengths, strict=True)]
    )
    mask = torch.arange(int(lengths.max()))[None] < torch.from_numpy(lengths)[:, None]
    places = torch.zeros(mask.shape, dtype=torch.long)
    places[mask] = torch.arange(len(flat))
    return torch.from_numpy(texts.states[flat]).float(), places, mask


def start(width: int, states: np.ndarray) -> torch.Tensor:
    """(width, 384): what keeps most of the states' dot products, and gives them a length of 1 on average."""
    sample = states[:400_000:20].astype("f4")
    kept = np.linalg.eigh(sample.T @ sample)[1][:, -width:].T if width < 384 else np.eye(384, dtype="f4")
    return torch.from_numpy(kept / np.linalg.norm(sample @ kept.T, axis=1).mean()).float()


def train(questions: Texts, texts: Texts, width: int, steps: int, lr: float, seed: int) -> torch.Tensor:
    """(width, 384): InfoNCE of the score, alone and beside the first stage's, over hard and in-batch negatives."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    near = nearest(questions, texts, NEAREST)
    layer = torch.nn.Linear(384, width, bias=False)
    layer.weight.data = start(width, texts.states)
    scales = torch.nn.Parameter(torch.full((3,), 3.0))  # logarithms
    adam = torch.optim.Adam([{"params": [layer.weight]}, {"params": [scales], "lr": 3 * lr}], lr, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        adam, [lr, 3 * lr], total_steps=steps + 1, pct_start=0.1, cycle_momentum=False
    )
    target = torch.zeros(BATCH, dtype=torch.long)
    for _ in range(steps):
        rows = rng.choice(len(near), BATCH, replace=False)
        others = [rng.choice([n for n in near[row] if n != row][SKIPPED:], HARD, replace=False) for row in rows]
        drawn = np.concatenate([rows[:, None], np.stack(others)], 1)  # (B, K), the right one first
        states, places, mask = padded(questions, rows, QUESTION_TOKENS)
        asked = F.normalize(layer(states), dim=-1)[places] * mask[..., None]  # (B, Q, d)
        states, places, filled = padded(texts, drawn.ravel(), TRAINED_TOKENS)
        with torch.no_grad():  # which token is the nearest; only those are computed with gradients
            found = F.normalize(layer(states), dim=-1)[places].view(BATCH, 1 + HARD, places.shape[1], width)
            hidden = ~filled.view(BATCH, 1 + HARD, -1, 1)
            own = torch.einsum("bktd,bqd->bktq", found, asked).masked_fill(hidden, -9).argmax(2)
            cross = torch.einsum("ntd,bqd->bntq", found[:, 0], asked).masked_fill(hidden[None, :, 0], -9).argmax(2)
            where = places.view(BATCH, 1 + HARD, -1)
            own = where.gather(2, own)  # (B, K, Q)
            cross = where[:, 0].expand(BATCH, -1, -1).gather(2, cross)  # (B, B, Q)
            used, inverse = torch.cat([own, cross], 1).unique(return_inverse=True)
        chosen = F.normalize(layer(states[used]), dim=-1)[inverse]  # (B, K + B, Q, d)
        late = torch.einsum("bkqd,bqd->bk", chosen, asked) / mask.sum(1)[:, None]
        hard, batch = late[:, : 1 + HARD], late[:, 1 + HARD :]
        first = torch.from_numpy(np.einsum("bd,bkd->bk", questions.vectors[rows], texts.vectors[drawn]))
        alone, ours, theirs = scales.exp()
        loss = F.cross_entropy(hard * alone, target) + F.cross_entropy(hard * ours + first * theirs, target)
        loss = loss + F.cross_entropy(batch * alone, torch.arange(BATCH))
        adam.zero_grad()
        loss.backward()
        adam.step()
        schedule.step()
    return layer.weight.detach()
