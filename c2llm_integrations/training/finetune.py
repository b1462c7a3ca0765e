"""Train a checkpoint on pairs, with sentence-transformers' own trainer.

As published for C2LLM: InfoNCE at temperature 0.05 over in-batch and hard negatives, batches of one data set and
language each, LoRA of rank 64 and alpha 32 on the backbone or all of it, PMA always trained, several checkpoints merged
on request. A stopped run continues from its last complete checkpoint, to the same result.
"""

from __future__ import annotations

import json
import math
import shutil
import warnings
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from c2llm_integrations._utils.files import FileLock, naming, require_output_folder, write_atomically
from c2llm_integrations._utils.progress import Progress
from c2llm_integrations.errors import InputError, MissingExtra
from c2llm_integrations.model.checkpoint import load_checkpoint, save_checkpoint
from c2llm_integrations.model.safetensors_files import write_tensors
from c2llm_integrations.training.options import FinetuneOptions
from c2llm_integrations.training.pair_files import Example, with_mined

try:
    from datasets import Dataset, DatasetDict
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer.losses import (
        CachedMultipleNegativesRankingLoss,
        MultipleNegativesRankingLoss,
    )
    from transformers import PrinterCallback, TrainerCallback

    from c2llm_integrations.sentence_transformers import load
except ImportError as error:
    raise MissingExtra(error.name or "datasets", "train") from error

SCALE = 20.0  # 1 / τ of the published 0.05
RANK, ALPHA = 64, 32  # of LoRA, as published
WEIGHTS = "trained.safetensors"


def train(
    base: str, examples: Sequence[Example], out: Path, options: FinetuneOptions, progress: Progress | None = None
) -> list[float]:
    """Train `base` on the pairs, write the checkpoint folder `out` and return the loss of each step.

    Checkpoints are kept in `out`.training until it is written; a run of other options or pairs there is an error.
    `out` then also holds training.json and training.svg, the options and the loss curve.

    Raises:
        InputError: The pairs fill no batch, `out` exists, there are no epochs, or the loss is NaN.
        StoreBusy: Another process trains into `out`.

    """
    if options.epochs <= 0:
        raise InputError(f"{options.epochs:g} epochs train nothing; choose more")
    require_output_folder(out)
    _require_empty(out)
    groups = grouped(examples, options)
    work = Path(f"{out}.training")
    with _claimed(work, base, examples, options):
        _require_empty(out)  # another run may have ended since
        torch.manual_seed(options.seed)  # of LoRA's first weights
        model = load(base, device=None, max_length=options.max_length)
        model.model_card_data.widget = [{}]  # else examples for a card that is never written are drawn, with a bar
        if options.mined:
            groups = grouped(with_mined(model, examples, options.mined, work / "negatives.json"), options)
        if options.lora:
            _add_lora(model)
        trainer = _Trainer(
            model=model,
            args=_arguments(model, groups, options, work),
            train_dataset=groups,
            loss=_loss(model, options),
            callbacks=[_Watch(progress)],
        )
        trainer.remove_callback(PrinterCallback)  # it would print each step among the answers
        with naming(work):
            trainer.train(resume_from_checkpoint=next(iter(checkpoints(work)[-1:]), None))
        if options.averaged > 1:
            _average(model, checkpoints(work)[-options.averaged :])
        history = [row for row in trainer.state.log_history if "loss" in row]
        about = {"base": base, "pairs": len(examples), **asdict(options), "history": history}
        losses = [float(row["loss"]) for row in history]
        records = {"training.json": json.dumps(about, indent=1) + "\n", "training.svg": curve(losses)}
        _write(model, base, out, records)
    shutil.rmtree(work)  # whoever holds it by now finds `out` full
    return losses


def _require_empty(out: Path) -> None:
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out} exists and is not empty; name another folder to write the checkpoint to")


