"""The records of a cell: file names, and what stands in each file.

Everything that reads results (``collect``, the analysis, other programs) builds on this module or
on the JSON Schema that is exported beside every result; nothing else knows a file's name.
"""

from typing import Literal

from pydantic import Field

from harness.configuration import CellConfig, Strict

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

Stage = Literal["start", "search", "exact", "confirm"]


def hypotheses(split: str, model: str) -> str:
    """File of one model's ("dense" or "pruned") hypotheses on a split: detokenised, a sentence a line."""
    return f"{split}.{model}.txt"


#: of a finished cell
ALL_HYPOTHESES = tuple(
    hypotheses(split, model) for split in ("confirm", "test") for model in ("dense", "pruned")
)


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
    score: float = Field(
        description="what the search minimises: the size if feasible or skipped, else above 1"
    )
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
