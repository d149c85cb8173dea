"""Whether results are what they were: files against their checksums, a sample against the models."""

import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from experiments.collect import read_evaluations
from experiments.grid import Grid
from experiments.plan import PlannedCell
from grouping import StudyError
from harness import records
from harness.files import file_hash
from harness.masks import read_masks
from harness.record import cell_name, read
from harness.records import CellConfig, Result

#: what every finished cell has
NEEDED = (records.EVALUATIONS, records.MASKS, *records.ALL_HYPOTHESES)


def damage(folder: Path) -> Iterator[str]:
    """What is wrong with the files of a finished cell."""
    try:
        config = read(folder / records.CONFIG, CellConfig)
        result = read(folder / records.RESULT, Result)
    except StudyError as error:
        yield str(error)
        return
    if not folder.name.endswith(cell_name(config)):
        yield f"is named {folder.name}, its configuration says {cell_name(config)}"
    for name in sorted({*NEEDED, *result.files}):
        if name not in result.files:
            yield f"{name} has no checksum"
        elif not (folder / name).is_file():
            yield f"{name} is missing"
        elif file_hash(folder / name) != result.files[name]:
            yield f"{name} is not what it was when the cell ended"
    try:
        found = read_evaluations(folder)
    except StudyError as error:
        yield str(error)
        return
    searched = sum(e.stage in ("start", "search") for e in found)
    if searched != result.evaluations:
        yield f"{records.EVALUATIONS} holds {searched} evaluations, {records.RESULT} {result.evaluations}"


def difference(grid: Grid, cell: PlannedCell) -> Iterator[str]:
    """What comes out otherwise when the final candidate of a finished cell is made and judged again."""
    from harness.cell import Study, pruned_masks, sets_of
    from harness.constraint import Constraint
    from harness.operators import operators

    folder, config = grid.cell_folder(cell), cell.config
    result = read(folder / records.RESULT, Result)
    study = Study.open(cell.checkpoint, cell.corpus, device=config.device, shared=grid.dense_folder)
    sets = sets_of(study, config)
    blocks = study.groups(config.grouping, config.vectors, config.seed)
    operator = operators.get(config.operator)(study.model, blocks)
    kept = read_masks(folder / records.MASKS)
    if config.schedule == "one-shot":
        operator.apply(np.array(result.knobs))
        masks = pruned_masks(study.model, operator)
        yield from (f"the mask of {n} is another one" for n in kept if not np.array_equal(kept[n], masks[n]))
    else:  # the weights are others than the dense model's
        study.model.load_weights(folder / records.CHECKPOINT)
    constraint = Constraint(config.tolerance, config.criterion, config.confidence)
    for name, sentences in sets.items():
        again = sentences.result(sentences.translate(), constraint)
        for key, value in again.model_dump().items():
            before = getattr(result.sets[name], key)
            if value != before:
                yield f"{name}: {key} was {before}, is {value}"


def verify(grid: Grid, cells: Sequence[PlannedCell], sample: int, seed: int) -> dict[str, list[str]]:
    """Problems by cell: of all finished cells' files, and of ``sample`` of them evaluated again."""
    done = [cell for cell in cells if grid.state(cell) == "done"]
    problems = {cell.name: list(damage(grid.cell_folder(cell))) for cell in done}
    chosen = random.Random(seed).sample(done, min(sample, len(done)))
    for cell in tqdm(chosen, unit="cell", disable=not sys.stderr.isatty(), dynamic_ncols=True):
        if not problems[cell.name]:
            problems[cell.name] = list(difference(grid, cell))
    return {name: found for name, found in problems.items() if found}