def grouped(examples: Sequence[Example], options: FinetuneOptions) -> DatasetDict:
    """Group the pairs that may share a batch: by data set, language and number of negatives.

    Raises:
        InputError: No group fills a batch.

    """
    groups: defaultdict[str, list[Example]] = defaultdict(list)
    for example in examples:
        count = min(len(example.negatives), options.negatives)
        groups[f"{example.dataset or '-'} {example.language or '-'} {count}"].append(example)
    found = {}
    for name, members in sorted(groups.items()):
        columns = {"query": [e.query for e in members], "positive": [e.positive for e in members]}
        for number in range(int(name.rsplit(" ", 1)[1])):
            columns[f"negative_{number + 1}"] = [e.negatives[number] for e in members]
        if len(members) > 1:  # one pair has no negatives
            found[name] = Dataset.from_dict(columns)
    if not found:
        raise InputError(f"{len(examples)} pairs fill no batch of at least 2; give more of one data set and language")
    return DatasetDict(found)


def checkpoints(work: Path) -> list[str]:
    """Return the folders of complete checkpoints, those with a trainer_state.json, oldest first."""
    whole = []
    for folder in work.glob("checkpoint-*"):
        try:
            json.loads((folder / "trainer_state.json").read_text())
        except (OSError, ValueError):
            continue
        whole.append((int(folder.name.rsplit("-", 1)[1]), str(folder)))
    return [name for _, name in sorted(whole)]


class _Trainer(SentenceTransformerTrainer):
    """Keep in a checkpoint only what is trained, as safetensors, and never read back code or a pickle."""

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        folder = Path(output_dir or str(self.args.output_dir))
        folder.mkdir(parents=True, exist_ok=True)
        trained = {name: p.detach().cpu().contiguous() for name, p in _trained(self.model).items()}
        write_tensors(trained, folder / WEIGHTS, {})

    def _load_from_checkpoint(self, checkpoint_path: str) -> None:  # type: ignore[override]
        trained = _trained(self.model)
        with torch.no_grad():
            for name, tensor in load_file(Path(checkpoint_path) / WEIGHTS).items():
                trained[name].copy_(tensor)


class _Watch(TrainerCallback):
    """Report each step, and end a run whose loss is NaN or infinite."""

    def __init__(self, progress: Progress | None) -> None:
        self.progress = progress

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **_: Any) -> None:
        """Raise InputError for a loss that is NaN or infinite, before a checkpoint of it is written."""
        if not math.isfinite(found := float((logs or {}).get("loss", 0.0))):
            raise InputError(f"the loss is {found} at step {state.global_step}; lower the learning rate")
        if self.progress:
            self.progress(state.global_step, state.max_steps, f"loss {found:.4f}")


def _trained(model: torch.nn.Module) -> dict[str, torch.nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _average(model: torch.nn.Module, folders: Sequence[str]) -> None:
    """Set the trained weights to the mean of the checkpoints, the n-th weighing n times as much as the first."""
    trained = _trained(model)
    total = sum(range(1, len(folders) + 1))
    with torch.no_grad():
        means = {name: torch.zeros_like(parameter) for name, parameter in trained.items()}
        for number, folder in enumerate(folders, 1):
            for name, tensor in load_file(Path(folder) / WEIGHTS).items():
                means[name] += number / total * tensor.to(means[name].device)
        for name, mean in means.items():
            trained[name].copy_(mean)


@contextmanager
def _claimed(work: Path, base: str, examples: Sequence[Example], options: FinetuneOptions) -> Iterator[None]:
    """Make the folder of checkpoints and hold it; raise InputError if it has those, or mined negatives, of another run.

    Raises StoreBusy while another process trains into it.
    """
    pairs = sha256("\0".join(repr(example) for example in examples).encode("utf-8", "surrogatepass"))
    wanted = json.dumps({"base": base, "pairs": pairs.hexdigest(), **asdict(options)}, indent=1)
    file, lock_file = work / "run.json", work / "LOCK"
    work.mkdir(parents=True, exist_ok=True)
    lock = FileLock(lock_file, str(work), way="let that training end, or name another folder")
    try:
        if file.exists() and file.read_text() != wanted and {*work.iterdir()} - {file, lock_file}:
            raise InputError(f"{work} holds a run of other pairs or options; repeat those, or delete it")
        write_atomically(file, wanted)
        yield
    finally:
        lock.release()


def _add_lora(model: SentenceTransformer) -> None:
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise MissingExtra("peft", "train") from error
    module: Any = model[0]
    config = LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules="all-linear")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # peft's, about transformers
        module.backbone = get_peft_model(module.backbone, config)


