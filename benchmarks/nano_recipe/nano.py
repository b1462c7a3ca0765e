"""`python -m benchmarks.nano_recipe.nano`: package archives → the bundled checkpoint, in one command."""

from __future__ import annotations

import argparse
import json
import math
import os
import random
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import numpy as np
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer
from transformers import PreTrainedModel

from benchmarks.nano_recipe.data import read_pairs, tokenize_pairs
from benchmarks.nano_recipe.fetch import fetch
from benchmarks.nano_recipe.mine import mine, sample
from benchmarks.nano_recipe.tokenizer import (
    PAD,
    UNKNOWN,
    choose_vocabulary,
    code_tokenizer,
    count_words,
    inherited_embeddings,
)
from benchmarks.nano_recipe.train import Recipe, encode, plan, train
from c2llm_integrations.model.checkpoint import RANGES, load_checkpoint
from c2llm_integrations.model.hf_model import C2LLMConfig, C2LLMModel
from c2llm_integrations.model.safetensors_files import write_tensors
from c2llm_integrations.training.int8_ranges import write_ranges

WIDTH, HEADS = 256, 8
VOCABULARY, NEW_WORDS = 16_000, 3_000
"""16,000 rows of 384 float16 numbers are the half of 25 MB that three layers and the PMA leave over."""
LAYERS = (0, 3, 5)
COUNTED = 40_000  # pairs that the vocabulary is counted on


def build_tokenizer(texts: Sequence[str], base: Path) -> Tokenizer:
    """A code tokenizer on the most useful part of the base model's vocabulary, and new words of code."""
    known = Tokenizer.from_file(str(base / "tokenizer.json")).get_vocab()
    counts: Counter[str] = count_words(texts)
    chosen = choose_vocabulary(counts, known, VOCABULARY, NEW_WORDS)
    return code_tokenizer({piece: row for row, piece in enumerate(chosen)})


def build_model(tokenizer: Tokenizer, base: Path, layers: Sequence[int] = LAYERS) -> C2LLMModel:
    """Some layers of the base BERT encoder with inherited embeddings, under a fresh PMA; float32."""
    backbone = json.loads((base / "config.json").read_text())
    kept = "hidden_size num_attention_heads intermediate_size hidden_act layer_norm_eps max_position_embeddings"
    nested = {"model_type": "bert", **{key: backbone[key] for key in kept.split()}}
    nested |= {"num_hidden_layers": len(layers), "vocab_size": tokenizer.get_vocab_size(), "type_vocab_size": 2}
    nested |= {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "pad_token_id": 0}
    config = C2LLMConfig(
        backbone_config=nested,
        compressed_dim=WIDTH,
        pma_num_heads=HEADS,
        hidden_size=nested["hidden_size"],
        vocab_size=nested["vocab_size"],
        num_hidden_layers=len(layers),
        max_position_embeddings=nested["max_position_embeddings"],
    )
    model = C2LLMModel(config)
    weights = load_file(base / "model.safetensors")
    known = Tokenizer.from_file(str(base / "tokenizer.json")).get_vocab()
    vocabulary = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    taken = {key: value for key, value in weights.items() if key.startswith("embeddings.")}
    taken.pop("embeddings.position_ids", None)
    name = "embeddings.word_embeddings.weight"
    taken[name] = inherited_embeddings([piece for piece, _ in vocabulary], known, weights[name])
    for new, old in enumerate(layers):
        prefix = f"encoder.layer.{old}."
        layer = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
        taken |= {f"encoder.layer.{new}.{key}": value for key, value in layer.items()}
    model.backbone.load_state_dict(taken)
    start_as_mean(model)
    return model


def start_as_mean(model: C2LLMModel) -> None:
    """Let the PMA begin as mean pooling through a random projection, where the base model's geometry still holds."""
    attention = model.mha_pma.mab
    torch.nn.init.orthogonal_(attention.fc_v.weight)
    torch.nn.init.orthogonal_(attention.fc_k.weight)
    torch.nn.init.orthogonal_(attention.fc_q.weight)
    torch.nn.init.normal_(attention.fc_o.weight, std=0.01)
    torch.nn.init.normal_(model.mha_pma.S, std=0.02)
    for linear in (attention.fc_q, attention.fc_k, attention.fc_v, attention.fc_o):
        torch.nn.init.zeros_(linear.bias)


