"""Figures: what a whole search costs with racing, skipping and our decoder, and how often racing errs."""

import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import beta

from experiments.bench.context import SPLIT, Context, Figure, Skipped, figures
from experiments.bench.race import Runner, tokens
from experiments.bench.rows import Row, ratios
from experiments.bench.speed import MODELS, fairseq
from grouping.errors import StudyError
from harness.cell import Study
from harness.configuration import CellConfig
from harness.constraint import Constraint
from harness.evaluator import Evaluator
from harness.olmp import run_search
from harness.operators import operators
from harness.racing import Race
from harness.record import Record
from harness.records import Evaluation
from harness.sentences import SentenceSet
from harness.workers import Workers

GROUPING = "layer"
SEEDS = (1, 2, 3, 4, 5)
EVALUATIONS = 150
#: of a remaining fraction, by which another may be larger and count as the same
SAME = 0.01
#: evaluations of each model with fairseq's decoder, after the scan, from which searches are extrapolated
EXTRAPOLATED = 20
PLAIN = {"racing": 0.0, "skipping": False}
#: candidates that a search asks for at once: NCS's
GENERATION = 10
#: feasible candidates of each model near the edge, and orders in which each of them is raced
CANDIDATES, SHUFFLES = 170, 20
#: the stated error level of a race
LEVEL = CellConfig.model_fields["racing"].default


def figure(name: str) -> Callable[[Figure], Figure]:
    """Register a figure of whole searches, which a part of the sentences would not be."""

    def register(made: Figure) -> Figure:
        def checked(context: Context) -> list[Row]:
            if context.sentences is not None:
                raise Skipped("a search translates the whole set: leave out --sentences")
            return made(context)

        figures.register(name)(checked)
        return made

    return register


def set_of(study: Study, config: CellConfig) -> SentenceSet:
    """The sentences that a search with this configuration translates."""
    return study.sentences(SPLIT, config.search_beam, config.resamples, True, config.precision)


@contextmanager
def evaluating(study: Study, config: CellConfig, workers: int = 1) -> Iterator[Evaluator]:
    """An evaluator of the search set alone, over a record that is thrown away; one thread a process."""
    torch.set_num_threads(1)
    operator = operators.get(config.operator)(study.model, study.groups(config.grouping, seed=config.seed))
    sets = {"search": set_of(study, config)}
    with tempfile.TemporaryDirectory() as scratch, Record(Path(scratch) / "cell", config) as record:
        try:
            with Evaluator(config, operator, record, sets, workers=workers) as evaluator:
                yield evaluator
        finally:
            operator.restore()


class Searched(NamedTuple):
    """All evaluations of a search, and its seconds from the first to the last."""

    evaluations: list[Evaluation]
    seconds: float


def searched(context: Context, model: str, seed: int, **settings: Any) -> Searched:
    """A search on all cores in the fastest precision; done once, whichever figure asks first."""
    key = repr((model, seed, settings))
    if key not in context.searches:
        study = context.study(model)
        common = {"grouping": GROUPING, "evaluations": EVALUATIONS, "precision": context.precision}
        config = study.config(seed=seed, **common, **settings)
        with evaluating(study, config, context.cores) as evaluator:
            started = time.perf_counter()
            run_search(evaluator)
            context.searches[key] = Searched(evaluator.done, time.perf_counter() - started)
    return context.searches[key]


def smallest(evaluations: Sequence[Evaluation]) -> float:
    return min((e.size for e in evaluations if e.feasible), default=1.0)


def tokens_until(evaluations: Sequence[Evaluation], size: float, memory: bool = True) -> int | None:
    """Tokens computed until a feasible candidate of at most this size is found; None if none is.

    Without ``memory`` a mask that was translated before is translated again.
    """
    computed = 0
    for evaluation in evaluations:
        computed += evaluation.tokens_computed if memory else evaluation.tokens
        if evaluation.feasible and evaluation.size <= size:
            return computed
    return None


@figure("tokens_to_target")
def tokens_to_target(context: Context) -> list[Row]:
    """Tokens until the plain loop's final remaining fraction, or one larger by 1 % of it: its own over ours.

    The plain loop has no racing, no skipping and no memory of masks; ``whole`` is the same ratio for the
    whole budget, ``evaluations`` what became of ours.
    """
    rows = []
    for model in MODELS:
        until, whole, reached = [], [], []
        became: Counter[str] = Counter()
        for seed in SEEDS:
            plain = searched(context, model, seed, **PLAIN).evaluations
            ours = searched(context, model, seed).evaluations
            became.update(e.how for e in ours)
            whole.append(sum(e.tokens for e in plain) / sum(e.tokens_computed for e in ours))
            target = smallest(plain) * (1 + SAME)
            mine, theirs = tokens_until(ours, target), tokens_until(plain, target, memory=False)
            if mine is not None and theirs is not None:
                until.append(theirs / mine)
            reached.append({"seed": seed, "plain": smallest(plain), "ours": smallest(ours)})
        rival = "the same search without racing, skipping and memory"
        rows.append(
            _row(context, "tokens_to_target", model, rival, until)
            | {"remaining": reached, "not_reached": len(SEEDS) - len(until), "whole": whole}
            | {"evaluations": dict(became), "precision": context.precision}
        )
    return rows


