"""What trains the next nano: packed texts, drawn pieces, losses, and a run of two steps."""

import gzip
import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F
from transformers.models.bert import BertConfig, BertModel

from benchmarks.nano_recipe.distill import Recipe, batches, contrast, divergence
from benchmarks.nano_recipe.packed import Packed, bert, entropy, mean, pack, pool
from benchmarks.nano_recipe.pieces import FIELDS, KINDS, join, tabulate, texts_of, whole_documentation
from benchmarks.nano_recipe.shards import Corpus
from benchmarks.nano_recipe.train import MixedAdamW
from c2llm_integrations.model.checkpoint import NANO
from c2llm_integrations.model.hf_model import C2LLMModel
from c2llm_integrations.model.pma import PMA
from c2llm_integrations.training.docstring_pairs import definitions

ROOT = Path(__file__).parents[2]
PYTHON = '''
def wait_for(attempt, most):
    """Return the seconds before the next attempt.

    They double each time:

    >>> wait_for(3, 60)
    8
    """
    delay = 2 ** attempt
    if delay > most:
        return most
    return delay
'''
JAVA = """
class A {
    /**
     * Adds the tax to a net price.
     *
     * @return whole cents
     */
    public int withTax(int cents) {
        int more = cents / 5;
        return cents + more;
    }
}
"""
RUST = """
impl A {
    /// Adds the tax to a net price.
    ///
    /// Rounds to whole cents.
    pub fn with_tax(cents: u32) -> u32 {
        let more = cents / 5;
        cents + more
    }
}
"""


def rows() -> list[dict[str, str]]:
    found = []
    for language, source in (("python", PYTHON), ("java", JAVA), ("rust", RUST)):
        [one] = [one for one in definitions(source, language) if one.name != "A"]
        found.append({"package": language, **{name: getattr(one, name) for name in one.__slots__}})
    return found


def tiny_texts() -> Packed:
    # [5 6 7 20], [9] and [3 4 30 31 32]
    return pack(torch.arange(40, dtype=torch.int32), np.array([[5, 3, 20, 1], [9, 1, 0, 0], [3, 2, 30, 3]]))


def test_texts_of_two_pieces_lie_end_to_end() -> None:
    texts = tiny_texts()
    assert texts.ids.tolist() == [5, 6, 7, 20, 9, 3, 4, 30, 31, 32]
    assert texts.positions.tolist() == [0, 1, 2, 3, 0, 0, 1, 2, 3, 4]
    assert (texts.offsets.tolist(), texts.longest, texts.texts) == ([0, 4, 5, 10], 5, 3)
    around = pack(torch.arange(40, dtype=torch.int32), np.array([[0, 2, 38, 2], [39, 1, 0, 0]]), (101, 102))
    assert around.ids.tolist() == [101, 0, 1, 38, 39, 102, 101, 39, 102]


def test_packed_bert_and_pma_compute_what_the_padded_model_does() -> None:
    torch.manual_seed(0)
    sizes = {"num_hidden_layers": 2, "hidden_size": 32, "num_attention_heads": 4, "intermediate_size": 64}
    model = BertModel(BertConfig(vocab_size=40, **sizes), add_pooling_layer=False).eval()
    pma, texts = PMA(32, 16, 4), tiny_texts()
    with torch.no_grad():
        states = bert(model, texts)
        vectors, means = pool(pma, states, texts), mean(states, texts)
        bounds = texts.offsets.tolist()
        for row, (begin, end) in enumerate(itertools.pairwise(bounds)):
            alone = model(input_ids=texts.ids[None, begin:end].long()).last_hidden_state
            assert torch.allclose(states[begin:end], alone[0], atol=1e-5)
            assert torch.allclose(vectors[row], F.normalize(pma(alone), dim=-1)[0], atol=1e-5)
            assert torch.allclose(means[row], F.normalize(alone[0].mean(0), dim=0), atol=1e-5)


def test_entropy_is_one_for_even_attention_and_less_for_uneven() -> None:
    torch.manual_seed(0)
    pma, texts, states = PMA(32, 16, 4), tiny_texts(), torch.randn(10, 32)
    torch.nn.init.zeros_(pma.mab.fc_k.weight)
    assert entropy(pma, states, texts) == pytest.approx(1, abs=1e-5)
    torch.nn.init.normal_(pma.mab.fc_k.weight, std=5)
    assert entropy(pma, states, texts) < 0.9


def test_all_of_the_documentation_is_found_without_any_code() -> None:
    python, java, rust = map(whole_documentation, rows())
    assert python.startswith("Return the seconds before the next attempt.\n\nThey double")
    assert python.endswith("8")
    assert java == "Adds the tax to a net price.\n\n@return whole cents"
    assert rust == "Adds the tax to a net price.\n\nRounds to whole cents."


