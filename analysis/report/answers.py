"""Which grouping wins on each model, whether that is more than noise, what it costs and what goes wrong."""

from collections.abc import Collection, Iterator
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from analysis.contrasts import contrasts
from analysis.frame import Results, translation
from analysis.report.errors import Kind, Lengths, Profile, by_length, counted, kinds, profile
from analysis.report.texts import Texts
from analysis.settings import SHUFFLED, is_rule, main_setting, records, way
from analysis.significance import BleuDifference, PairedBootstrap, compare, mean_interval

#: of a test, after Holm's correction
LEVEL = 0.05
#: what the winner is compared with, in this order
ROLES = {
    "next": "the next grouping",
    "shuffled": "its shuffled control",
    "other shuffled": "the shuffled control of another grouping",
    "single": "a search without groups",
    "class-blind": "class-blind pruning without search",
    "rule": "the best rule without search",
}
FAMILIES = {"lstm": "LSTM", "transformer": "Transformer"}


class Entry(NamedTuple):
    """A way of pruning on one model: what is left of the connections in percent, over seeds."""

    way: str
    search: str
    seeds: int
    mean: float
    low: float
    high: float
    searches: bool
    tokens: float
    hours: float


class Versus(NamedTuple):
    """The winner against another way: by how many points of percent the winner's models are smaller.

    ``role`` is what the other way stands for, one of ``ROLES``; ``search`` searched for the winner's models,
    that of the winner itself or, where that was not run on the other way, another one. ``p`` is corrected
    over all comparisons of the model in this setting. ``verdict``: smaller, larger, unclear where the test
    cannot tell them apart, untested with one seed, described where no test is made.
    """

    role: str
    way: str
    search: str
    points: float
    low: float
    high: float
    p: float
    pairs: int
    verdict: str


class Answer(NamedTuple):
    """What is to be said about one model; ``example`` is the winner's cell of median size."""

    model: str
    family: str
    winner: Entry
    entries: list[Entry]
    versus: dict[str, Versus]
    example: dict[str, Any]
    drops: list[float]
    bleu: BleuDifference | None
    profile: Profile | None
    lengths: list[Lengths]
    kinds: list[Kind]


def answers(results: Results, texts: Texts) -> list[Answer]:
    """An answer for each model that was searched in the main setting, LSTMs first.

    Raises NotCollected if no cell is finished.
    """
    rows = main_setting(results.runs)
    rows = rows.assign(way=way(rows), searches=~is_rule(rows))
    # one setting: whatever its schedule is, all have it
    tests = contrasts(rows.assign(**{"config.schedule": "one-shot"}))
    bootstrap = PairedBootstrap(results.statistics)
    found = []
    for model, mine in rows.groupby("model"):
        entries = sorted(_entries(mine), key=lambda entry: entry.mean)
        able = [one for one in entries if one.searches and not one.way.startswith(SHUFFLED)]
        if able:
            winner = able[0]
            cells = mine[(mine["way"] == winner.way) & (mine["config.search"] == winner.search)]
            versus = _compared(winner, entries, mine, tests[tests["model"] == model])
            found.append(_answer(entries, winner, versus, cells, results, bootstrap, texts))
    return sorted(found, key=lambda one: (one.family, one.model))


