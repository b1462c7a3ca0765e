"""A model folder or hub id → configuration, weights, tokenizer and prompts; all of it data, none of it code.

Only JSON and safetensors are ever opened. The released tensor names are mapped to short ones: the backbone's own
names under `backbone.`, the pooling's under `pma.`; `save_checkpoint` writes the released layout back.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors import SafetensorError, safe_open

from c2llm_integrations.errors import CheckpointError, InputError

if TYPE_CHECKING:
    from tokenizers import Tokenizer
    from torch import Tensor

    from c2llm_integrations.heads import Head

NANO = Path(__file__).parent / "nano"
# What a checkpoint is made of; anything else in a hub repository (code, pickles, other formats) is never fetched.
FILES = (
    "config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "config_sentence_transformers.json",
    "modules.json",
    "sentence_bert_config.json",
    "model.safetensors",
    "model.safetensors.index.json",
    "model-*-of-*.safetensors",
)
# Beside the weights where they can be computed in 8 bits: what was measured of them, and of no others.
RANGES = "ranges.safetensors"
_PMA_NAME = re.compile(r"(?:^|\.)(S|mab\.(?:fc_[qkvo]|ln[01])\.(?:weight|bias))$")
_BACKBONE_PREFIX = "plm_model.model."
_HEAD = re.compile(r"(?:^|\.)lm_head\.(?:weight|bias)$")
_SIZES = (
    "hidden_size",
    "intermediate_size",
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "vocab_size",
    "max_position_embeddings",
)
_DTYPES = frozenset({"torch.float16", "torch.bfloat16", "torch.float32", "torch.float64"})
_SHARD_BYTES = 5_000_000_000  # the shard size transformers writes


@dataclass(frozen=True)
class Checkpoint:
    """A C2LLM checkpoint on disk. `name` is what the user asked for, `folder` where its files are.

    `head` stands in the place of its PMA, if one was put there.
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

    @property
    def backbone(self) -> dict[str, Any]:
        """The backbone's configuration, with its `model_type`."""
        nested: dict[str, Any] | None = self.config.get("backbone_config")
        return nested or {**self.config, "model_type": "qwen2"}

    @property
    def output_dim(self) -> int:
        """Width of the vectors this checkpoint was trained to give."""
        return int(self.config.get("compressed_dim") or self.backbone["hidden_size"])

    def tokenizer(self) -> Tokenizer:
        """The checkpoint's fast tokenizer, without truncation or padding of its own."""
        from tokenizers import Tokenizer

        file = _need(self.folder / "tokenizer.json")
        try:
            tokenizer = Tokenizer.from_file(str(file))
        except Exception as error:  # the library raises nothing narrower
            raise CheckpointError(f"{file} is no tokenizer: {error}; fetch the checkpoint again") from error
        largest, rows = max(tokenizer.get_vocab().values(), default=0), self.backbone.get("vocab_size")
        if rows is not None and largest >= rows:
            raise CheckpointError(
                f"{file} has token {largest}, config.json only {rows} rows of embeddings; fetch the checkpoint again"
            )
        tokenizer.no_truncation()
        tokenizer.no_padding()
        return tokenizer

    def blank_token(self, tokenizer: Tokenizer) -> int:
        """The token that stands for a text without tokens: the padding token where there is one."""
        candidates = [self.config.get("pad_token_id"), self.backbone.get("pad_token_id")]
        candidates += [tokenizer.token_to_id(name) for name in ("<|endoftext|>", "[PAD]", "<pad>")]
        token = next((int(token) for token in candidates if token is not None), 0)
        if not 0 <= token < int(self.backbone.get("vocab_size", token + 1)):
            raise CheckpointError(
                f"{self.folder} pads with token {token}, but has no such row of embeddings; repair its config.json"
            )
        return token

    def tensors(self) -> dict[str, Tensor]:
        """Every weight under its short name, as stored; raises CheckpointError naming any that belongs nowhere."""
        found: dict[str, Tensor] = {}
        strange: list[str] = []
        for file in _weight_files(self.folder):
            try:
                with safe_open(file, framework="pt") as opened:
                    for name in opened.keys():  # noqa: SIM118 (a safe_open is no mapping)
                        short = _short_name(name)
                        if short is None or short in found:
                            strange.extend([] if _HEAD.search(name) else [name])
                        else:
                            found[short] = opened.get_tensor(name)
            except (SafetensorError, OSError) as error:
                raise CheckpointError(f"{file} is no whole safetensors file: {error}; fetch it again") from error
        if strange:
            names = ", ".join(sorted(strange))
            raise CheckpointError(
                f"{self.folder} holds tensors that are not C2LLM's, or stand there twice: {names}; fetch it again"
            )
        for name, tensor in found.items():
            if str(tensor.dtype) not in _DTYPES:
                raise CheckpointError(
                    f"{self.folder} stores {name} as {tensor.dtype}, quantized by another program; "
                    f"expected {', '.join(sorted(_DTYPES))}"
                )
        if self.head is not None:
            found = {name: tensor for name, tensor in found.items() if not name.startswith("pma.")}
            found |= self.head.tensors
        return found

    def digest(self) -> str:
        """SHA-256 (32 hex digits) of all that decides a vector but a head: architecture, tokenizer and weights."""
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

    A hub id is fetched once and then read from the local cache. Raises CheckpointError for a folder that is not
    a C2LLM checkpoint, InputError for a name that is neither.
    """
    folder = _locate(name, revision)
    config = _read_json(_need(folder / "config.json"))
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
    _check_sizes(folder, config)
    prompts_file = folder / "config_sentence_transformers.json"
    prompts = _read_json(prompts_file).get("prompts") or {} if prompts_file.is_file() else {}
    if not isinstance(prompts, dict) or not all(
        isinstance(key, str) and isinstance(value, str) for key, value in prompts.items()
    ):
        raise CheckpointError(f"{prompts_file} has prompts that are not strings; repair the file")
    return Checkpoint(str(name), folder, config, dict(prompts))


def lasting_name(name: str) -> str:
    """Return a checkpoint's name such that it means the same from every folder: that of a folder from the root."""
    return str(Path(name).resolve()) if name != "nano" and Path(name).is_dir() else name


