"""Figures: our tokens/s over those of fairseq-generate and of CTranslate2."""

import statistics
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from typing import NamedTuple

from experiments.bench.context import SPLIT, Context, Figure, Skipped, figures
from experiments.bench.machine import multiplies
from experiments.bench.race import Contender, Runner, Setting, race
from experiments.bench.rival_ct2 import why_not
from experiments.bench.rows import Row, ratios
from experiments.bench.workers import Layout
from harness.decoding import Decoding

MODELS = ("transformer", "rnnsearch", "luong")
OURS = "experiments.bench.ours:Ours"
FAIRSEQ = "experiments.bench.rival_fairseq:FairseqGenerate"
CTRANSLATE2 = "experiments.bench.rival_ct2:CTranslate2"
#: what our decoder computes in, and fairseq-generate (--fp16; it has no bfloat16)
OUR_PRECISIONS = ("float32", "bfloat16", "int8")
FAIRSEQ_PRECISIONS = ("float32", "float16")
#: the first is tried with every layout; ours is our default
OUR_BATCHES = tuple({"rows": rows} for rows in dict.fromkeys((Decoding().rows, 64, 128, 256, 512, 1024)))
FAIRSEQ_BATCHES = (
    *({"batch_size": sentences} for sentences in (64, 32, 128, 256)),
    *({"max_tokens": tokens} for tokens in (2000, 4000, 12000, 24000)),
)
CTRANSLATE2_BATCHES = tuple({"max_batch_size": tokens} for tokens in (1024, 128, 256, 512, 2048, 4096, 8192))

#: a contender's name and precision
Key = tuple[str, str]


class Duel(NamedTuple):
    """The fastest of some of our contenders against the fastest of some of the rival's."""

    name: str
    ours: Sequence[Contender]
    rivals: Sequence[Contender]


class Side(NamedTuple):
    """One side of a duel after it: tokens/s of each turn, and the hypotheses of the last."""

    setting: Setting
    speeds: Sequence[float]
    hypotheses: list[list[int]]


def layouts(cores: int) -> list[Layout]:
    """A process for each core with one thread, and one process with all threads."""
    return list(dict.fromkeys([Layout(cores, 1), Layout(1, cores)]))


def ours(context: Context, model: str, beam: int) -> list[Contender]:
    """Our decoder in each precision that the processor has units for, float32 first."""
    settings = {"checkpoint": context.checkpoint(model), **_common(context, beam)}
    return [
        Contender(
            name="ours",
            precision=precision,
            engine=OURS,
            settings={"precision": precision, **settings},
            layouts=layouts(context.cores),
            batches=OUR_BATCHES,
        )
        for precision in OUR_PRECISIONS
        if multiplies(precision)
    ]


def fairseq(context: Context, model: str, beam: int) -> list[Contender]:
    """fairseq-generate in each precision that the processor has units for, float32 first.

    Without such units, float16 was seen to be two to four times slower than float32.
    """
    settings = {"checkpoint": context.exported(model), **_common(context, beam)}
    return [
        Contender(
            name="fairseq-generate",
            precision=precision,
            engine=FAIRSEQ,
            settings={"precision": precision, **settings},
            layouts=layouts(context.cores),
            batches=FAIRSEQ_BATCHES,
        )
        for precision in FAIRSEQ_PRECISIONS
        if multiplies(precision)
    ]


def ctranslate2(context: Context, model: str, beam: int, precision: str) -> Contender:
    """CTranslate2 in one precision. Raises Skipped if it is not installed or does not have it here."""
    if reason := why_not(precision):
        raise Skipped(reason)
    settings = {"converted": context.converted(model), **_common(context, beam)}
    return Contender(
        name="CTranslate2",
        precision=precision,
        engine=CTRANSLATE2,
        settings={"precision": precision, **settings},
        layouts=list(dict.fromkeys([Layout(1, 1, inner=context.cores), *layouts(context.cores)])),
        batches=CTRANSLATE2_BATCHES,
    )


def _common(context: Context, beam: int) -> dict[str, object]:
    return {"corpus": context.corpus_folder, "split": SPLIT, "beam": beam}