def _loss(model: SentenceTransformer, options: FinetuneOptions) -> torch.nn.Module:
    shared: dict[str, Any] = {"scale": SCALE, "gather_across_devices": torch.distributed.is_initialized()}
    if options.part is not None and options.part < options.batch:
        return CachedMultipleNegativesRankingLoss(model, mini_batch_size=options.part, **shared)
    return MultipleNegativesRankingLoss(model, **shared)


def _arguments(
    model: SentenceTransformer, groups: DatasetDict, options: FinetuneOptions, work: Path
) -> SentenceTransformerTrainingArguments:
    columns = {column for group in groups.values() for column in group.column_names}
    prompts = {column: model.prompts["query" if column == "query" else "document"] for column in columns}
    return SentenceTransformerTrainingArguments(
        output_dir=str(work),
        num_train_epochs=options.epochs,
        per_device_train_batch_size=options.batch,
        learning_rate=options.lr,
        warmup_steps=0.05,
        lr_scheduler_type="cosine",
        bf16=torch.cuda.is_available(),
        seed=options.seed,
        batch_sampler="no_duplicates",
        multi_dataset_batch_sampler="proportional",
        prompts={column: prompt for column, prompt in prompts.items() if prompt},
        logging_steps=1,
        logging_nan_inf_filter=False,
        save_strategy="steps",
        save_steps=options.save_every,
        save_total_limit=max(2, options.averaged),
        dataloader_pin_memory=torch.cuda.is_available(),
        report_to=[],
        disable_tqdm=True,
    )


def _write(model: SentenceTransformer, base: str, out: Path, records: dict[str, str]) -> None:
    """Write the released layout, LoRA merged into its weights, and the records beside it.

    Under another name first, so that `out` is whole or not there.
    """
    partial = Path(f"{out}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    parts: Any = model
    backbone = parts[0].backbone
    if hasattr(backbone, "merge_and_unload"):
        backbone = backbone.merge_and_unload()
    tensors = {f"backbone.{name}": tensor for name, tensor in backbone.state_dict().items()}
    tensors |= {f"pma.{name}": tensor for name, tensor in parts[1].pma.state_dict().items()}
    source = load_checkpoint(base)
    kept = {name: tensor.dtype for name, tensor in source.tensors().items()}
    save_checkpoint(source, {name: tensor.cpu().to(kept[name]) for name, tensor in tensors.items()}, partial)
    for name, text in records.items():
        (partial / name).write_text(text)
    if out.exists():
        out.rmdir()  # empty, as was seen at first
    partial.replace(out)


def curve(values: Sequence[float]) -> str:
    """Draw the loss of each step as SVG, the vertical axis from 0 to the largest of them."""
    top = max(values, default=0.0) or 1.0
    points = " ".join(f"{number},{top - value:.6g}" for number, value in enumerate(values))
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" width="640" height="320" font-family="sans-serif" font-size="13">\n'
        f'<rect width="100%" height="100%" fill="white"/>\n<text x="10" y="24">loss of each step</text>\n'
        f'<text x="4" y="54">{top:.3g}</text>\n<text x="30" y="274">0</text>\n'
        f'<text x="570" y="290">{len(values)}</text>\n'
        f'<svg x="50" y="50" width="540" height="220" viewBox="0 0 {max(1, len(values) - 1)} {top:.6g}" '
        'preserveAspectRatio="none" overflow="visible">\n'
        f'<polyline points="{points}" fill="none" stroke="#1f6feb" vector-effect="non-scaling-stroke"/>\n'
        "</svg>\n</svg>\n"
    )