def save(model: C2LLMModel, tokenizer: Tokenizer, folder: Path) -> None:
    """Write the official layout, weights as float16, replacing the weights last so that no half remains."""
    folder.mkdir(parents=True, exist_ok=True)
    model.config.architectures = ["C2LLMForEmbedding"]
    config = model.config.to_dict() | {"dtype": "float16"}
    wanted = "architectures backbone_config compressed_dim dtype embedding_method hidden_size max_position_embeddings"
    wanted += " model_type num_hidden_layers pma_ln pma_norm pma_norm_mode pma_num_heads vocab_size"
    files: dict[str, object] = {
        "config.json": {key: config[key] for key in wanted.split()},
        "config_sentence_transformers.json": {"prompts": {"query": "", "document": ""}, "similarity_fn_name": "cosine"},
        "modules.json": [{"idx": 0, "name": "0", "path": "", "type": "custom_transformer.C2LLMTransformer"}],
        "sentence_bert_config.json": {"max_seq_length": 512, "do_lower_case": False},
        "tokenizer_config.json": {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": 512,
            "pad_token": PAD,
            "unk_token": UNKNOWN,
            "padding_side": "right",
            "clean_up_tokenization_spaces": False,
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n")
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    state = {key: value.detach().to(torch.float16).contiguous() for key, value in model.state_dict().items()}
    (folder / RANGES).unlink(missing_ok=True)  # they are of the weights that were here
    write_tensors(state, folder / "model.safetensors", {"format": "pt"})


def vectors(model: C2LLMModel, tokenizer: Tokenizer, texts: Sequence[str]) -> torch.Tensor:
    """(len(texts), width) unit vectors, float32, of the first 512 tokens of each text."""
    ids = [np.array(encoding.ids[:512], np.uint16) for encoding in tokenizer.encode_batch(list(texts))]
    parts = plan([len(text) for text in ids], 4096)
    with torch.no_grad():
        found = torch.cat([encode(model, [ids[row] for row in part]) for part in parts])
    return torch.nn.functional.normalize(found[np.argsort(np.concatenate(parts))].float())


def reciprocal_rank(model: C2LLMModel, tokenizer: Tokenizer, rows: Sequence[dict[str, str]]) -> float:
    """Mean reciprocal rank of each row's code among all rows' code, asked for by its doc."""
    queries, documents = (vectors(model, tokenizer, [row[key] for row in rows]) for key in ("doc", "bare"))
    scores = queries @ documents.T
    ranks = (scores > scores.diagonal()[:, None]).sum(1) + 1
    return float((1 / ranks).mean())


def main(arguments: Sequence[str] | None = None) -> None:
    """Mine, train and save; see --help."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--archives", type=Path, nargs="*", default=[], help="folders of wheels, tarballs and .debs")
    parser.add_argument("--corpus", type=Path, help="a corpus.tsv: fetch its sources into the first of --archives")
    parser.add_argument("--held-out", type=Path, required=True, help="folder of the held-out packages' archives")
    parser.add_argument("--base", type=Path, required=True, help="folder of a BERT encoder (all-MiniLM-L6-v2)")
    parser.add_argument("--work", type=Path, required=True, help="where pairs.jsonl and corpus.tsv are kept")
    parser.add_argument("--out", type=Path, required=True, help="the checkpoint folder to write")
    parser.add_argument("--steps", type=int, default=Recipe.steps)
    parser.add_argument("--minutes", type=float, default=math.inf, help="finish early, learning rate and all")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args(arguments)
    torch.set_num_threads(1)  # the batches run beside each other instead
    torch.manual_seed(0)
    if options.corpus and (missing := fetch(options.corpus, options.archives[0])):
        print("not to be had:", ", ".join(missing), flush=True)
    if not (options.work / "pairs.jsonl").exists():
        found = [file for folder in options.archives for file in folder.iterdir()]
        mine([f for f in found if is_archive(f)], options.work, sorted(options.held_out.iterdir()))
    pairs = read_pairs(options.work / "pairs.jsonl")
    random.Random(0).shuffle(pairs)
    tokenizer = build_tokenizer([t for pair in pairs[:COUNTED] for t in (pair["doc"], pair["source"])], options.base)
    watched = sample(options.held_out.iterdir(), each=125, skip=125)  # the benchmark has the first 125 of each
    data = tokenize_pairs(tokenizer, pairs)
    model = build_model(tokenizer, options.base)
    torch.nn.Module.to(model, torch.bfloat16)
    # Twice as fast to train on a CPU as the fused kernel, whose backward pass is slow there.
    cast(PreTrainedModel, model.backbone).set_attn_implementation("eager")

    def report(step: int, loss: float, speed: float) -> None:
        save(model, tokenizer, options.out)
        mrr = reciprocal_rank(model, tokenizer, watched)
        print(f"step {step} loss {loss:.4f} tokens/s {speed:.0f} MRR {mrr:.4f}", flush=True)

    report(0, math.nan, math.nan)
    done = train(model, data, Recipe(steps=options.steps, minutes=options.minutes), report, options.threads)
    report(done, math.nan, math.nan)
    write_ranges(load_checkpoint(str(options.out)), options.work / "pairs.jsonl")


def is_archive(file: Path) -> bool:
    """Whether a file is an archive that read_archive understands, and not a signature or Debian's own part."""
    tarball = file.name.endswith((".tar.gz", ".tar.bz2", ".tar.xz")) and ".debian." not in file.name
    return tarball or file.suffix in (".whl", ".tgz", ".deb")


if __name__ == "__main__":
    main()
