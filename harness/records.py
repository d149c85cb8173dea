"""The records of a cell: file names, and what stands in each file.

Everything that reads results (``collect``, the analysis, other programs) builds on this module or
on the JSON Schema that is exported beside every result; nothing else knows a file's name.
"""

from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from grouping.errors import StudyError

SCHEMA_VERSION = 3
CONFIG = "config.json"
EVALUATIONS = "evaluations.jsonl"
RESULT = "result.json"
#: beginning of the name of a folder in which a round is retrained
RETRAINING = "retraining-"
FAILURE = "failure.json"
MASKS = "masks.npz"
CHECKPOINT = "pruned.pt"
SCHEMA = "schema.json"
#: the search that prunes nothing
DENSE = "dense"


Stage = Literal["start", "search", "exact", "confirm"]
Precision = Literal["float32", "bfloat16", "float16", "int8"]
PRECISIONS: tuple[str, ...] = get_args(Precision)


def hypotheses(split: str, model: str) -> str:
    """File of one model's ("dense" or "pruned") hypotheses on a split: detokenised, a sentence a line."""
    return f"{split}.{model}.txt"


#: of a finished cell
ALL_HYPOTHESES = tuple(
    hypotheses(split, model) for split in ("confirm", "test") for model in ("dense", "pruned")
)


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class CellConfig(Strict):
    """Everything that decides the outcome of a cell, and nothing else."""

    schema_version: Literal[3] = 3
    checkpoint_sha256: str = Field(description="hash of the dense weights, as float32 numbers")
    corpus_sha256: str = Field(description="hash of dictionaries, text and binarised sets")
    training_sha256: str = Field(
        "", description="hash of the binarised train and valid sets; empty where nothing is trained"
    )
    groups_sha256: str = Field("", description="hash of the blocks and the groups they are in")
    grouping: str = Field("layer", description="name, product, or module:function")
    operator: str = Field("magnitude", description="what a knob does to a group")
    search: str = Field(
        "NCS", description="NCS, a nevergrad optimiser, a search-free rule, or dense: nothing is pruned"
    )
    sparsity: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="fraction of the prunable connections that a search-free rule removes, whatever BLEU "
        "says; null = as many as the constraint allows",
    )
    schedule: Literal["one-shot", "retrain", "iterative", "gradual"] = Field(
        "one-shot",
        description="prune; prune and retrain; prune and retrain again and again; prune while training on",
    )
    epochs: int = Field(10, ge=1, le=100, description="of retraining, over all rounds")
    round_epochs: int = Field(
        3, ge=1, description="of retraining, in a round of iterative; a remainder is part of the last round"
    )
    round_tolerance: float | None = Field(
        None,
        gt=0,
        allow_inf_nan=False,
        description="what pruning may cost before a retraining, in the constraint's unit; what counts keeps "
        "the tolerance all the same; null = the tolerance",
    )
    learning_rate: float = Field(
        5e-4,
        gt=0,
        allow_inf_nan=False,
        description="of retraining, halved each epoch; of gradual while it prunes, then halved each epoch",
    )
    autocast: Literal["", "bfloat16"] = Field(
        "", description="bfloat16: retraining computes in it, where a processor has it; empty: float32"
    )
    batch_tokens: int = Field(2000, ge=1, description="tokens of a batch of retraining, at most")
    dropout: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="of embeddings and layers in retraining; null = that of the dense model's training",
    )
    distillation: float = Field(
        0.0,
        ge=0,
        le=1,
        description="weight of the dense model's word distributions in the loss of retraining",
    )
    tolerance: float = Field(1.0, ge=0, allow_inf_nan=False, description="in the constraint's unit")
    constraint: Literal["bleu", "accuracy", "likelihood"] = Field(
        "bleu", description="what may drop; accuracy and likelihood of the references, under teacher forcing"
    )
    criterion: Literal["bound", "point"] = Field(
        "bound", description="what must keep the tolerance: the drop's upper confidence bound, or the drop"
    )
    confidence: float = Field(0.95, gt=0.5, lt=1, description="of the bound, as a fraction")
    resamples: int = Field(1000, ge=100, description="of the paired bootstrap")
    evaluations: int = Field(150, ge=1, description="budget, the start's evaluations included")
    tokens: int | None = Field(None, ge=1, description="budget of delivered tokens; null = none")
    start: Literal["class-blind", "dense"] = Field(
        "class-blind",
        description="where the search begins: where class-blind pruning ends, or at the dense model; in "
        "later rounds where pruning on in proportion ends, or at the model of the last one",
    )
    sigma: float = Field(0.05, gt=0, le=1, description="first step size, in knob units")
    search_sentences: int | None = Field(
        None, ge=1, description="of the search set, drawn at random, the same for all cells; null = all"
    )
    redraw: bool = Field(
        False,
        description="draw the search_sentences anew in every generation of the search, the same for all "
        "cells; what it finds feasible is judged again on the whole search set",
    )
    search_beam: int = Field(1, ge=1, description="on the search set")
    final_beam: int = Field(5, ge=1, description="on confirm and test")
    vectors: bool = Field(False, description="prune biases and normalisation parameters too")
    racing: float = Field(
        0.01,
        ge=0,
        lt=0.5,
        description="probability that a feasible candidate is stopped early; 0 = no racing; BLEU only",
    )
    skipping: bool = Field(True, description="do not translate what its size alone refuses")
    device: Literal["cpu", "cuda"] = Field("cpu", description="what translates")
    training_device: Literal["cpu", "cuda"] | None = Field(
        None, description="what trains; null = what translates"
    )
    precision: Precision = Field("float32", description="of the search; what counts is float32")
    seed: int = Field(1, ge=0, lt=2**32, description="of the search, and of groups dealt at random")

    @property
    def given(self) -> bool:
        """Whether the size is given: nothing is searched for, and what comes out counts whatever it costs."""
        return self.sparsity is not None or self.search == DENSE

    @property
    def trains(self) -> bool:
        """Whether the cell trains, and so depends on the training text."""
        return self.schedule != "one-shot"

    @property
    def trains_on(self) -> Literal["cpu", "cuda"]:
        """The device of what is trained."""
        return self.training_device or self.device

    @property
    def uses_gpu(self) -> bool:
        """Whether the cell computes on a GPU, all of it or its training alone."""
        return "cuda" in (self.device, self.trains_on)

    @property
    def judged_again(self) -> bool:
        """Whether what a search accepts is judged again on the search set: as "exact", in float32."""
        return self.trains or self.precision != "float32" or self.redraw

    @model_validator(mode="after")
    def _what_is_given_is_not_searched_for(self) -> "CellConfig":
        if self.search == DENSE and self.sparsity is not None:
            raise ValueError(f"search {DENSE} prunes nothing: leave out sparsity, or name a search-free rule")
        if self.sparsity is not None and self.schedule == "iterative":
            raise ValueError(
                "schedule iterative looks for the smallest size, and sparsity gives it: leave out one of them"
            )
        return self

    @model_validator(mode="before")
    @classmethod
    def _a_training_device_is_another_one(cls, given: Any) -> Any:
        """The same cell has one name: where nothing is trained, or on what translates, none is given."""
        if isinstance(given, dict) and "training_device" in given:
            plain = {"schedule": "one-shot", "device": "cpu"} | given
            if plain["schedule"] == "one-shot" or plain["training_device"] == plain["device"]:
                return {name: value for name, value in given.items() if name != "training_device"}
        return given

    @model_validator(mode="after")
    def _what_nothing_is_trained_with_is_left_out(self) -> "CellConfig":
        for name in ("distillation", "dropout", "batch_tokens"):
            if getattr(self, name) != type(self).model_fields[name].default and not self.trains:
                raise ValueError(
                    f"schedule one-shot trains nothing: leave out {name}, or retrain (iterative, gradual)"
                )
        return self

    @model_validator(mode="after")
    def _a_round_may_cost_more_than_the_result(self) -> "CellConfig":
        if self.round_tolerance is None:
            return self
        if self.given or self.schedule not in ("retrain", "iterative"):
            raise ValueError(
                "round_tolerance is for searches that retraining follows: leave it out, or give a schedule "
                "(retrain, iterative) and no size"
            )
        if self.round_tolerance <= self.tolerance:
            raise ValueError(
                f"round_tolerance {self.round_tolerance:g} does not exceed the tolerance: give more than "
                f"{self.tolerance:g}, or leave it out"
            )
        return self

    @model_validator(mode="after")
    def _what_is_redrawn_is_a_part_of_the_search_set(self) -> "CellConfig":
        if self.redraw and self.search_sentences is None:
            raise ValueError("redraw wants search_sentences: how many are drawn in every generation")
        if self.redraw and self.given:
            raise ValueError("redraw is for a search, and here the size is given: leave it out")
        if self.redraw and self.constraint != "bleu":
            raise ValueError(f"redraw is for translations: leave it out, or constraint {self.constraint}")
        return self

    @model_validator(mode="after")
    def _gradual_prunes_by_magnitude_to_a_sparsity(self) -> "CellConfig":
        if self.schedule == "gradual" and self.sparsity is None:
            raise ValueError(
                "schedule gradual wants a sparsity: the fraction of the connections that is gone in the end, "
                "and as its search the rule by which they go, such as class-blind"
            )
        if self.schedule == "gradual" and self.operator != "magnitude":
            raise ValueError(f"schedule gradual has the operator magnitude only, not {self.operator!r}")
        return self

    @model_validator(mode="after")
    def _teacher_forcing_is_float32(self) -> "CellConfig":
        if self.constraint != "bleu" and (self.precision, self.device) != ("float32", "cpu"):
            raise ValueError(f"{self.constraint} is computed in float32 on the cpu: leave out the other")
        return self


