"""Read a model folder or hub id: configuration, weights, tokenizer and prompts, all of them data and never code.

Only JSON and safetensors are ever opened. The released tensor names are mapped to short ones: the backbone's own
names under `backbone.`, the pooling's under `pma.`; `save_checkpoint` writes the released layout back.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from c2llm_integrations._utils.json_lines import MAX_VALUES, has_too_many_values, parse_json
from c2llm_integrations.errors import CheckpointError, InputError
from c2llm_integrations.model.safetensors_files import FLOATS, read_tensors, some_names, write_tensors

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor

    from c2llm_integrations.model.heads_and_projections import Head

RELEASED = "codefuse-ai/"  # what hub ids of the released models begin with
NANO = Path(__file__).parent / "nano"
# Beside the weights if they can be computed in 8 bits: the ranges measured with exactly these weights.
RANGES = "ranges.safetensors"
# Beside the weights if a head of another width was trained on exactly these.
HEAD_FILE = "head-{}.safetensors"
# The files of a checkpoint; anything else in a hub repository (code, pickles, other formats) is never fetched.
FILES = (
    *("config.json", "tokenizer.json", "tokenizer_config.json"),
    *("config_sentence_transformers.json", "modules.json", "sentence_bert_config.json"),
    *("model.safetensors", "model.safetensors.index.json", "model-*-of-*.safetensors", HEAD_FILE.format("*")),
)
_PMA_NAME = re.compile(r"(?:^|\.)(S|mab\.(?:fc_[qkvo]|ln[01])\.(?:weight|bias))$")
_BACKBONE_PREFIX = "plm_model.model."
CAUSAL_HEAD = re.compile(r"(?:^|\.)lm_head\.(?:weight|bias)$")
_SHARD_BYTES = 5_000_000_000  # the shard size transformers writes
# A letter for private use, which no vocabulary has: a tokenizer needs something to stand for it.
_STRANGE = "\ue000"
# The largest tokenizers have some tens of megabytes.
_MAX_JSON_BYTES = 2**28
# Twice the values that those have, of which each takes up to 170 bytes of memory; and the bytes of what is looked up
# letter by letter, of which each takes up to 370.
_MAX_TOKENIZER_VALUES, _MAX_PIECES_BYTES = 2**22, 2**22
# A few times what the largest models have: each costs time and memory before any weight is read.
_MAX_NUMBER = 2**26
_MAX_PARTS = {"layer": 1_000, "expert": 2**14, "label": 2**14}
# Type of a size → the types of its value in a file, the least one, and what an error says.
_EXPECTED: dict[Any, tuple[Any, int | None, str]] = {
    "int": (int, 1, "a whole number above zero"),
    "float": ((int, float), 0, "a number, at least zero"),
    "str": (str, None, "a name"),
}


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    """The sizes of the backbone, under the keys of its config.json, and of the PMA; 0 and "" for missing keys.

    Another text backbone than Qwen2 has keys of its own, which transformers reads.
    """

    output_dim: int
    pma_num_heads: int = 32
    pma_layer_norm: bool = True
    model_type: str = "qwen2"
    hidden_size: int = 0
    intermediate_size: int = 0
    num_hidden_layers: int = 0
    num_attention_heads: int = 0
    num_key_value_heads: int = 0
    vocab_size: int = 0
    type_vocab_size: int = 2
    max_position_embeddings: int = 0
    hidden_act: str = ""
    rms_norm_eps: float = 1e-6
    layer_norm_eps: float = 1e-12
    rope_theta: float = 10000.0
    rope_type: str = "default"
    use_sliding_window: bool = False
    position_embedding_type: str = "absolute"
    is_decoder: bool = False
    pad_token_id: int | None = None

    @classmethod
    def read(cls, raw: Mapping[str, Any], file: Path) -> ModelConfig:
        """Read a config.json.

        Raises:
            CheckpointError: For a size that is not a whole number above zero, a number that no model has, heads that do
                not divide their width, or a backbone without any width.

        """
        backbone: Any = raw.get("backbone_config") or {**raw, "model_type": "qwen2"}
        if not isinstance(backbone, Mapping):
            raise CheckpointError(f"{file} has backbone_config {backbone!r}, expected an object")
        _check_numbers(raw, file)
        said = {one.name: backbone[one.name] for one in fields(cls) if backbone.get(one.name) is not None}
        rope = backbone.get("rope_parameters")
        rope = rope if isinstance(rope, Mapping) else {}
        said["rope_theta"] = rope.get("rope_theta", said.get("rope_theta", cls.rope_theta))
        said["rope_type"] = "scaled" if backbone.get("rope_scaling") else rope.get("rope_type", cls.rope_type)
        width, heads = raw.get("compressed_dim"), raw.get("pma_num_heads")
        said["output_dim"] = said.get("hidden_size") if width is None else width
        said["pma_num_heads"] = cls.pma_num_heads if heads is None else heads
        said["pma_layer_norm"] = bool(raw.get("pma_ln", True))
        _check_sizes(said, file)
        return cls(**said)

    @property
    def key_heads(self) -> int:
        """Heads of keys and values, which groups of query heads share."""
        return self.num_key_value_heads or self.num_attention_heads


@dataclass(frozen=True)
class Checkpoint:
    """A C2LLM checkpoint on disk. `name` is what the user asked for, `folder` where its files are.

    `head`, if any, replaces its PMA.
    """

    name: str
    folder: Path
    config: dict[str, Any]
    prompts: dict[str, str]
    head: Head | None = None

    @property
    def revision(self) -> str | None:
        """The commit at which the hub's own cache holds this folder; None for any other folder."""
        return self.folder.name if self.folder.parent.name == "snapshots" else None

    def with_head(self, head: Head) -> Checkpoint:
        """Return this checkpoint with another PMA; raises CheckpointError for a head of other weights."""
        if (digest := self.digest()) != head.weights:
            base = head.base + (f" at {head.revision}" if head.revision else "")
            raise CheckpointError(
                f"the head was trained on {base} (weights {head.weights}), {self.name} has {digest}; "
                "load that model, or train a head for this one"
            )
        own = {"compressed_dim": head.output_dim, "pma_num_heads": head.num_heads, "pma_ln": head.layer_norm}
        return replace(self, config={**self.config, **own}, head=head)

    @cached_property
    def sizes(self) -> ModelConfig:
        """The sizes in `config`, checked and typed."""
        return ModelConfig.read(self.config, self.folder / "config.json")

    @property
    def output_dim(self) -> int:
        """Width of the vectors this checkpoint was trained to give."""
        return self.sizes.output_dim

    def bundled_widths(self) -> list[int]:
        """Return the widths of the heads that stand beside the weights, widest first."""
        names = (re.fullmatch(r"head-(\d+)", file.stem) for file in self.folder.glob(HEAD_FILE.format("*")))
        return sorted((int(name[1]) for name in names if name), reverse=True)

    def tokenizer(self) -> Tokenizer:
        """Return the checkpoint's fast tokenizer, without truncation or padding of its own."""
        from tokenizers import Tokenizer

        file = self.folder / "tokenizer.json"
        _check_tokenizer(file)
        try:
            tokenizer = Tokenizer.from_file(str(file))
            tokenizer.no_truncation()
            tokenizer.no_padding()  # which may ask for more memory than there is, and ends the process then
            # Nothing here asks for special tokens, whose template may name any number of them any number of times.
            tokenizer.encode(_STRANGE, add_special_tokens=False)
        except BaseException as error:  # the library raises nothing narrower; its panics are not Exceptions
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            raise CheckpointError(f"{file} is not a tokenizer: {error}; fetch the checkpoint again") from error
        largest, rows = max(tokenizer.get_vocab().values(), default=0), self.sizes.vocab_size
        if rows and largest >= rows:
            raise CheckpointError(
                f"{file} has token {largest}, config.json only {rows} rows of embeddings; fetch the checkpoint again"
            )
        return tokenizer

    def blank_token(self, tokenizer: Tokenizer) -> int:
        """Return the token that stands for a text without tokens: the padding token where there is one."""
        candidates = [self.config.get("pad_token_id"), self.sizes.pad_token_id]
        candidates += [tokenizer.token_to_id(name) for name in ("<|endoftext|>", "[PAD]", "<pad>")]
        token = next((token for token in candidates if token is not None), 0)
        if not isinstance(token, int) or not 0 <= token < (self.sizes.vocab_size or token + 1):
            raise CheckpointError(
                f"{self.folder} pads with token {token!r}, but has no such row of embeddings; repair its config.json"
            )
        return token

    def tensors(self) -> dict[str, Tensor]:
        """Return every weight under its short name, as stored; raise CheckpointError naming any unknown ones."""
        found: dict[str, Tensor] = {}
        strange: list[str] = []
        for file in _weight_files(self.folder):
            tensors, _ = read_tensors(file, skip=CAUSAL_HEAD)
            for name in list(tensors):
                short = short_name(name)
                if short is None or short in found:
                    strange.append(name)
                else:
                    found[short] = tensors.pop(name)
        if strange:
            raise CheckpointError(
                f"{self.folder} holds tensors that are not C2LLM's, or are stored twice: {some_names(strange)}; "
                "fetch it again"
            )
        for name, tensor in found.items():
            if str(tensor.dtype) not in FLOATS:
                raise CheckpointError(
                    f"{self.folder} stores {name} as {tensor.dtype}, quantized by another program; "
                    f"expected {', '.join(sorted(FLOATS))}"
                )
        if self.head is not None:
            found = {name: tensor for name, tensor in found.items() if not name.startswith("pma.")}
            found |= self.head.tensors
        return found

    def digest(self) -> str:
        """Return the SHA-256 (32 hex digits) of what decides a vector but a head: architecture, tokenizer, weights."""
        return self._digest if self.head is None else self.head.weights

    @cached_property
    def _digest(self) -> str:
        # Read once: loading asks for it again, and 25 MB take 20 ms.
        total = hashlib.sha256()
        ignored = {"auto_map", "transformers_version", "tokenizer_name_or_path", "attn_implementation", "architectures"}
        config = {key: value for key, value in self.config.items() if key not in ignored}
        total.update(json.dumps(config, sort_keys=True).encode())
        for file in [self.folder / "tokenizer.json", *_weight_files(self.folder)]:
            total.update(_file_digest(file))
        return total.hexdigest()[:32]