def test_each_kind_asks_for_its_own_piece_of_code() -> None:
    texts = [texts_of(pair, number) for number, pair in enumerate(rows())]
    table = join([tabulate(NANO / "tokenizer.json", [one], 1) for one in texts])
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(NANO / "tokenizer.json"))

    def words(kind: str, longest: int = 512) -> list[str]:
        drawn = pack(torch.from_numpy(table.flat.astype(np.int32)), table.draw(kind, np.arange(3), longest, longest))
        bounds = drawn.offsets.tolist()
        return [tokenizer.decode(drawn.ids[a:b].tolist()) for a, b in itertools.pairwise(bounds)]

    assert set(KINDS) == {"doc", "whole", "name", "body", "whole body"}
    assert sum(KINDS.values()) == pytest.approx(1)
    question, _, _, code, _, _ = words("doc")
    assert (question, code[:16]) == ("return the seconds before the next attempt .", "def wait for ( a")
    question, _, _, code, _, _ = words("body")
    assert question.startswith("def wait for ( attempt")
    assert question.endswith("the next attempt .")
    assert code.startswith("delay = 2")
    assert words("whole body")[0].endswith("8")
    assert words("name")[0] == "wait for"
    assert "wait for" not in words("name")[3]
    assert all(len(tokenizer.encode(one).ids) <= 6 for one in words("whole", 6))


def test_a_text_without_tokens_is_one_of_padding() -> None:
    empty = dict.fromkeys(FIELDS, "")
    table = tabulate(NANO / "tokenizer.json", [empty])
    assert table.draw("name", np.arange(1), 8, 8).tolist() == [[0, 1, 0, 0], [0, 1, 0, 0]]


def test_equal_names_are_no_negatives() -> None:
    scores = torch.tensor([[2.0, 9.0], [9.0, 2.0]])
    none, both = torch.zeros(2, 2, dtype=torch.bool), ~torch.eye(2, dtype=torch.bool)
    assert contrast(scores, none) > 6
    assert contrast(scores, both) == pytest.approx(0)


def test_divergence_is_zero_for_the_same_order_and_spacing_only() -> None:
    torch.manual_seed(0)
    scores: Tensor = torch.randn(4, 4)
    assert divergence(scores + 3, scores) == pytest.approx(0, abs=1e-6)
    assert divergence(scores.flip(0), scores) > 0.1


def test_an_epoch_has_every_pair_once_and_python_in_part() -> None:
    packages = np.repeat(np.arange(10), 40)
    python = packages < 5
    corpus = Corpus(None, None, packages, packages, python)  # type: ignore[arg-type]
    recipe = Recipe(batch=20, python=0.5)
    drawn = batches(corpus, recipe, np.random.default_rng(0))
    epoch = np.concatenate([next(drawn) for _ in range(13)])
    assert len(set(epoch.tolist())) == len(epoch)
    assert 60 <= python[epoch].sum() <= 140
    assert (~python[epoch]).sum() >= 140


def test_updates_smaller_than_bfloat16_can_tell_are_kept() -> None:
    weight = torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    optimizer = MixedAdamW([([weight], 1e-4, 0.0)])
    for _ in range(60):
        weight.grad = torch.ones(3, dtype=torch.bfloat16)
        optimizer.step(1.0)
    assert weight[0].item() < 0.996


def test_two_steps_from_pairs_to_a_checkpoint(tmp_path: Path) -> None:
    base = tmp_path / "base"
    base.mkdir()
    config = BertConfig(vocab_size=16000, hidden_size=384, num_hidden_layers=6, num_attention_heads=12)
    config.intermediate_size = 1536
    whole = BertModel(config, add_pooling_layer=False)
    save_file(whole.state_dict(), base / "model.safetensors")
    (base / "config.json").write_text(json.dumps(config.to_dict()))
    (base / "tokenizer.json").write_bytes((NANO / "tokenizer.json").read_bytes())
    pairs = tmp_path / "pairs.jsonl"
    pairs.write_text(
        "".join(json.dumps({**one, "name": f"{one['name']}{n}"}) + "\n" for n in range(16) for one in rows())
    )
    validation = tmp_path / "validation.jsonl.gz"
    with gzip.open(validation, "wt") as out:
        out.writelines(json.dumps(one) + "\n" for one in rows())

    def run(*arguments: object) -> str:
        command = [sys.executable, "-m", *map(str, arguments)]
        return subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout

    run("benchmarks.nano_recipe.shards", "write", pairs, "--out", tmp_path / "shards", "--processes", 1)
    shards = sorted((tmp_path / "shards").glob("*.xz"))
    assert len(shards) == 16
    tokens = tmp_path / "tokens"
    run("benchmarks.nano_recipe.shards", "tokens", *shards, "--base", base, "--out", tokens, "--processes", 1)
    told = run(
        *("benchmarks.nano_recipe.distill", tokens, "--base", base, "--out", tmp_path / "out", "--steps", 2),
        *("--batch", 4, "--device", "cpu", "--validation", validation, "--report", 0),
    )
    assert "2 steps" in told
    assert "three: " in told
    assert "nan" not in told
    for name, layers in (("six", 6), ("three", 3)):
        model = C2LLMModel.from_pretrained(tmp_path / "out" / name)
        assert len(model.backbone.encoder.layer) == layers
        assert (tmp_path / "out" / name / "pma-32.safetensors").exists()