class Evaluation(Strict):
    """One candidate on one set; a line of ``evaluations.jsonl``."""

    round: int = Field(
        0,
        description="of the schedule: 0 is the dense model, k the one retrained k times; of round_tolerance "
        "there may be one more, under the tolerance itself over the smallest model that counts",
    )
    index: int = Field(description="from 0 in every round")
    stage: Stage = Field(description="exact: the search set again, in float32 and not redrawn")
    knobs: list[float] = Field(description="one per group, 0 = untouched")
    size: float = Field(description="remaining fraction of the prunable connections")
    how: Literal["translated", "raced", "cached", "skipped"] = Field(
        description="raced: stopped before its end, as infeasible, with estimates for the whole set; "
        "cached: same mask as before; skipped: refused by its size alone"
    )
    score: float = Field(description="what the search minimises: the size if feasible, else above 1")
    feasible: bool = Field(description="whether it keeps the tolerance of its round on this set")
    bleu: float | None = Field(description="BLEU in percent, or what the constraint measures instead")
    drop: float | None = Field(description="dense minus pruned, in the constraint's unit")
    bound: float | None = Field(description="one-sided upper bound of the drop")
    standard_error: float | None = Field(description="of the drop")
    sentences: int = Field(description="translated and judged")
    tokens: int = Field(description="delivered: tokens of the hypotheses asked for")
    tokens_computed: int = Field(description="tokens that were translated for it")
    seconds: float = Field(description="of the process that judged it")