def compare(context: Context, figure: str, model: str, beam: int, duels: Sequence[Duel]) -> list[Row]:
    """Sweep every contender once, then let those that a duel wants take turns; a row for each duel.

    Duels that come down to the same two contenders share a row.
    """
    contenders: dict[Key, Contender] = {
        (contender.name, contender.precision): contender
        for duel in duels
        for contender in (*duel.ours, *duel.rivals)
    }
    with ExitStack() as stack:
        total = sum(c.tries for c in contenders.values()) + context.pairs * len(contenders)
        bar = stack.enter_context(context.progress(figure, total))
        settings = {key: context.fastest(contender, bar) for key, contender in contenders.items()}
        names: dict[tuple[Key, Key], list[str]] = {}
        for duel in duels:
            pair = _best(duel.ours, settings), _best(duel.rivals, settings)
            names.setdefault(pair, []).append(duel.name)
        running = dict.fromkeys(key for pair in names for key in pair)
        runners = [
            stack.enter_context(Runner(contenders[key], settings[key].layout, context.lengths))
            for key in running
        ]
        for runner, key in zip(runners, running, strict=True):
            runner.warm(settings[key].batch)
        found = race(runners, context.pairs, bar.update)
    sides = {
        key: Side(settings[key], speeds, runner.hypotheses)
        for key, speeds, runner in zip(running, found, runners, strict=True)
    }
    common = {"id": figure, "model": model, "beam": beam}
    return [
        common
        | {"comparison": ", ".join(named), "ours": ours[1], "rival": " ".join(rival)}
        | _row(context, sides[ours], sides[rival])
        for (ours, rival), named in names.items()
    ]


def _best(contenders: Sequence[Contender], settings: Mapping[Key, Setting]) -> Key:
    return max(((c.name, c.precision) for c in contenders), key=lambda key: settings[key].speed)


def _row(context: Context, ours: Side, rival: Side) -> Row:
    pairs = zip(ours.hypotheses, rival.hypotheses, strict=True)
    row: Row = ratios(ours.speeds, rival.speeds)
    row["identical"] = statistics.fmean(one == other for one, other in pairs)
    return row | told(context, "ours", ours) | told(context, "rival", rival) | context.provenance()


def told(context: Context, name: str, side: Side) -> Row:
    """What a row says about one side, under names that begin with ``name``."""
    return {
        f"{name}_tokens_per_s": statistics.median(side.speeds),
        f"{name}_bleu": context.bleu(side.hypotheses),
        f"{name}_settings": asdict(side.setting.layout) | side.setting.batch,
        f"{name}_tried": side.setting.tried,
    }


def over_fairseq(figure: str, model: str, beam: int) -> Figure:
    """A figure over fairseq-generate: float32 on both sides, and the fastest of both."""

    def made(context: Context) -> list[Row]:
        mine, theirs = ours(context, model, beam), fairseq(context, model, beam)
        duels = [Duel("float32", mine[:1], theirs[:1]), Duel("fastest", mine, theirs)]
        return compare(context, figure, model, beam, duels)

    return made


def over_ctranslate2(figure: str, precision: str) -> Figure:
    """A figure over one precision of CTranslate2, greedy: our fastest, and float32 against float32."""

    def made(context: Context) -> list[Row]:
        rival = ctranslate2(context, "transformer", 1, precision)
        mine = ours(context, "transformer", 1)
        duels = [Duel("fastest", mine, [rival])]
        if precision == "float32":
            duels.insert(0, Duel("float32", mine[:1], [rival]))
        return compare(context, figure, "transformer", 1, duels)

    return made


def _register() -> None:
    for model in MODELS:
        for name, beam in (("greedy", 1), ("beam5", 5)):
            figure = f"{name}_{model}"
            figures.register(figure)(over_fairseq(figure, model, beam))
    for precision in ("float32", "int8", "bfloat16"):
        figure = f"ct2_{precision}"
        figures.register(figure)(over_ctranslate2(figure, precision))


_register()
