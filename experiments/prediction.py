"""``python -m experiments.prediction``: how well cheap measures foretell the BLEU of pruned candidates.

Candidates as a search meets them, a step of NCS's size away from class-blind pruning around the edge
of the constraint, are translated greedily and scored by teacher forcing on the search set. Spearman's
rank correlation says how alike the two order them; the share pruned, which costs nothing, is the
measure to beat. A replay says what the pre-filter would have saved, and what it would have lost.
"""

import argparse
import json
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.stats import rankdata
from tqdm import tqdm

from experiments.prefilter import Prefilter
from grouping.errors import StudyError
from harness.cell import Study
from harness.cli import guarded
from harness.constraint import Constraint, interval
from harness.corpus.corpus import Corpus
from harness.files import file_hash, write_text
from harness.operators import Operator, operators
from harness.search.ncs import reflect
from harness.search.rules import rules
from harness.teacher_forcing import ACCURACY, LIKELIHOOD, Measure, TeacherForcing
from harness.workers import Workers, cores

#: changes whenever a row would be another one
FORMAT = 1
SEED = 1
#: of each model family; candidates take turns
GROUPINGS = {
    "transformer": ("single", "layer", "stage", "matrix", "attention-role"),
    "lstm": ("single", "layer", "stage", "matrix", "gate"),
}
#: class-blind fraction pruned, and the step away from it in knob units
STRENGTHS = (0.15, 0.45)
SIGMAS = (0.05, 0.1)
#: row entry → what it is; all rise as a candidate gets worse. A quarter is every fourth sentence, at a
#: quarter of the time
PREDICTORS = {
    "accuracy_drop": "accuracy drop",
    "nll_rise": "nll rise",
    "accuracy_drop_quarter": "accuracy drop, a quarter",
    "nll_rise_quarter": "nll rise, a quarter",
    "pruned": "share pruned",
}
#: BLEU points; candidates this near to the dense model are the ones a search has to tell apart
NEAR = 2.0
TOLERANCE = 1.0
RESAMPLES = 1000
REPLAYS = 5


class Bench:
    """A dense model with what it takes to measure candidates of it."""

    def __init__(self, checkpoint: Path, corpus: Path):
        self.study = Study.open(checkpoint, corpus)
        self.sentences = self.study.sentences("search", beam=1, searching=True)
        dictionary = self.study.corpus.target_dictionary
        sides = self.study.corpus.source_tokens("search"), self.study.corpus.target_tokens("search")
        self.forcing = TeacherForcing(self.study.model, *sides, dictionary.pad(), dictionary.eos())
        self.dense = self.forcing.score()
        make = operators.get("magnitude")
        self.groupings = GROUPINGS[self.study.model.family]
        self.operators = [make(self.study.model, self.study.groups(name)) for name in self.groupings]

    def row(self, index: int) -> dict[str, Any]:
        """Measure one candidate: drops against the dense model, CPU seconds of each measurement."""
        turn = index % len(self.groupings)
        operator = self.operators[turn]
        knobs, strength, sigma = candidate(operator, index)
        try:
            operator.apply(knobs)
            started = time.process_time()
            translated = self.sentences.translate()
            between = time.process_time()
            forced = self.forcing.score()
            ended = time.process_time()
        finally:
            operator.restore()
        verdict = self.sentences.judge(translated, Constraint(TOLERANCE))

        def drop(measure: Measure, step: int = 1) -> float:
            sides = (side.statistics[::step].sum(axis=0) for side in (self.dense, forced))
            before, after = (float(measure.of_sums(sums)) for sums in sides)
            return before - after

        return {
            "index": index,
            "grouping": self.groupings[turn],
            "strength": strength,
            "sigma": sigma,
            "pruned": 1 - float(operator.size(knobs)),
            "bleu": verdict.bleu,
            "drop": verdict.drop,
            "bound": verdict.bound,
            "standard_error": verdict.standard_error,
            "accuracy_drop": drop(ACCURACY),
            "nll_rise": drop(LIKELIHOOD),
            "accuracy_drop_quarter": drop(ACCURACY, step=4),
            "nll_rise_quarter": drop(LIKELIHOOD, step=4),
            "bleu_seconds": between - started,
            "forced_seconds": ended - between,
        }


