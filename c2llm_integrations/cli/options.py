"""Options that several commands have, and `command`, which makes each field of an options class an option."""

from __future__ import annotations

import inspect
import shlex
import sys
from collections.abc import Callable
from dataclasses import MISSING, Field, dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from types import NoneType, SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, get_args, get_type_hints

import typer

from c2llm_integrations._utils.files import require_output
from c2llm_integrations._utils.option_field import CLI, option
from c2llm_integrations.code.exclude import INDEX_FOLDER, REFUSED_FILE
from c2llm_integrations.errors import InputError
from c2llm_integrations.model.options import ModelOptions

if TYPE_CHECKING:
    from c2llm_integrations.stores.spec import CollectionSpec, CompactPlan

# The file of refused rows.
REFUSED = Path(REFUSED_FILE)

_STORE_HELP = f"Where the rows are.  [default: {INDEX_FOLDER} at the repository's root]"
Store = Annotated[str | None, typer.Option(metavar="URL", help=_STORE_HELP)]


def command(function: Callable[..., int]) -> Callable[..., int]:
    """Return a command that replaces each parameter of an options class by the options of its fields.

    A field is an option if it was made by `option`. The class is built from the values on the command line; other
    fields keep their defaults.
    """
    signature = inspect.signature(function, eval_str=True)
    shown: list[inspect.Parameter] = []
    groups: dict[str, tuple[type, list[str]]] = {}
    for name, parameter in signature.parameters.items():
        made = parameter.annotation
        if isinstance(made, type) and is_dataclass(made):
            own_first = sorted(fields(made), key=lambda one: made.__mro__.index(_home(made, one.name)))
            options = [_parameter(made, one) for one in own_first if CLI in one.metadata]
            groups[name] = made, [one.name for one in options]
            shown += options
        else:
            shown.append(parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY))

    @wraps(function)
    def run(**given: Any) -> int:
        for name, (made, names) in groups.items():
            given[name] = made(**{one: given.pop(one) for one in names})
        return function(**given)

    # What typer reads.
    run.__signature__ = signature.replace(parameters=shown)  # type: ignore[attr-defined]
    run.__annotations__ = {one.name: one.annotation for one in shown}
    return run


def _parameter(made: type, field: Field[Any]) -> inspect.Parameter:
    """Return a field as a parameter that typer understands."""
    how = dict(field.metadata[CLI])
    default = how.pop("cli_default", field.default)
    if default is MISSING:
        default = inspect.Parameter.empty
    flag = how.pop("flag", f"--{field.name.replace('_', '-')}")
    kind = Annotated[_type_of(made, field.name), typer.Option(flag, **how)]  # type: ignore[valid-type]
    return inspect.Parameter(field.name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)


def _home(made: type, name: str) -> type:
    """Return the class that declares a field: this one or the nearest that it inherits from."""
    return next(one for one in made.__mro__ if name in inspect.get_annotations(one))


def _type_of(made: type, name: str) -> Any:
    """Return the type of a field on the command line: the first one of a union, and whether it may be left out."""
    home = _home(made, name)
    # The other annotations of the class may need modules that cost seconds.
    alone = SimpleNamespace(__annotations__={name: inspect.get_annotations(home)[name]})
    kind = get_type_hints(alone, vars(sys.modules[home.__module__]))[name]
    several = get_args(kind) or (kind,)
    return several[0] | None if NoneType in several else several[0]


@dataclass(frozen=True)
class Output:
    """The output format: for a person, or for a program."""

    as_json: bool = option(False, "Print one JSON document.", flag="--json")


@dataclass(frozen=True)
class CollectionPlace:
    """A collection; `store` None means the index at the repository's root."""

    store: str | None = option(None, _STORE_HELP, metavar="URL")
    collection: str = option("code", "The set of rows inside the store.", metavar="NAME")

    def again(self) -> str:
        """Return the options that name the same collection, for a suggested command; "" for the defaults."""
        options = [
            *([] if self.store is None else ["--store", self.store]),
            *([] if self.collection == "code" else ["--collection", self.collection]),
        ]
        return "".join(f" {shlex.quote(word)}" for word in options)


@dataclass(frozen=True)
class ClusterChoice:
    """The Ray cluster that embeds, and the GPUs of its actors."""

    address: str | None = option(None, "Ray's cluster, such as auto.  [default: start one here]", metavar="A")
    gpus_each: float = option(0.0, "GPUs for each of Ray's actors.", metavar="G", min=0)


@dataclass(frozen=True)
class ModelPlace:
    """The places of a collection's model, projection and head, if the collection's own are wrong."""

    model: str | None = option(None, "The collection's model, if it was moved since.", metavar="ID")
    projection: str | None = option(None, "The collection's projection file, if it was made elsewhere.", metavar="FILE")
    head: str | None = option(None, "The collection's head file, if it was made elsewhere.", metavar="FILE")

    def choice(self) -> ModelChoice:
        """Return the same as a choice of a model."""
        return ModelChoice(model=self.model, projection=self.projection, head=self.head)


@dataclass(frozen=True, kw_only=True)
class ModelChoice(ModelOptions):
    """The model that makes vectors; an option left at its default is as in the collection."""

    model: str | None = option(
        None,
        "nano, a folder, a hub id or the URL of a server.  [default: the collection's own, else nano]",
        metavar="ID",
    )

    def given(self) -> dict[str, Any]:
        """Return the fields of `ModelOptions` that the command line decides, by name."""
        return {one.name: value for one in fields(ModelOptions) if (value := getattr(self, one.name)) != one.default}


@dataclass(frozen=True, kw_only=True)
class AnyModel(ModelChoice):
    """A model without a collection."""

    model: str | None = option("nano", "nano, a folder, a hub id or the URL of a server.", metavar="ID")


@dataclass(frozen=True)
class PlanChoice:
    """The storage of vectors; None is as in the collection."""

    datatype: str | None = option(
        None, "float32, float16, turbo16, turbo8 or turbo4, of the full vectors.", metavar="D"
    )
    quantization: str | None = option(
        None,
        "Search codes first: int8, turbo, product, binary, rabitq, or with other bits turbo8, turbo2, turbo1.5, "
        "turbo1, binary2, binary1.5; or none.",
        metavar="Q",
    )
    rescore: float | None = option(
        None, "Compare X times --limit candidates by full vectors; 0 disables.  [default: by quantization]", metavar="X"
    )

    def plan(self, width: int | None, spec: CollectionSpec | None) -> CompactPlan | None:
        """Return the plan asked for, completed from `spec`; None if no option is given.

        `width` None means the embedder's own.
        """
        from c2llm_integrations.stores.spec import CompactPlan

        if self == PlanChoice():
            return None
        own = CompactPlan(width) if spec is None else CompactPlan(width, spec.datatype, spec.quantization, spec.rescore)
        asked = self.quantization
        codes = own.quantization if asked is None else None if asked == "none" else asked
        rescore = own.rescore if self.rescore is None and codes == own.quantization else self.rescore
        return CompactPlan(width, self.datatype or own.datatype, codes, rescore)


def require_new(file: Path) -> None:
    """Raise InputError, before any work is done, for an --out file that already exists, or whose folder is missing."""
    if file.exists():
        raise InputError(f"{file} exists, and collections may need it; name another with --out")
    require_output(file)
