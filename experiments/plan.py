"""A plan: which cells a study consists of, written as a TOML file of products and lists.

::

    title = "gates against layers"
    corpus = "data/homeassistant.en-de"
    models = "models/homeassistant.en-de"      # where <model>.pt is looked for

    [defaults]                                 # fields of a cell's configuration
    tolerance = 1.0

    [[cells]]                                  # the product of everything that is a list
    model = ["rnnsearch", "transformer"]
    grouping = ["layer", "gate"]
    seed = [1, 2, 3]

    [[skip]]                                   # cells that match all but the reason are left out
    model = "transformer"
    grouping = "gate"
    reason = "a Transformer has no gates"

``model`` is a name in ``models`` or a path that ends in ``.pt``; ``corpus`` may be a field of the cells,
too. A cell that several tables ask for is one cell. A grouping that says nothing about a model is skipped
with its own reason. Where a table will not do, a plan is a Python function without arguments, named
``module:function``, that returns a ``Plan``.
"""

import difflib
import itertools
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from importlib import import_module
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from experiments.inputs import Inputs
from grouping import NotApplicable, StudyError
from harness.configuration import CellConfig, configuration
from harness.record import cell_name

SHIPPED = Path(__file__).parent / "plans"
#: models that `make baselines` trains
RECIPES = {path.stem for path in (Path(__file__).parent / "baselines").glob("*.toml")}
#: fields of a configuration that a plan cannot choose: they follow from the inputs
DERIVED = {"schema_version", "checkpoint_sha256", "corpus_sha256", "training_sha256", "groups_sha256"}
SETTINGS = tuple(name for name in CellConfig.model_fields if name not in DERIVED)
FIELDS = ("model", "corpus", *SETTINGS)


class Plan(BaseModel):
    """The tables of a plan file."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    corpus: Path
    models: Path
    defaults: dict[str, Any] = {}
    cells: list[dict[str, Any]] = Field(min_length=1)
    skip: list[dict[str, Any]] = []


@dataclass(frozen=True)
class PlannedCell:
    """A cell of a plan: what it is, and where its inputs are.

    ``model`` is what the plan calls the checkpoint. The folder of the cell is named by what the cell is.
    """

    model: str
    checkpoint: Path
    corpus: Path
    config: CellConfig

    @cached_property
    def name(self) -> str:
        """Where the cell's folder is, below the folder of all cells."""
        return f"{self.model}/{cell_name(self.config)}"


@dataclass(frozen=True)
class Skipped:
    """A combination that is left out, and why."""

    settings: Mapping[str, Any]
    reason: str


@dataclass(frozen=True)
class Cells:
    """Everything that a plan consists of, in the plan's order, cells of one model together."""

    title: str
    cells: list[PlannedCell]
    skipped: list[Skipped]


def read_plan(name: str) -> Plan:
    """A plan by the name of a shipped one, the path of a TOML file, or ``module:function``.

    Raises StudyError for a plan that does not exist or is not sound.
    """
    if ":" in name:
        return _from_function(name)
    path = Path(name) if name.endswith(".toml") else SHIPPED / f"{name}.toml"
    if not path.is_file() and name.endswith(".toml"):
        raise StudyError(f"there is no file {path}: give the name of a shipped plan, or a path that exists")
    if not path.is_file():
        known = sorted(path.stem for path in SHIPPED.glob("*.toml"))
        nearest = difflib.get_close_matches(name, known, n=1)
        hint = f", did you mean {nearest[0]!r}?" if nearest else ","
        raise StudyError(
            f"there is no plan {name!r}{hint} known are {', '.join(known)}, a path that ends in .toml, "
            "and module:function"
        )
    try:
        return _checked(Plan(**tomllib.loads(path.read_text(encoding="utf-8"))), str(path))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StudyError(f"plan {path} cannot be read: {error}") from None
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        allowed = ", ".join(Plan.model_fields)
        raise StudyError(f"plan {path}: {where}: {first['msg']}; a plan has {allowed}") from None


def _from_function(name: str) -> Plan:
    module, _, function = name.partition(":")
    try:
        found = getattr(import_module(module), function)
        if not callable(found):
            raise StudyError(
                f"plan {name!r} is of type {type(found).__name__}: name a function that returns a Plan"
            )
        plan = found()
    except StudyError:
        raise
    except Exception as error:  # whatever the code of somebody else raises
        said = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise StudyError(f"plan {name!r} cannot be had ({said}): is its module on PYTHONPATH?") from error
    if not isinstance(plan, Plan):
        raise StudyError(f"plan {name!r} returns a {type(plan).__name__}: it must return a Plan")
    return _checked(plan, name)


