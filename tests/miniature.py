"""Collected results in miniature, with numbers that are easy to follow by hand."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.frame import Results

#: two groups, one three times the other
GROUPS = {"large": 300, "small": 100}


def measured(name: str, dense: float, bleu: float, half: float = 0.5) -> dict[str, Any]:
    """One set of a cell: BLEU and the interval of its drop, ``half`` to both sides."""
    drop = dense - bleu
    fields = {
        "sentences": 4,
        "beam": 5,
        "dense_bleu": dense,
        "bleu": bleu,
        "drop": drop,
        "interval": json.dumps([drop - half, drop + half]),
        "standard_error": half / 2,
        "dense_chrf": 50.0,
        "chrf": 49.0,
        "bleu_signature": "nrefs:1|tok:13a",
        "chrf_signature": "nrefs:1|nc:6",
    }
    return {f"sets.{name}.{key}": value for key, value in fields.items()}


def run(
    model: str = "luong",
    grouping: str = "gate",
    search: str = "NCS",
    seed: int = 1,
    remaining: float = 0.75,
    pruned: Sequence[int] = (60, 40),
    test: float = 29.5,
    **more: Any,
) -> dict[str, Any]:
    """A finished cell: of 400 connections, ``pruned`` are gone from the large and the small group."""
    found = {
        "cell": f"{model}/{grouping}-{search}-seed{seed}",
        "model": model,
        "status": "done",
        "planned": True,
        "family": "transformer" if model == "transformer" else "lstm",
        "config.checkpoint_sha256": model,
        "config.corpus_sha256": "text",
        "config.groups_sha256": grouping,
        "config.grouping": grouping,
        "config.operator": "magnitude",
        "config.search": search,
        "config.sparsity": None,
        "config.schedule": "one-shot",
        "config.tolerance": 1.0,
        "config.constraint": "bleu",
        "config.tokens": 1000,
        "config.evaluations": 10,
        "config.seed": seed,
        "remaining": remaining,
        "remaining_of_all": remaining,
        "prunable": 400,
        "parameters": 410,
        "pruned": sum(pruned),
        "backed_off": 0,
        "evaluations": 10,
        "tokens": 1000,
        "skipped": 2,
        "rounds": "[]",
        "seconds": 60.0,
        "other_seconds": 12.0,
        "groups": json.dumps(
            [
                {"group": name, "connections": size, "pruned": gone, "threshold": 0.125}
                for (name, size), gone in zip(GROUPS.items(), pruned, strict=True)
            ]
        ),
        "files": json.dumps({"test.dense.txt": f"{model}-dense", "test.pruned.txt": f"{model}-pruned"}),
        **measured("search", 31.0, 30.5),
        **measured("confirm", 32.0, 31.5),
        **measured("test", 30.0, test),
        "environment.python": "3.11.7",
        "environment.processor": "AMD EPYC",
        "environment.revision": "0123456789abcdef",
        "environment.packages": json.dumps({"sacrebleu": "2.6.0", "torch": "2.13.0"}),
    }
    return found | {key.replace("__", "."): value for key, value in more.items()}


def failure(cell: str = "luong/gate-NCS-seed9", **more: Any) -> dict[str, Any]:
    """A cell that has failed."""
    settings = {key: value for key, value in run().items() if key.startswith("config.")}
    told = {
        "failure.reason": "error",
        "failure.message": "ValueError: no",
        "failure.traceback": "Traceback (most recent call last):\nValueError: no",
        "failure.seconds": 1.0,
    }
    found = {"cell": cell, "model": "luong", "status": "failed", "planned": True, **settings, **told}
    return found | {key.replace("__", "."): value for key, value in more.items()}


def evaluation(cell: str, index: int, knobs: Sequence[float], drop: float, **more: Any) -> dict[str, Any]:
    """A candidate that was translated whole; feasible if the drop is at most one."""
    shares = [size / sum(GROUPS.values()) for size in GROUPS.values()]
    size = 1 - sum(share * knob for share, knob in zip(shares, knobs, strict=True))
    found = {
        "cell": cell,
        "round": 0,
        "index": index,
        "stage": "search",
        "knobs": list(knobs),
        "size": size,
        "how": "translated",
        "score": size,
        "feasible": drop <= 1,
        "bleu": 31.0 - drop,
        "drop": drop,
        "bound": drop,
        "tokens": 100,
        "seconds": 1.0,
    }
    return found | more


def written(
    folder: Path,
    runs: Iterable[dict[str, Any]],
    evaluations: Iterable[dict[str, Any]] = (),
    sentences: Iterable[dict[str, Any]] = (),
) -> Results:
    """The tables as ``olmp collect`` writes them, and the results that are read from them."""
    folder.mkdir(parents=True, exist_ok=True)
    table = pd.DataFrame(list(runs))
    whole = {"config.seed", "config.tokens", "config.evaluations", "tokens"} & set(table.columns)
    table.astype(dict.fromkeys(whole, "Int64")).to_parquet(folder / "runs.parquet")
    nothing = evaluation("none", 0, (0, 0), 0)
    tried = pd.DataFrame([nothing, *evaluations]).iloc[1:]
    tried.to_parquet(folder / "evaluations.parquet")
    if rows := list(sentences):
        pd.DataFrame(rows).to_parquet(folder / "sentences.parquet")
    return Results.of([folder])