def _answer(
    entries: list[Entry],
    winner: Entry,
    versus: dict[str, Versus],
    cells: pd.DataFrame,
    results: Results,
    bootstrap: PairedBootstrap,
    texts: Texts,
) -> Answer:
    cells = cells.sort_values(["remaining", "cell"])
    example = records(cells)[(len(cells) - 1) // 2]
    names = [[translation({"files": f}, model) for f in cells["files"]] for model in ("dense", "pruned")]
    known = all(name in bootstrap for name in (*names[0], *names[1]))
    counts = counted(results, example)
    text = texts.of(example)
    family = str(example["family"])
    return Answer(
        model=str(example["model"]),
        family=FAMILIES.get(family, family),
        winner=winner,
        entries=entries,
        versus=versus,
        example=example,
        drops=cells["sets.test.drop"].tolist(),
        bleu=bootstrap.mean_difference(*names) if known else None,
        profile=profile(*counts) if counts else None,
        lengths=by_length(*counts) if counts else [],
        kinds=[] if text is None else kinds(*text, texts.training(example)),
    )


def _entries(rows: pd.DataFrame) -> Iterator[Entry]:
    for (name, search), mine in rows.groupby(["way", "config.search"]):
        left = 100 * mine["remaining"]
        yield Entry(
            way=str(name),
            search=str(search),
            seeds=len(mine),
            mean=float(left.mean()),
            low=mean_interval(left)[0],
            high=mean_interval(left)[1],
            searches=bool(mine["searches"].all()),
            tokens=float(mine["tokens"].mean()),
            hours=float(mine["seconds"].mean()) / 3600,
        )


def _compared(
    winner: Entry, entries: list[Entry], rows: pd.DataFrame, tests: pd.DataFrame
) -> dict[str, Versus]:
    """The comparisons of the winner by role; what its search has not, from another search of its grouping."""
    found: dict[str, Versus] = {}
    others = [one for one in entries if one.searches and one.way == winner.way and one != winner]
    for one in (winner, *others):
        cells = rows[(rows["way"] == one.way) & (rows["config.search"] == one.search)]
        for versus in _versus(one, entries, cells, tests[tests["search"] == one.search], tuple(found)):
            found.setdefault(versus.role, versus)
    if "shuffled" in found:
        found.pop("other shuffled", None)
    return {role: found[role] for role in ROLES if role in found}


def _versus(
    winner: Entry, entries: list[Entry], cells: pd.DataFrame, tests: pd.DataFrame, roles: Collection[str]
) -> Iterator[Versus]:
    """The comparisons that answer a question, in the order of ``ROLES``; ``roles`` are answered already."""
    first: dict[str, Entry] = {}
    for other in entries:  # the smallest first
        if other != winner and (not other.searches or other.search == winner.search):
            first.setdefault(_role(winner, other, {*roles, *first}), other)
    for role in ROLES:
        if role == "rule" and role in first:
            yield _described(first[role], winner, cells)
        elif role in first:
            yield from _tested(role, winner, first[role].way, tests)


def _tested(role: str, winner: Entry, other: str, tests: pd.DataFrame) -> Iterator[Versus]:
    """A comparison as it stands among the contrasts, where either may be the first."""
    for sign, first, second in ((-100, winner.way, other), (100, other, winner.way)):
        for row in tests[(tests["first"] == first) & (tests["second"] == second)].to_dict("records"):
            low, high = sorted((sign * row["low"], sign * row["high"]))
            points, p = sign * row["mean"], row["p_holm"]
            verdict = _verdict(points, p)
            yield Versus(role, other, winner.search, points, low, high, p, row["pairs"], verdict)


def _described(rule: Entry, winner: Entry, cells: pd.DataFrame) -> Versus:
    """Against the best of the rules, which was chosen after the fact and so is not tested."""
    test = compare(rule.mean - 100 * cells["remaining"].astype(float), 0)
    found = (test.mean, test.low, test.high, np.nan, test.pairs, "described")
    return Versus("rule", rule.way, winner.search, *found)


def _role(winner: Entry, other: Entry, first: Collection[str]) -> str:
    """What another way stands for, after those that hold the roles ``first`` already."""
    if not other.searches:
        return "class-blind" if other.way == "class-blind" else "rule"
    if other.way.startswith(SHUFFLED):
        return "shuffled" if other.way == f"{SHUFFLED}{winner.way})" else "other shuffled"
    # no groups at all are the next grouping, too, where they come second
    return "single" if other.way == "single" and "next" in first else "next"


def _verdict(points: float, p: float) -> str:
    if np.isnan(p):
        return "untested"
    if p > LEVEL:
        return "unclear"
    return "smaller" if points > 0 else "larger"