def candidate(operator: Operator, index: int) -> tuple[NDArray[np.float64], float, float]:
    """Knobs [G] of a candidate, the class-blind fraction it starts from and the size of its step."""
    rng = np.random.default_rng([SEED, index])
    strength, sigma = float(rng.uniform(*STRENGTHS)), float(rng.choice(SIGMAS))
    start = operator.knobs(rules.get("class-blind")(operator.magnitudes(), strength))
    return reflect(start + sigma * rng.normal(size=start.size), 0, 1), strength, sigma


def read_rows(path: Path) -> dict[int, dict[str, Any]]:
    """Rows by index; a last line that a crash cut off is removed, its candidate is measured again."""
    if not path.exists():
        return {}
    content = path.read_bytes()
    good = content.rfind(b"\n") + 1
    if good < len(content):
        os.truncate(path, good)
    rows = [json.loads(line) for line in content[:good].splitlines()]
    return {row["index"]: row for row in rows}


def measured(checkpoint: Path, corpus: Path, path: Path, candidates: int, jobs: int) -> list[dict[str, Any]]:
    """Rows of the first candidates of a model; what ``path`` does not hold yet is appended as it is done."""
    rows = read_rows(path)
    missing = [index for index in range(candidates) if index not in rows]
    if missing:
        bench = Bench(checkpoint, corpus)
        with Workers(bench.row, jobs) as workers, path.open("a", encoding="utf-8") as file:
            # disable=None: a bar on a terminal only
            for row in tqdm(workers.map(missing), checkpoint.stem, len(missing), unit="eval", disable=None):
                rows[row["index"]] = row
                print(json.dumps(row), file=file, flush=True)
    return [rows[index] for index in range(candidates)]


