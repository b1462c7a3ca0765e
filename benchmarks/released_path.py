"""The 0.5B shape, random weights: this embedder against the way the released code computes.

The released way: the causal language model with all its logits, hidden states kept, batches of 32 padded texts in
input order, texts cut at 512 tokens (its logits would not fit in memory otherwise). Both in the same run, at the same
dtype, on the same real code, each in a process of its own so that peak memory is its own.

    python -m benchmarks.released_path [--dtype bfloat16] [--texts 96] [--tokenizer TOKENIZER.JSON]
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.common import own_peak_mb, process, report, seconds

SHAPE = {
    "hidden_size": 896,
    "intermediate_size": 4864,
    "num_hidden_layers": 24,
    "num_attention_heads": 14,
    "num_key_value_heads": 2,
    "vocab_size": 151936,
    "rope_theta": 1e6,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": True,
}
CUT = 512


def make_checkpoint(folder: Path, tokenizer: Path, dtype: str) -> None:
    import torch

    from c2llm_integrations.model import C2LLMConfig, C2LLMModel

    torch.manual_seed(0)
    with torch.device("meta"):
        model = C2LLMModel(C2LLMConfig(compressed_dim=896, pma_num_heads=32, **SHAPE))
    model = model.to(getattr(torch, dtype)).to_empty(device="cpu")
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.02)
    model.save_pretrained(folder)
    (folder / "tokenizer.json").write_bytes(tokenizer.read_bytes())


def code_texts(count: int) -> list[str]:
    """Real chunks with their real mix of lengths: every so-many-th of the installed networkx."""
    import importlib.util

    from c2llm_integrations.code.chunking import chunk_source
    from c2llm_integrations.code.repository import iter_sources, open_tree

    tree = open_tree(Path(importlib.util.find_spec("networkx").origin).parent)  # type: ignore[union-attr,arg-type]
    texts = [chunk.text for s in iter_sources(tree) for chunk in chunk_source(tree.name, s.path, s.text)]
    return texts[:: max(1, len(texts) // count)][:count]


def ours(folder: str, dtype: str, texts: list[str]) -> dict[str, Any]:
    from c2llm_integrations.embedder import C2LLMEmbedder

    embedder = C2LLMEmbedder.from_pretrained(folder, dtype=dtype, max_length=CUT)
    embedder.encode(texts[:2])
    embedder.tokens_seen = 0
    took = seconds(lambda: embedder.encode(texts))
    return {"tokens": embedder.tokens_seen, "seconds": took, "peak_mb": own_peak_mb()}


def released(folder: str, dtype: str, texts: list[str]) -> dict[str, Any]:
    import torch
    from tokenizers import Tokenizer
    from transformers import Qwen2Config, Qwen2ForCausalLM

    with torch.device("meta"):
        model = Qwen2ForCausalLM(Qwen2Config(**SHAPE))
    model = model.to(getattr(torch, dtype)).to_empty(device="cpu").eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter.data, std=0.02)
    model.model.rotary_emb = type(model.model.rotary_emb)(model.config)
    tokenizer = Tokenizer.from_file(f"{folder}/tokenizer.json")
    rows = [encoding.ids[:CUT] for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]

    def run() -> None:
        for start in range(0, len(rows), 32):
            batch = rows[start : start + 32]
            longest = max(map(len, batch))
            ids = torch.tensor([[0] * (longest - len(row)) + row for row in batch])
            mask = torch.tensor([[0] * (longest - len(row)) + [1] * len(row) for row in batch])
            with torch.inference_mode():
                model(input_ids=ids, attention_mask=mask, output_hidden_states=True)

    return {"tokens": sum(map(len, rows)), "seconds": seconds(run), "peak_mb": own_peak_mb()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--dtype", nargs="+", default=["bfloat16"])
    parser.add_argument("--texts", type=int, default=96)
    parser.add_argument("--tokenizer", type=Path, default=Path("tests/data/golden/c2llm-tiny-tied/tokenizer.json"))
    parser.add_argument("--child", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        side, folder, dtype = options.child
        print(json.dumps({"ours": ours, "released": released}[side](folder, dtype, code_texts(options.texts))))
        return
    rows = []
    for dtype in options.dtype:
        with tempfile.TemporaryDirectory() as folder:
            make_checkpoint(Path(folder), options.tokenizer, dtype)
            found = {}
            for side in ("released", "ours"):
                again = [sys.executable, "-m", "benchmarks.released_path", "--texts", str(options.texts)]
                done = process(*again, "--child", side, folder, dtype)
                found[side] = json.loads(done["output"].splitlines()[-1])
        for side, one in found.items():
            rows.append(
                {
                    "path": side,
                    "dtype": dtype,
                    "texts": options.texts,
                    "tokens": one["tokens"],
                    "tokens/s": one["tokens"] / one["seconds"],
                    "peak MB": one["peak_mb"],
                    "speed ratio": found["released"]["seconds"] / one["seconds"],
                    "memory ratio": one["peak_mb"] / found["released"]["peak_mb"],
                }
            )
    report("released_path", rows)


if __name__ == "__main__":
    main()