@figure("search_wall")
def search_wall(context: Context) -> list[Row]:
    """Seconds of the plain loop on fairseq's decoder, extrapolated, over those of our search at its fastest.

    The scan at the start, whose broken models write long, is the same for all seeds and is timed whole; the
    rest is extrapolated from evaluations at even distances. Of fairseq's loop the translation alone is
    counted; ours is the whole search, without the final judging in float32.
    """
    rows = []
    for model in MODELS:
        found, seconds = [], []
        scan: list[float] = []
        for seed in SEEDS:
            ours, wall = searched(context, model, seed)
            knobs = [np.array(e.knobs) for e in ours]
            starts = sum(e.stage == "start" for e in ours)
            scan = scan or _fairseq_seconds(context, model, knobs[:starts], seed)
            chosen = np.linspace(starts, len(ours) - 1, EXTRAPOLATED // len(SEEDS)).round().astype(int)
            timed = _fairseq_seconds(context, model, [knobs[i] for i in chosen], seed)
            theirs = sum(scan) + (EVALUATIONS - starts) * statistics.fmean(timed)
            seconds.append({"ours": wall, "fairseq_scan": sum(scan), "fairseq_evaluations": timed})
            found.append(theirs / wall)
        rows.append(
            _row(context, "search_wall", model, "the plain loop on fairseq-generate's decoder", found)
            | {"seconds": seconds, "precision": context.precision, "evaluations": EVALUATIONS}
        )
    return rows


def _fairseq_seconds(context: Context, model: str, candidates: Sequence[NDArray], seed: int) -> list[float]:
    """Seconds that fairseq-generate takes for the search set of each pruned model.

    In float32, at the setting in which it translates the dense model fastest.
    """
    study = context.study(model)
    operator = operators.get("magnitude")(study.model, study.groups(GROUPING, seed=seed))
    rival = fairseq(context, model, beam=1)[0]
    with context.progress("search_wall", rival.tries) as bar:
        setting = context.fastest(rival, bar)
    taken = []
    for knobs in candidates:
        path = context.scratch / "candidate.pt"
        operator.apply(knobs)
        try:
            study.model.save(path)
        finally:
            operator.restore()
        pruned = replace(rival, settings=rival.settings | {"checkpoint": path})
        with Runner(pruned, setting.layout, context.lengths) as runner:
            runner.warm(setting.batch)
            speed = runner.run()
            taken.append(tokens(runner.hypotheses) / speed)
    return taken


def near_the_edge(
    study: Study, count: int, precision: str = "float32", spread: float = 0.01
) -> list[NDArray]:
    """Knobs jittered around class-blind's edge, which is found first."""
    config = study.config(grouping=GROUPING, search="class-blind", evaluations=15, precision=precision)
    with evaluating(study, config) as evaluator:
        run_search(evaluator)
        edge = np.array(min((e for e in evaluator.done if e.feasible), key=lambda e: e.size).knobs)
    rng = np.random.default_rng(1)
    return [np.clip(edge + spread * rng.normal(size=edge.size), 0, 1) for _ in range(count)]


@figure("two_workers")
def two_workers(context: Context) -> list[Row]:
    """Evaluations/s with two workers over one, the same candidates taking turns."""
    rows = []
    for model in MODELS:
        study = context.study(model)
        candidates = near_the_edge(study, GENERATION * context.pairs)
        config = study.config(grouping=GROUPING, evaluations=10 * len(candidates), **PLAIN)
        speeds: dict[int, list[float]] = {1: [], 2: []}
        for pair in range(context.pairs):
            mine = candidates[GENERATION * pair : GENERATION * (pair + 1)]
            for workers in speeds:
                with evaluating(study, config, workers) as evaluator:
                    list(evaluator.evaluate_all([np.zeros_like(mine[0]), mine[0] / 2], "search"))  # forks
                    started = time.perf_counter()
                    list(evaluator.evaluate_all(mine, "search"))
                    speeds[workers].append(len(mine) / (time.perf_counter() - started))
        row = ratios(speeds[2], speeds[1])
        rows.append(
            _row(context, "two_workers", model, "one worker", []) | row | {"precision": config.precision}
        )
    return rows


@figure("overhead")
def overhead(context: Context) -> list[Row]:
    """Share of an evaluation spent outside of translation."""
    rows = []
    for model in MODELS:
        study = context.study(model)
        for precision in dict.fromkeys(("float32", context.precision)):
            candidates = near_the_edge(study, 2 * context.pairs)
            config = study.config(grouping=GROUPING, evaluations=1000, precision=precision, **PLAIN)
            shares = []
            with evaluating(study, config) as evaluator:
                for knobs in candidates:
                    with _timed(study) as translating:
                        started = time.perf_counter()
                        evaluator.evaluate(knobs, "search")
                        shares.append(1 - translating[0] / (time.perf_counter() - started))
            rows.append(
                _row(context, "overhead", model, "the whole evaluation", shares) | {"ours": precision}
            )
    return rows


@contextmanager
def _timed(study: Study) -> Iterator[list[float]]:
    """Seconds spent in the translator while it lasts."""
    translate, seconds = study.translator.translate, [0.0]

    def timed(*arguments: Any) -> Any:
        started = time.perf_counter()
        try:
            return translate(*arguments)
        finally:
            seconds[0] += time.perf_counter() - started

    study.translator.translate = timed  # type: ignore[assignment, method-assign]
    try:
        yield seconds
    finally:
        del study.translator.translate


@figure("false_rejections")
def false_rejections(context: Context) -> list[Row]:
    """Share of races that refuse a feasible candidate near the edge; high is the upper 95 % limit.

    Each candidate is raced in orders of its own, so that all races are independent and the binomial limit
    (Clopper and Pearson, 1934) holds for their mean over these candidates (Hoeffding, 1956).
    """
    rows = []
    for model in MODELS:
        study = context.study(model)
        config = study.config(
            grouping=GROUPING, evaluations=100 * CANDIDATES, precision=context.precision, **PLAIN
        )
        constraint = Constraint(config.tolerance, config.criterion, config.confidence)
        sentences = set_of(study, config)
        refused, translated = 0, 0
        seen: list[float] = []
        candidates = near_the_edge(study, 3 * CANDIDATES, context.precision)
        for found in _all_statistics(study, config, candidates, context.cores):
            translated += 1
            verdict = constraint.judge(sentences.dense.statistics, found, sentences.bootstrap)
            if not verdict.feasible:
                continue
            orders = range(SHUFFLES * len(seen), SHUFFLES * (len(seen) + 1))
            races = (Race(sentences.dense.statistics, constraint, seed=seed, level=LEVEL) for seed in orders)
            refused += sum(_refused(race, found) for race in races)
            seen.append(verdict.bound)
            if len(seen) == CANDIDATES:
                break
        if not seen:
            raise StudyError(f"no candidate near the edge of {model} is feasible: is this its corpus?")
        total = len(seen) * SHUFFLES
        high = float(beta.ppf(0.95, refused + 1, total - refused)) if refused < total else 1.0
        rows.append(
            _row(context, "false_rejections", model, "the whole set", [])
            | {"value": refused / total, "low": 0.0, "high": high}
            | {"level": LEVEL, "feasible": len(seen), "translated": translated, "shuffles": SHUFFLES}
            | {"precision": context.precision, "bounds": np.percentile(seen, [5, 50, 95]).tolist()}
        )
    return rows


def _all_statistics(
    study: Study, config: CellConfig, candidates: Sequence[NDArray], workers: int
) -> Iterator[NDArray[np.int64]]:
    operator = operators.get(config.operator)(study.model, study.groups(config.grouping, seed=config.seed))
    sentences = set_of(study, config)

    def judged(knobs: NDArray) -> NDArray[np.int64]:
        operator.apply(knobs)
        return sentences.translate().statistics

    try:
        with Workers(judged, workers) as forks:
            yield from forks.map(candidates)
    finally:
        operator.restore()


def _refused(race: Race, found: NDArray[np.int64]) -> bool:
    """Whether any look of a race refuses a candidate with these statistics."""
    order = np.concatenate(race.blocks)
    return any(race.refuses(found[order[:end]]) is not None for end in race.looks)


def _row(context: Context, figure: str, model: str, rival: str, values: Sequence[float]) -> Row:
    """A row whose value is the median; low and high are the least and the largest."""
    row: Row = {"id": figure, "model": model, "rival": rival, "value": None, "low": None, "high": None}
    if values:
        row |= {"value": statistics.median(values), "low": min(values), "high": max(values)}
    return row | context.provenance() | ({"pairs": len(values)} if values else {})
