"""``make demo``: compress the shipped Transformer and an LSTM under a tolerance of 1 BLEU point."""

import argparse
import time
from pathlib import Path

from experiments.executors import Options, run_local
from experiments.grid import Grid
from experiments.inputs import Inputs
from experiments.plan import cells_of, read_plan
from harness import records
from harness.cli import guarded
from harness.record import read, read_evaluations
from harness.records import Result
from harness.report import beginning_lines, summary_lines


def main() -> None:
    plan = read_plan("demo")
    parser = argparse.ArgumentParser("python -m experiments.demo", description=__doc__)
    parser.add_argument("--corpus", type=Path, default=plan.corpus, metavar="FOLDER")
    parser.add_argument("--models", type=Path, default=plan.models, metavar="FOLDER")
    parser.add_argument("--out", type=Path, default=Path("runs/demo"), metavar="FOLDER")
    parser.add_argument("--evaluations", type=int, metavar="N", help="budget of each cell")
    parser.add_argument("--jobs", type=int, metavar="N", help="cells side by side (default: one per core)")
    args = parser.parse_args()
    started = time.monotonic()
    chosen = {} if args.evaluations is None else {"evaluations": args.evaluations}
    plan = plan.model_copy(
        update={"corpus": args.corpus, "models": args.models, "defaults": plan.defaults | chosen}
    )
    grid = Grid(args.out)
    grid.refuse_foreign()
    inputs = Inputs(grid.memory, keeps=grid.begun)
    planned = cells_of(plan, inputs)
    grid.write_plan(planned)  # so that status, collect and verify know the folder
    inputs.keep()
    print(
        f"Two trained models, searched side by side; some minutes (`olmp watch {grid.folder}`).", flush=True
    )
    run_local(grid, planned.cells, Options(jobs=args.jobs, keep_checkpoints=True))
    for cell in planned.cells:
        folder = grid.cell_folder(cell)
        result = read(folder / records.RESULT, Result)
        begun = beginning_lines(cell.config, result, read_evaluations(folder))
        print("\n".join([f"\n== {cell.model}", *summary_lines(cell.config, result), *begun]))
        print(f"pruned model, masks and every evaluation: {folder}")
    print(f"\n{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    raise SystemExit(guarded(main))
