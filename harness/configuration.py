"""The configuration of a cell: everything that decides its outcome."""

from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from grouping.errors import StudyError

#: the search that prunes nothing
DENSE = "dense"

Precision = Literal["float32", "bfloat16", "float16", "int8"]
PRECISIONS: tuple[str, ...] = get_args(Precision)


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