class SetResult(Strict):
    """The final candidate on one set, beside the dense model under the same decoder."""

    sentences: int = Field(description="of the set, or of the part of it that was searched on")
    beam: int = Field(description="of the decoder of both")
    dense_bleu: float = Field(description="BLEU of the dense model, in percent")
    bleu: float = Field(description="BLEU of the pruned model, in percent")
    drop: float = Field(description="dense minus pruned, in BLEU points")
    bound: float = Field(description="one-sided upper confidence bound of the drop, in BLEU points")
    interval: tuple[float, float] = Field(description="two-sided 95 % of the drop, paired bootstrap")
    standard_error: float = Field(description="of the drop, in BLEU points")
    smallest_detectable: float = Field(description="drop that the set can tell from none, in BLEU points")
    dense_chrf: float = Field(description="chrF2 of the dense model, in percent")
    chrf: float = Field(description="chrF2 of the pruned model, in percent")
    bleu_signature: str = Field(description="sacrebleu's")
    chrf_signature: str = Field(description="sacrebleu's")


class Held(Strict):
    """What was held against the tolerance on confirm, in the constraint's unit."""

    constraint: str = Field(description="bleu, accuracy or likelihood")
    dense: float = Field(description="of the dense model")
    value: float = Field(description="of the pruned model")
    drop: float = Field(description="dense minus pruned")
    bound: float = Field(description="one-sided upper confidence bound of the drop")


class RetrainingResult(Strict):
    """What a retraining took: updates, words of the references, seconds; the loss on valid by epoch."""

    updates: int
    words: int
    seconds: float
    valid_loss: list[float]
    precision: Literal["bfloat16", "float32"] | None = Field(
        None,
        description="in which it computed: float32 also where bfloat16 was asked of a processor without it; "
        "null before this was recorded",
    )


