"""An exported model in ONNX Runtime and OpenVINO beside our own CPU path: tokens a second.

    python -m benchmarks.onnx_export [--texts 96] [--half-billion 6] [--runs 5] [--minutes 5]

Needs the extra `onnx`, and openvino. The texts are real code with its real mix of lengths, cut at 512 tokens. Each side
has a process of its own with all cores, and they take turns; a figure is the median of the turns, a ratio to ours (as
"auto" chooses) the median of the turns' ratios. The others get the longest texts first, in batches of `BATCH_TOKENS`
padded tokens. The 0.5B has random weights; `--half-billion 0` leaves it out. nDCG@10 is of `nano`, the mean over
`data/docstring_pairs.jsonl.gz` and `validation_pairs.jsonl.gz`. Results: results/onnx_export.json.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.common import report, seconds
from benchmarks.embedder_speed import Side, code_texts
from benchmarks.speed_sides import TOKENIZER, Run, answer, make_checkpoint

CUT, BATCH_TOKENS, WARM_UP = 512, 2048, 4
Compute = Callable[[Sequence[str]], Any]


def ours(model: str, dtype: str) -> Compute:
    from c2llm_integrations.model.embedder import C2LLMEmbedder

    return C2LLMEmbedder.from_pretrained(model, dtype=dtype, device="cpu", max_length=CUT).encode


def batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Texts of like lengths together, longest first, as many as `BATCH_TOKENS` allow with their padding."""
    order = sorted(range(len(lengths)), key=lambda text: -lengths[text])
    while order:
        size = max(1, BATCH_TOKENS // max(1, lengths[order[0]]))
        yield order[:size]
        order = order[size:]


def exported(folder: str, run: Callable[[dict[str, Any]], Any]) -> Compute:
    """Tokenizing and padding, as a caller does it, around a runtime."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    tokenizer.no_padding()
    tokenizer.enable_truncation(CUT)

    def compute(texts: Sequence[str]) -> Any:
        found = tokenizer.encode_batch(list(texts))
        vectors: dict[int, Any] = {}
        for batch in batches([len(one.ids) for one in found]):
            shape = len(batch), max(len(found[text].ids) for text in batch)
            ids, mask = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
            for row, text in enumerate(batch):
                ids[row, : len(found[text].ids)], mask[row, : len(found[text].ids)] = found[text].ids, 1
            vectors |= zip(batch, run({"input_ids": ids, "attention_mask": mask}), strict=True)
        return np.stack([vectors[text] for text in range(len(texts))])

    return compute


def onnx_runtime(folder: str, file: str) -> Compute:
    import onnxruntime

    session = onnxruntime.InferenceSession(f"{folder}/onnx/{file}", providers=["CPUExecutionProvider"])
    return exported(folder, lambda inputs: session.run(None, inputs)[0])


def open_vino(folder: str, file: str) -> Compute:
    import openvino

    model = openvino.Core().compile_model(f"{folder}/onnx/{file}", "CPU", {"PERFORMANCE_HINT": "LATENCY"})
    return exported(folder, lambda inputs: model(inputs)[0])


# Name → what computes it, from a checkpoint and its export.
SIDES: dict[str, Callable[[str, str], Compute]] = {
    "ours, auto": lambda model, folder: ours(model, "auto"),
    "ours, float32": lambda model, folder: ours(model, "float32"),
    "ONNX Runtime, float32": lambda model, folder: onnx_runtime(folder, "model.onnx"),
    "ONNX Runtime, int8": lambda model, folder: onnx_runtime(folder, "model_quantized.onnx"),
    "OpenVINO, float32": lambda model, folder: open_vino(folder, "model.onnx"),
    "OpenVINO, int8": lambda model, folder: open_vino(folder, "model_quantized.onnx"),
}


def side(name: str, model: str, folder: str, texts: list[str]) -> Run:
    """Milliseconds of embedding the texts, by one of `SIDES`."""
    compute = SIDES[name](model, folder)
    compute(texts[:WARM_UP])
    return lambda: 1000 * seconds(lambda: compute(texts))


def speeds(title: str, model: str, folder: str, texts: list[str], options: argparse.Namespace) -> list[dict[str, Any]]:
    """One row for each side."""
    from c2llm_integrations.model.checkpoint import load_checkpoint

    encoded = load_checkpoint(model).tokenizer().encode_batch(texts, add_special_tokens=False)
    tokens = sum(min(len(one.ids), CUT) for one in encoded)
    begin, turns = time.perf_counter(), []
    with ExitStack() as stack:
        given = {"model": model, "folder": folder, "texts": texts}
        running = [
            stack.enter_context(Side("side", {"name": name, **given}, "benchmarks.onnx_export")) for name in SIDES
        ]
        while len(turns) < options.runs and (not turns or time.perf_counter() - begin < 60 * options.minutes):
            turns.append([one.run()["value"] for one in running])
    return [
        {
            "model": title,
            "side": name,
            "tokens/s": statistics.median(1000 * tokens / turn[number] for turn in turns),
            "times ours": statistics.median(turn[0] / turn[number] for turn in turns),
            "runs": len(turns),
            "texts": len(texts),
            "tokens": tokens,
            "nDCG@10": "",
        }
        for number, name in enumerate(SIDES)
    ]


# Those whose vectors are compared; the others' are theirs.
COMPARED = ("ours, auto", "ours, float32", "ONNX Runtime, int8")


def quality(compute: Compute) -> float:
    """Mean nDCG@10 of docstring → function, over both sets of 1,000 pairs."""
    from benchmarks.docstring_retrieval import DATA, VALIDATION, load, ranks

    found = []
    for file in (DATA, VALIDATION):
        pairs = load(file)
        queries, documents = (compute([pair[part].strip() for pair in pairs]) for part in ("doc", "bare"))
        places = ranks(queries @ documents.T)
        found.append(np.where(places <= 10, 1 / np.log2(1 + places), 0).mean())
    return float(np.mean(found))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=96, help="texts of a run of nano")
    parser.add_argument("--half-billion", type=int, default=6, help="texts of a run of the 0.5B")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--minutes", type=float, default=5, help="of each model; at least one turn is taken")
    parser.add_argument("--tokenizer", type=Path, default=TOKENIZER, help="of the 0.5B")
    options = parser.parse_args()
    from c2llm_integrations.model.onnx_export import export_onnx
    from c2llm_integrations.model.options import ModelOptions

    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        half = Path(temporary) / "half"
        for title, model, count in (("nano", "nano", options.texts), ("0.5B", str(half), options.half_billion)):
            if not count:
                continue
            if model != "nano":
                make_checkpoint(half, options.tokenizer, "bfloat16")
            folder = f"{temporary}/{title}"
            export_onnx(ModelOptions(name=model), Path(folder), int8=True)
            rows += speeds(title, model, folder, code_texts(count), options)
            for row in rows:
                if row["model"] == title == "nano" and row["side"] in COMPARED:
                    row["nDCG@10"] = quality(SIDES[row["side"]](model, folder))
        report("onnx_export", rows)


if __name__ == "__main__":
    import sys

    if sys.argv[1:] == ["side"]:
        answer(side)
    else:
        main()