def correlations(rows: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Spearman's rho of the drop in BLEU with each predictor, and its 95 % bootstrap interval.

    Candidates are resampled, the sentences are given: the interval is for other candidates on the same set.
    """
    drops = np.array([row["drop"] for row in rows])
    drawn = np.random.default_rng(SEED).integers(len(rows), size=(RESAMPLES, len(rows)))
    found = {}
    for name in PREDICTORS:
        values = np.array([row[name] for row in rows])
        rho = rank_correlations(drops, values)
        resampled = rank_correlations(drops[drawn], values[drawn])
        # a resample of one candidate alone has no order
        found[name] = {"rho": float(rho), "interval": interval(resampled[np.isfinite(resampled)])}
    return found


def rank_correlations(x: NDArray, y: NDArray) -> NDArray[np.float64]:
    """Spearman's rho along the last axis, [..., n] twice to [...]; NaN where all of one side is equal."""
    ranks = [rankdata(side, axis=-1) for side in (x, y)]
    x, y = (rank - rank.mean(axis=-1, keepdims=True) for rank in ranks)
    with np.errstate(invalid="ignore"):
        return (x * y).sum(axis=-1) / np.sqrt((x * x).sum(axis=-1) * (y * y).sum(axis=-1))


def replay(rows: Sequence[dict[str, Any]], predictor: str) -> dict[str, float]:
    """What the pre-filter does when the candidates come in random order; means over the orders.

    ``refused``: share of all candidates; ``lost``: share of the feasible ones, by the drop itself,
    that it refused; ``wrong``: share of the refused ones that were feasible. A refused candidate is
    not translated, so it calibrates nothing.
    """
    drops, values = (np.array([row[name] for row in rows]) for name in ("drop", predictor))
    rng = np.random.default_rng(SEED)
    refused = np.zeros(len(rows))
    for _ in range(REPLAYS):
        seen: list[int] = []
        for i in rng.permutation(len(rows)):
            if Prefilter().refuses(values[seen], drops[seen], values[i], TOLERANCE):
                refused[i] += 1
            else:
                seen.append(i)
    feasible = drops <= TOLERANCE
    return {
        "refused": float(refused.mean() / REPLAYS),
        "lost": float(refused[feasible].sum() / max(1, REPLAYS * feasible.sum())),
        "wrong": float(refused[feasible].sum() / max(1, refused.sum())),
    }


def summary(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What the rows of one model say, for all candidates and for those near the dense model."""
    near = [row for row in rows if abs(row["drop"]) <= NEAR]
    return {
        "candidates": len(rows),
        "near_candidates": len(near),
        "feasible": sum(row["drop"] <= TOLERANCE for row in rows),
        "standard_error": float(np.mean([row["standard_error"] for row in rows])),
        "all": correlations(rows) if len(rows) > 2 else None,
        "near": correlations(near) if len(near) > 2 else None,
        "prefilter": {name: replay(rows, name) for name in PREDICTORS},
        "bleu_seconds": float(np.mean([row["bleu_seconds"] for row in rows])),
        "forced_seconds": float(np.mean([row["forced_seconds"] for row in rows])),
    }


def summary_lines(name: str, found: dict[str, Any]) -> Iterator[str]:
    """The summary of one model, for a reader."""
    yield (
        f"{name}: {found['candidates']} candidates, {found['near_candidates']} within {NEAR:g} BLEU, "
        f"{found['feasible']} lose at most {TOLERANCE:g}; "
        f"standard error of a drop {found['standard_error']:.2f}"
    )
    yield (
        f"  CPU seconds per evaluation: BLEU {found['bleu_seconds']:.1f}, "
        f"teacher forcing {found['forced_seconds']:.1f}"
    )
    for predictor, label in PREDICTORS.items():
        parts = []
        for where in ("all", "near"):
            if found[where] is not None:
                rho, (low, high) = found[where][predictor]["rho"], found[where][predictor]["interval"]
                parts.append(f"{where} {rho:.2f} [{low:.2f}, {high:.2f}]")
        filtered = found["prefilter"][predictor]
        yield (
            f"  {label:24}  rho {', '.join(parts)}; pre-filter refuses {filtered['refused']:.0%}, "
            f"loses {filtered['lost']:.0%} of the feasible"
        )


def main() -> None:
    parser = argparse.ArgumentParser("python -m experiments.prediction", description=__doc__)
    parser.add_argument("--models", type=Path, default=Path("models/homeassistant.en-de"), metavar="FOLDER")
    parser.add_argument("--corpus", type=Path, default=Path("data/homeassistant.en-de"), metavar="FOLDER")
    parser.add_argument("--candidates", type=int, default=200, metavar="N", help="of each model")
    parser.add_argument("--out", type=Path, default=Path("results/prediction.json"), metavar="FILE")
    parser.add_argument("--runs", type=Path, default=Path("runs/prediction"), metavar="FOLDER")
    parser.add_argument("--jobs", type=int, default=cores(), metavar="N")
    args = parser.parse_args()
    corpus_hash = Corpus.open(args.corpus).content_hash()
    checkpoints = sorted(args.models.glob("*.pt"))
    if not checkpoints:
        raise StudyError(f"there are no models in {args.models}")
    # named by what they are rows of: those of another model, corpus or version are left alone
    paths = {
        path: args.runs / f"{path.stem}-{file_hash(path)[:8]}-{corpus_hash[:8]}-v{FORMAT}.jsonl"
        for path in checkpoints
    }
    torch.set_num_threads(1)
    args.runs.mkdir(parents=True, exist_ok=True)
    models = {}
    for checkpoint, path in paths.items():
        rows = measured(checkpoint, args.corpus, path, args.candidates, args.jobs)
        about = summary(rows)
        models[checkpoint.stem] = {"summary": about, "rows": rows}
        print("\n".join(summary_lines(checkpoint.stem, about)), flush=True)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps({"corpus_sha256": corpus_hash, "models": models}, indent=1) + "\n"
    write_text(args.out, text)


if __name__ == "__main__":
    raise SystemExit(guarded(main))