def load_checkpoint(name: str, revision: str | None = None) -> Checkpoint:
    """Find a checkpoint by the name "nano", a folder, or a hub id `owner/name`; read its configuration.

    A hub id is fetched once and then read from the local cache. The released ids never mean a folder here, which may
    have come with a checkout; `./codefuse-ai/…` does.

    Raises:
        CheckpointError: For a folder that is not a C2LLM checkpoint.
        InputError: For a name that is neither.

    """
    folder = _locate(name, revision)
    config = _read_json(folder / "config.json")
    if config.get("model_type") != "c2llm":
        raise CheckpointError(
            f"{name} is a {config.get('model_type')!r} checkpoint, not 'c2llm'; choose a C2LLM model such as "
            "nano or codefuse-ai/C2LLM-0.5B"
        )
    if config.get("embedding_method", "pma") != "pma" or config.get("pma_norm"):
        raise CheckpointError(
            f"{name} pools with {config.get('embedding_method')!r} and pma_norm {config.get('pma_norm')!r}; "
            "only the published 'pma' without pma_norm is supported"
        )
    prompts_file = folder / "config_sentence_transformers.json"
    prompts = _read_json(prompts_file).get("prompts") or {} if prompts_file.is_file() else {}
    if not isinstance(prompts, dict) or not all(
        isinstance(key, str) and isinstance(value, str) for key, value in prompts.items()
    ):
        raise CheckpointError(f"{prompts_file} has prompts that are not strings; repair the file")
    checkpoint = Checkpoint(str(name), folder, config, dict(prompts))
    _ = checkpoint.sizes  # a bad size is reported now
    return checkpoint