class RoundResult(Strict):
    """A model on the way: after a search, or after a retraining."""

    round: int
    remaining: float
    held: Held
    counts: bool = Field(
        True, description="whether it keeps the tolerance, on search and on confirm, or its size was given"
    )
    retraining: RetrainingResult | None


class GroupResult(Strict):
    group: str
    connections: int
    pruned: int
    threshold: float = Field(description="largest pruned magnitude; 0 where nothing is pruned")


class Environment(Strict):
    """Versions and hardware that a number depends on, without the machine's name or paths."""

    python: str = Field(description="its version")
    system: str = Field(description="the operating system")
    processor: str = Field(description="its model")
    units: list[str] = Field(description="vector and matrix units of the processor")
    cores: int = Field(description="that the process might use")
    accelerator: str | None = Field(description="the GPU that was used")
    threads: int | None = Field(description="of one process; null where nothing was computed")
    kernels: str | None = Field(description="native or torch: what decodes besides matrix products")
    revision: str | None = Field(description="of the program's repository; + if files were changed")
    packages: dict[str, str] = Field(description="version of every installed package")


class Result(Strict):
    """What a cell found; ``result.json``, written last."""

    schema_version: Literal[3] = 3
    family: str = Field(description="of the model, in fairseq: lstm or transformer")
    knobs: list[float] = Field(description="of the final candidate, one per group")
    groups: list[GroupResult] = Field(description="connections, pruned ones and threshold of each group")
    prunable: int = Field(description="connections that could be pruned")
    parameters: int = Field(description="all parameters, tied ones once, padding rows apart")
    pruned: int = Field(description="connections that are gone")
    remaining: float = Field(description="fraction of the prunable connections")
    remaining_of_all: float = Field(description="fraction of all parameters")
    backed_off: int = Field(description="candidates that failed on confirm before this one held")
    evaluations: int = Field(description="candidates that the search asked for: what the budget counts")
    skipped: int = Field(description="candidates refused by their size alone")
    raced: int = Field(description="candidates that were not translated to their end")
    cached: int = Field(description="candidates with the mask of an earlier one")
    tokens: int = Field(description="delivered on the search set: what the budget counts")
    confirm_tokens: int = Field(description="delivered on confirm, and by judging the search set again")
    tokens_computed: int = Field(description="on search and confirm; the final translations apart")
    seconds: float = Field(
        description="of the evaluations and retrainings, workers and resumed runs added up"
    )
    other_seconds: float = Field(
        description="of the process that finished the cell, beside those: dense and final translations"
    )
    held: Held
    rounds: list[RoundResult] = Field(
        description="all models on the way; the final one is the smallest that counts, of several as small "
        "the one with the smallest drop on confirm, and where the size is given the last"
    )
    sets: dict[str, SetResult] = Field(description="search, confirm and test")
    files: dict[str, str] = Field(description="sha256 of the cell's other files, which never change again")
    environment: Environment


class Failure(Strict):
    """Why a cell has no result; ``failure.json``, gone as soon as the cell is tried again."""

    schema_version: Literal[3] = 3
    reason: Literal["error", "killed", "time", "memory"] = Field(
        description="killed: its process died again and again; time, memory: beyond the limit of a cell"
    )
    message: str = Field(description="of the error")
    traceback: str = Field(description="of the error, empty where a process was ended")
    seconds: float = Field(description="until it failed")
    environment: Environment


def schemas() -> dict[str, object]:
    """JSON Schema of every record, by file name."""
    return {
        "schema_version": SCHEMA_VERSION,
        CONFIG: CellConfig.model_json_schema(),
        EVALUATIONS: Evaluation.model_json_schema(),
        RESULT: Result.model_json_schema(),
        FAILURE: Failure.model_json_schema(),
    }


def configuration(**settings: Any) -> CellConfig:
    """A cell's configuration. Raises StudyError for an unknown field or an impossible value."""
    try:
        return CellConfig.model_validate(settings, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        if not first["loc"]:
            raise StudyError(first["msg"].removeprefix("Value error, ")) from None
        name = ".".join(str(part) for part in first["loc"]).replace("_", "-")
        field = CellConfig.model_fields.get(str(first["loc"][0]))
        meaning = f" ({field.description})" if field and field.description else ""
        meaning = meaning.replace("null = ", "left out: ")
        raise StudyError(f"{name} {first['input']!r} is not possible: {first['msg']}{meaning}") from None
