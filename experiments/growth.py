"""``python -m experiments.growth``: what sizing and applying candidates costs as models grow.

Models of fairseq's own architectures, freshly initialised, each with each grouping in a process of
its own; and, of the shipped models, what an evaluation takes on more and more sentences. Reported
are seconds, passes (the time of applying a candidate in units of copying the weights of the groups
that it changes) and memory (growth of the process over what it took before the model was read, in
units of the model's float32 weights).
"""

import argparse
import json
import multiprocessing
import re
import tempfile
import time
from argparse import Namespace
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch

from grouping import connection_table, partition
from harness.cell import Study
from harness.cli import guarded
from harness.constraint import Constraint
from harness.files import write_text
from harness.model import load_model, quiet_fairseq
from harness.operators import operators
from harness.search.rules import rules

#: architecture → entries of its dictionary, which both languages share
WORDS = {
    "transformer_wmt_en_de": 32_768,
    "transformer_wmt_en_de_big": 32_768,
    "lstm_luong_wmt_en_de": 40_000,
}
COMMON = ("single", "layer", "matrix")
OWN = {"transformer": ("attention-role", "head"), "lstm": ("gate",)}
OPERATOR = "magnitude"
CANDIDATES = 10_000
#: where steps start (share pruned by class-blind), their size (as of NCS) and their number
START, SIGMA, STEPS = 0.5, 0.05, 25
#: of the search set, in which evaluations are timed; the share that class-blind prunes there; how often
PARTS, PRUNED, REPEATS = (16, 8, 4, 2, 1), 0.2, 3
#: a model so small that reading it only imports what reading takes
TINY = dict.fromkeys(
    [
        *("encoder_embed_dim", "decoder_embed_dim", "encoder_ffn_embed_dim", "decoder_ffn_embed_dim"),
        *("encoder_hidden_size", "decoder_hidden_size", "decoder_out_embed_dim"),
    ],
    64,
)
COLUMNS = {
    "model": "{}",
    "grouping": "{}",
    "parameters": "{:,}",
    "groups": "{}",
    "table_seconds": "{:.2f}",
    "construction_seconds": "{:.2f}",
    "sizes_seconds": "{:.3f}",
    "apply_seconds": "{:.4f}",
    "apply_passes": "{:.2f}",
    "loading_memory": "{:.2f}",
    "resident_memory": "{:.2f}",
    "peak_memory": "{:.2f}",
}


def dictionary(words: int) -> Any:
    """A fairseq dictionary of so many entries, special ones included."""
    from fairseq.data import Dictionary

    made = Dictionary()
    for index in range(words - len(made)):
        made.add_symbol(f"word{index}")
    return made


def write_fresh(architecture: str, words: int, path: Path, **options: Any) -> None:
    """A checkpoint of a freshly initialised model; ``options`` are arguments of its architecture."""
    with quiet_fairseq():
        from fairseq import models
        from fairseq.tasks.translation import TranslationConfig, TranslationTask

    entries = dictionary(words)
    settings = Namespace(arch=architecture, dropout=0.0, criterion=None, **options)
    # the joint dictionary, as such Transformers are trained; fairseq's LSTM keeps its three tables
    settings.share_all_embeddings = architecture.startswith("transformer")
    models.ARCH_CONFIG_REGISTRY[architecture](settings)
    torch.manual_seed(1)
    task = TranslationTask(TranslationConfig(), entries, entries)
    module = models.ARCH_MODEL_REGISTRY[architecture].build_model(settings, task)
    torch.save({"cfg": {"model": settings}, "model": module.state_dict()}, path)


def measure(architecture: str, grouping: str, checkpoint: Path) -> dict[str, Any]:
    """One row: a model, a grouping and what they cost. Wants a process of its own."""
    torch.set_num_threads(1)
    words = dictionary(WORDS[architecture])
    with tempfile.TemporaryDirectory() as scratch:
        tiny = Path(scratch) / "tiny.pt"
        write_fresh(architecture, 100, tiny, **TINY)
        load_model(tiny, dictionary(100), dictionary(100))
    before = memory("VmRSS")
    model = load_model(checkpoint, words, words)
    weights, rng = model.flat.numpy(), np.random.default_rng(1)

    def grown(entry: str) -> float:
        return (memory(entry) - before) / weights.nbytes

    loading = grown("VmHWM")
    started = time.perf_counter()
    blocks = partition(connection_table(model.description), grouping)
    split = time.perf_counter()
    operator = operators.get(OPERATOR)(model, blocks)
    constructed = time.perf_counter()
    groups = len(operator.groups)
    many = rng.uniform(size=(CANDIDATES, groups))
    sizing = []
    for _ in range(5):  # short enough that another process could fall into one
        drawn = time.perf_counter()
        operator.size(many)
        sizing.append(time.perf_counter() - drawn)
    knobs = operator.knobs(rules.get("class-blind")(operator.magnitudes(), START))
    operator.apply(knobs)
    peak, resident = grown("VmHWM"), grown("VmRSS")
    steps = [knobs]
    for _ in range(STEPS):
        steps.append(np.clip(steps[-1] + SIGMA * rng.normal(size=groups), 0, 1))
    connections = blocks.groupby("group", sort=False)["size"].sum().to_numpy()
    seconds, copying = time_steps(operator, steps, connections, weights)
    return {
        "id": "growth",
        "model": architecture,
        "grouping": grouping,
        "operator": OPERATOR,
        "parameters": weights.size,
        "prunable": int(connections.sum()),
        "groups": groups,
        "candidates": CANDIDATES,
        "table_seconds": split - started,
        "construction_seconds": constructed - split,
        "sizes_seconds": min(sizing),
        "apply_seconds": float(np.median(seconds)),
        "copy_seconds": float(np.median(copying)),
        "apply_passes": float(np.median(seconds / copying)),
        "loading_memory": loading,
        "resident_memory": resident,
        "peak_memory": peak,
    }