def lasting_name(name: str) -> str:
    """Return a name that means the same checkpoint everywhere: a folder's absolute path, else the name itself."""
    is_folder = name != "nano" and not name.startswith(RELEASED) and Path(name).is_dir()
    return str(Path(name).resolve()) if is_folder else name


def save_checkpoint(source: Checkpoint, tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Write a checkpoint in the released layout.

    Weights are written beside their place and moved there, so that a good checkpoint is never left half overwritten.

    Args:
        source: Where the tokenizer, configuration and prompts come from.
        tensors: The weights, under their short names.
        folder: Made if it is not there.

    """
    from huggingface_hub import split_torch_state_dict_into_shards

    folder.mkdir(parents=True, exist_ok=True)
    for stale in [folder / RANGES, *folder.glob(HEAD_FILE.format("*"))]:  # measured and trained on other weights
        stale.unlink(missing_ok=True)
    for pattern in FILES:
        for file in source.folder.glob(pattern):
            if not file.name.startswith(("model", "head-")) and file.parent != folder:
                shutil.copyfile(file, folder / file.name)
    named = {long_name(name): tensor.contiguous() for name, tensor in tensors.items()}
    split = split_torch_state_dict_into_shards(named, max_shard_size=_SHARD_BYTES)
    for file_name, names in split.filename_to_tensors.items():
        write_tensors({name: named[name] for name in names}, folder / file_name, {"format": "pt"})
    listing = folder / "model.safetensors.index.json"
    if split.is_sharded:
        index = {"metadata": split.metadata, "weight_map": split.tensor_to_filename}
        listing.write_text(json.dumps(index, indent=1))
    else:
        listing.unlink(missing_ok=True)


def _locate(name: str, revision: str | None) -> Path:
    if name == "nano":
        return NANO
    folder = Path(os.path.expanduser(name))
    if name.strip() and folder.is_dir() and not name.startswith(RELEASED):
        return folder
    if not re.fullmatch(r"\w[\w.-]*/[\w.-]+", name):
        raise InputError(f"no model folder {name!r}; give a folder, 'nano', or a hub id such as codefuse-ai/C2LLM-0.5B")
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=list(FILES)))
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError, ValueError) as error:
        reason = str(error).strip().splitlines()[0]
        raise CheckpointError(
            f"could not fetch {name} from the hub: {reason}; download it and give the folder"
        ) from error


def _need(file: Path) -> Path:
    if not file.is_file():
        raise CheckpointError(f"{file.parent} has no {file.name}; a C2LLM folder needs it")
    return file


def _need_json(file: Path) -> Path:
    if (size := _need(file).stat().st_size) > _MAX_JSON_BYTES:
        raise CheckpointError(f"{file} has {size:,} bytes, at most {_MAX_JSON_BYTES:,} are read; fetch it again")
    return file


def _read_json(file: Path, most: int = MAX_VALUES) -> dict[str, Any]:
    _need_json(file)
    try:
        text = file.read_text(encoding="utf-8")
        if has_too_many_values(text, most):
            raise ValueError("it has millions of values")
        data = parse_json(text)
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{file} is not readable JSON: {error}; fetch it again") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{file} holds a {type(data).__name__}, expected an object; fetch it again")
    return data


def _check_tokenizer(file: Path) -> None:
    """Raise CheckpointError for a tokenizer that would take gigabytes of memory to load."""
    said = _read_json(file, _MAX_TOKENIZER_VALUES)
    model, added = said.get("model"), said.get("added_tokens")
    pieces = model.get("vocab") if isinstance(model, Mapping) else None  # with their scores, only in a Unigram model
    found = [one[0] for one in pieces if isinstance(one, list) and one] if isinstance(pieces, list) else []
    found += [one.get("content") for one in added if isinstance(one, Mapping)] if isinstance(added, list) else []
    size = sum(len(one.encode("utf-8", "surrogatepass")) for one in found if isinstance(one, str))
    if size > _MAX_PIECES_BYTES:
        raise CheckpointError(
            f"{file} has pieces and added tokens of {size:,} bytes, at most {_MAX_PIECES_BYTES:,} are built; "
            "fetch it again, or take a checkpoint with a smaller vocabulary"
        )


def _check_numbers(config: Mapping[str, Any], file: Path) -> None:
    """Raise CheckpointError for a number, by whatever name and however deep, that no model has."""
    todo: list[tuple[str, Any]] = list(config.items())
    while todo:
        name, value = todo.pop()
        if isinstance(value, Mapping):  # what transformers made of a file names its labels by numbers
            todo += [(str(key), one) for key, one in value.items()]
        elif isinstance(value, list):
            todo += [(name, one) for one in value]
        elif isinstance(value, int) and not re.search("theta|seed", name):
            is_width = "size" in name or "dim" in name  # such as shared_expert_intermediate_size
            parts = [] if is_width else [most for part, most in _MAX_PARTS.items() if part in name]
            if value > (most := min(parts, default=_MAX_NUMBER)):
                raise CheckpointError(f"{file} has {name} {value}, at most {most} are built; repair the file")


def _check_sizes(said: Mapping[str, Any], file: Path) -> None:
    for one in fields(ModelConfig):
        if one.name not in said or one.type not in _EXPECTED or one.name == "type_vocab_size":  # some have none
            continue
        value = said[one.name]
        types, least, expected = _EXPECTED[one.type]
        if not isinstance(value, types) or isinstance(value, bool) or not (least is None or value >= least):
            key = "compressed_dim" if one.name == "output_dim" else one.name
            raise CheckpointError(f"{file} has {key} {value!r:.80}, expected {expected}")
    heads, width = said.get("num_attention_heads", 1), said.get("hidden_size", 0)
    for what, whole, part in (
        ("hidden_size by num_attention_heads", width, heads),
        ("num_attention_heads by num_key_value_heads", heads, said.get("num_key_value_heads", 1)),
        ("compressed_dim by pma_num_heads", said["output_dim"], said["pma_num_heads"]),
    ):
        if whole % part:
            raise CheckpointError(f"{file} cannot divide {what}: {whole} by {part}")


def _weight_files(folder: Path) -> list[Path]:
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return [_need(folder / "model.safetensors")]
    listed = _read_json(index).get("weight_map")
    if not isinstance(listed, dict) or not all(isinstance(name, str) for name in listed.values()):
        raise CheckpointError(f"{index} has no weight_map of tensor to file; fetch it again")
    names = sorted(set(listed.values()))
    if any(Path(name).name != name for name in names):
        raise CheckpointError(f"{index} points outside its folder; only plain file names are allowed")
    return [_need(folder / name) for name in names]


def short_name(name: str) -> str | None:
    """Return the short name of a tensor that the released files hold; None for any other, such as the causal head."""
    if match := _PMA_NAME.search(name):
        return f"pma.{match[1]}"
    if name.startswith(_BACKBONE_PREFIX):
        return "backbone." + name.removeprefix(_BACKBONE_PREFIX)
    return None


def long_name(name: str) -> str:
    """Return the released name of a tensor that is known here by a short one."""
    room, _, rest = name.partition(".")
    return ("mha_pma." if room == "pma" else _BACKBONE_PREFIX) + rest


def _file_digest(file: Path) -> bytes:
    # The hub's cache names a large file by its own SHA-256, which saves reading gigabytes again.
    target = file.resolve().name
    if file.is_symlink() and re.fullmatch(r"[0-9a-f]{64}", target):
        return bytes.fromhex(target)
    total = hashlib.sha256()
    with _need(file).open("rb") as opened:
        while block := opened.read(1 << 22):
            total.update(block)
    return total.digest()