def _checked(plan: Plan, name: str) -> Plan:
    for table, allowed in (("defaults", FIELDS), ("cells", FIELDS), ("skip", (*FIELDS, "reason"))):
        rows = [plan.defaults] if table == "defaults" else getattr(plan, table)
        for key in (key for row in rows for key in row):
            if key not in allowed:
                nearest = difflib.get_close_matches(key, allowed, n=1)
                hint = f", did you mean {nearest[0]!r}?" if nearest else ""
                raise StudyError(
                    f"plan {name}: [{table}] has no {key!r}{hint} (allowed: {', '.join(allowed)})"
                )
    for row in plan.skip:
        if not isinstance(row.get("reason"), str) or not row["reason"].strip() or len(row) < 2:
            raise StudyError(f"plan {name}: [skip] needs a reason and what it is the reason for: {row}")
    for row in plan.cells:
        for key, value in (plan.defaults | row).items():
            if value == []:
                raise StudyError(f"plan {name}: {key} is an empty list, so there is no cell")
        if "model" not in row and "model" not in plan.defaults:
            raise StudyError(f"plan {name}: [[cells]] does not say which model: {row}")
    return plan


def combinations(plan: Plan) -> Iterator[dict[str, Any]]:
    """The settings of all cells: of each table the product of its lists, models outermost."""
    for row in plan.cells:
        table = {"corpus": str(plan.corpus)} | plan.defaults | row
        factors = {key: value if isinstance(value, list) else [value] for key, value in table.items()}
        names = sorted(factors, key=lambda name: name != "model")
        for values in itertools.product(*(factors[name] for name in names)):
            yield dict(zip(names, values, strict=True))


def cells_of(plan: Plan, inputs: Inputs) -> Cells:
    """All cells of a plan, each once.

    Raises StudyError for an input that is missing and for an impossible setting, before anything runs.
    """
    found: dict[str, PlannedCell] = {}
    skipped = []
    rules = [False] * len(plan.skip)
    for settings in combinations(plan):
        matching = [number for number, rule in enumerate(plan.skip) if _matches(rule, settings)]
        if matching:
            skipped.append(Skipped(settings, plan.skip[matching[0]]["reason"]))
            rules[matching[0]] = True
            continue
        try:
            cell = _planned(plan, settings, inputs)
        except NotApplicable as error:
            skipped.append(Skipped(settings, str(error)))
            continue
        found.setdefault(cell.name, cell)
    if False in rules:
        raise StudyError(
            f"[skip] {plan.skip[rules.index(False)]} skips nothing: is it spelled as in [[cells]]?"
        )
    _check_names(found.values())
    order = {cell.model: place for place, cell in reversed(list(enumerate(found.values())))}
    return Cells(plan.title, sorted(found.values(), key=lambda cell: order[cell.model]), skipped)


def _matches(rule: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    """Whether a rule skips a cell: all that it names has one of the values that it lists."""
    return all(
        _setting(settings, key) in (value if isinstance(value, list) else [value])
        for key, value in rule.items()
        if key != "reason"
    )


def _check_names(cells: Iterable[PlannedCell]) -> None:
    """Raise StudyError if one name stands for two models, as checkpoint_best.pt would."""
    weights: dict[str, str] = {}
    for cell in cells:
        if weights.setdefault(cell.model, cell.config.checkpoint_sha256) != cell.config.checkpoint_sha256:
            raise StudyError(
                f"two models of this plan are called {cell.model!r}: give their files names of their own, "
                "which say what they are in folders and tables"
            )


def _setting(settings: Mapping[str, Any], key: str) -> Any:
    if key in settings or key not in CellConfig.model_fields:
        return settings.get(key)
    return CellConfig.model_fields[key].default


def _made(model: str) -> str:
    """How a model of another seed is made; nothing where the name says none."""
    named = re.fullmatch(r"([a-z]+)\.seed(\d+)", model)
    if named is None or named[1] not in RECIPES or named[2] == "1":  # that of seed 1 has no seed in its name
        return ""
    which = f"MODEL={named[1]} SEED={named[2]}"
    return f"; `make baselines {which}` and `make ship {which}` make it"


def _planned(plan: Plan, settings: dict[str, Any], inputs: Inputs) -> PlannedCell:
    for name in ("model", "corpus"):
        if not isinstance(settings[name], str):
            raise StudyError(f"{name} {settings[name]!r} is not possible: give a text, or a list of texts")
    model, corpus = settings["model"], Path(settings["corpus"])
    checkpoint = Path(model) if model.endswith(".pt") else plan.models / f"{model}.pt"
    if not checkpoint.is_file():
        known = ", ".join(sorted(path.stem for path in plan.models.glob("*.pt"))) or "none"
        raise StudyError(
            f"no model {model!r}: {checkpoint} does not exist; known in {plan.models}: {known}{_made(model)}"
        )
    known_model = inputs.model(checkpoint, corpus)
    chosen = {key: value for key, value in settings.items() if key in SETTINGS}
    hashes = {"checkpoint_sha256": known_model.content_hash, "corpus_sha256": inputs.corpus_hash(corpus)}
    try:
        config = configuration(**hashes, **chosen)
        groups = inputs.groups_hash(known_model, config.grouping, config.vectors, config.seed)
    except NotApplicable:
        raise
    except StudyError as error:
        cell = ", ".join(f"{key} = {value!r}" for key, value in settings.items() if key != "corpus")
        raise StudyError(f"{error} (in the cell {cell})") from None
    training = inputs.training_hash(corpus) if config.trains else ""
    config = config.model_copy(update={"groups_sha256": groups, "training_sha256": training})
    return PlannedCell(checkpoint.stem, checkpoint, corpus, config)