def measure_evaluations(checkpoint: Path, corpus: Path) -> list[dict[str, Any]]:
    """Rows: a model, a part of the search set, and the seconds of one evaluation (greedy, float32)."""
    torch.set_num_threads(1)
    study = Study.open(checkpoint, corpus)
    operator = operators.get(OPERATOR)(study.model, study.groups("layer"))
    knobs = operator.knobs(rules.get("class-blind")(operator.magnitudes(), PRUNED))
    whole = len(study.corpus.references("search"))
    counts = [whole // part for part in PARTS]
    sets = {count: study.sentences("search", 1, searching=True, count=count) for count in counts}
    seconds: dict[int, list[float]] = {count: [] for count in counts}
    constraint = Constraint(1.0)
    operator.apply(knobs)
    for _ in range(REPEATS):
        for count, sentences in sets.items():
            operator.restore()
            started = time.perf_counter()
            operator.apply(knobs)
            sentences.judge(sentences.translate(), constraint)
            seconds[count].append(time.perf_counter() - started)
    return [
        {
            "id": "evaluation",
            "model": checkpoint.stem,
            "parameters": study.model.flat.numel(),
            "sentences": count,
            "seconds": float(np.median(taken)),
        }
        for count, taken in seconds.items()
    ]


def time_steps(
    operator: Any, steps: Sequence[np.ndarray], connections: np.ndarray, weights: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Seconds of each step from candidate to candidate, and of copying the weights of its groups.

    Both are taken in turns, so that what else the machine does slows both down.
    """
    other, seconds, copying = weights.copy(), [], []
    for before, after in zip(steps, steps[1:], strict=False):
        changed = connections[operator.counts(before) != operator.counts(after)].sum()
        started = time.perf_counter()
        np.copyto(other[:changed], weights[:changed])
        copied = time.perf_counter()
        operator.apply(after)
        copying.append(copied - started)
        seconds.append(time.perf_counter() - copied)
    return np.array(seconds), np.array(copying)


def memory(entry: str) -> int:
    """Bytes of an entry of Linux's account of this process, such as VmRSS (now) or VmHWM (peak)."""
    found = re.search(rf"^{entry}:\s+(\d+) kB", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return 1024 * int(found[1])


def table(rows: Sequence[dict[str, Any]]) -> str:
    """The rows as aligned text."""
    lines = [[name.replace("_", " ") for name in COLUMNS]]
    lines += [[form.format(row[name]) for name, form in COLUMNS.items()] for row in rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in lines
    )


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser("python -m experiments.growth", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=WORDS, default=list(WORDS), metavar="ARCHITECTURE")
    parser.add_argument("--models", type=Path, default=Path("models/homeassistant.en-de"), metavar="FOLDER")
    parser.add_argument("--corpus", type=Path, default=Path("data/homeassistant.en-de"), metavar="FOLDER")
    parser.add_argument("--out", type=Path, default=Path("results/growth.json"), metavar="FILE")
    args = parser.parse_args(arguments)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    rows = []
    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(1, context, max_tasks_per_child=1) as processes,
        tempfile.TemporaryDirectory() as scratch,
    ):
        for architecture in args.only:
            checkpoint = Path(scratch) / "fresh.pt"
            processes.submit(write_fresh, architecture, WORDS[architecture], checkpoint).result()
            family = architecture.partition("_")[0]
            for grouping in (*COMMON, *OWN[family]):
                rows.append(processes.submit(measure, architecture, grouping, checkpoint).result())
                print(table(rows[-1:]), flush=True)
        for shipped in sorted(args.models.glob("*.pt")):
            found = processes.submit(measure_evaluations, shipped, args.corpus).result()
            rows += found
            for row in found:
                print(f"{row['model']}: {row['sentences']} sentences {row['seconds']:.2f} s", flush=True)
    text = json.dumps(rows, indent=1) + "\n"
    write_text(args.out, text)
    print(table(rows))


if __name__ == "__main__":
    raise SystemExit(guarded(main))