def save_checkpoint(source: Checkpoint, tensors: Mapping[str, Tensor], folder: Path) -> None:
    """Write short-named `tensors` and the source's other files to `folder` in the released layout.

    Weights are written beside their place and moved there, so that a good checkpoint is never left half overwritten.
    """
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RANGES).unlink(missing_ok=True)
    for pattern in FILES:
        for file in source.folder.glob(pattern):
            if not file.name.startswith("model") and file.parent != folder:
                shutil.copyfile(file, folder / file.name)
    shards = list(_shards({long_name(name): tensor.contiguous() for name, tensor in tensors.items()}))
    index: dict[str, str] = {}
    for number, shard in enumerate(shards, 1):
        name = "model.safetensors" if len(shards) == 1 else f"model-{number:05d}-of-{len(shards):05d}.safetensors"
        save_tensors(shard, folder / name, {"format": "pt"})
        index |= dict.fromkeys(shard, name)
    listing = folder / "model.safetensors.index.json"
    if len(shards) > 1:
        size = sum(tensor.nbytes for shard in shards for tensor in shard.values())
        listing.write_text(json.dumps({"metadata": {"total_size": size}, "weight_map": index}, indent=1))
    else:
        listing.unlink(missing_ok=True)


def save_tensors(tensors: dict[str, Tensor], file: Path, metadata: dict[str, str]) -> None:
    """Write safetensors beside their place first, so that a good file is never half overwritten."""
    from safetensors.torch import save_file

    partial = Path(f"{file}.partial")
    save_file(tensors, partial, metadata)
    partial.chmod(0o644)  # the library writes it for its owner alone
    partial.replace(file)


def _locate(name: str, revision: str | None) -> Path:
    if name == "nano":
        return NANO
    folder = Path(os.path.expanduser(name))
    if name.strip() and folder.is_dir():
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


def _read_json(file: Path) -> dict[str, Any]:
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{file} is not readable JSON: {error}; fetch it again") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"{file} holds a {type(data).__name__}, expected an object; fetch it again")
    return data


def _check_sizes(folder: Path, config: dict[str, Any]) -> None:
    """Every size that stands in the configuration is a whole number above zero, and heads divide their widths."""
    backbone = config.get("backbone_config") or config
    if not isinstance(backbone, dict):
        raise CheckpointError(f"{folder}/config.json has backbone_config {backbone!r}, expected an object")
    own = ("compressed_dim", "pma_num_heads")
    sizes = {name: config[name] for name in own if config.get(name) is not None}
    sizes |= {name: backbone[name] for name in _SIZES if backbone.get(name) is not None}
    for name, value in sizes.items():
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise CheckpointError(f"{folder}/config.json has {name} {value!r}, expected a whole number above zero")
    heads, width = sizes.get("num_attention_heads", 1), sizes.get("hidden_size", 0)
    pma_width = sizes.get("compressed_dim", width)
    for what, whole, part in (
        ("hidden_size by num_attention_heads", width, heads),
        ("num_attention_heads by num_key_value_heads", heads, sizes.get("num_key_value_heads", 1)),
        ("compressed_dim by pma_num_heads", pma_width, sizes.get("pma_num_heads", 32)),
    ):
        if whole % part:
            raise CheckpointError(f"{folder}/config.json cannot divide {what}: {whole} by {part}")


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


def _short_name(name: str) -> str | None:
    if match := _PMA_NAME.search(name):
        return f"pma.{match[1]}"
    if name.startswith(_BACKBONE_PREFIX):
        return "backbone." + name.removeprefix(_BACKBONE_PREFIX)
    return None


def long_name(name: str) -> str:
    """The released name of a tensor that is known here by a short one."""
    room, _, rest = name.partition(".")
    return ("mha_pma." if room == "pma" else _BACKBONE_PREFIX) + rest


def _shards(tensors: dict[str, Tensor]) -> Iterator[dict[str, Tensor]]:
    shard: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if shard and sum(t.nbytes for t in shard.values()) + tensor.nbytes > _SHARD_BYTES:
            yield shard
            shard = {}
        shard[name] = tensor
    yield shard


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
