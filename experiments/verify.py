"""Whether results are what they were: files against their checksums, a sample against the models."""

import random
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from experiments.grid import Grid
from experiments.plan import PlannedCell
from experiments.work import study_of
from grouping import StudyError, content_hash
from harness import records
from harness.configuration import CellConfig
from harness.files import file_hash
from harness.masks import pruned_masks, read_masks
from harness.record import cell_name, read, read_evaluations
from harness.records import Result

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
    if folder.name != cell_name(config):
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


def difference(grid: Grid, cell: PlannedCell, trust: bool) -> Iterator[str]:
    """What comes out otherwise when the final candidate of a finished cell is made and judged again.

    The dense model is translated again, too. Raises StudyError if model, text or grouping are not what
    they were.
    """
    from harness.cell import sets_of
    from harness.constraint import Constraint
    from harness.operators import operators

    folder, config = grid.cell_folder(cell), cell.config
    result = read(folder / records.RESULT, Result)
    study = study_of(cell, trust, shared=None)
    sets = sets_of(study, config)
    masks = read_masks(folder / records.MASKS)
    dense = study.model.flat.clone()
    try:
        if config.schedule == "one-shot":
            blocks = study.groups(config.grouping, config.vectors, config.seed)
            if content_hash(blocks) != config.groups_sha256:
                raise StudyError(f"grouping {config.grouping!r} gives other groups than it did")
            operator = operators.get(config.operator)(study.model, blocks)
            operator.apply(np.array(result.knobs))
            again = pruned_masks(study.model, operator)
            yield from (
                f"the mask of {name} is another one"
                for name in masks
                if not np.array_equal(masks[name], again[name])
            )
        else:  # retrained: the weights are others than the dense model's
            study.model.load_weights(folder / records.CHECKPOINT)
        constraint = Constraint(config.tolerance, config.criterion, config.confidence)
        for name, sentences in sets.items():
            found = sentences.result(sentences.translate(), constraint)
            for key, value in found.model_dump().items():
                before = getattr(result.sets[name], key)
                if value != before:
                    yield f"{name}: {key} was {before}, is {value}"
    finally:
        study.model.flat.copy_(dense)


def verify(
    grid: Grid, cells: Sequence[PlannedCell], sample: int, seed: int, trust: bool = False
) -> tuple[dict[str, list[str]], dict[str, list[str]]]:
    """Problems by cell: with the files of all finished ones, and with ``sample`` of them evaluated again.

    Raises StudyError if no cell is finished.
    """
    done = [cell for cell in cells if grid.state(cell) == "done"]
    if not done:
        raise StudyError(f"no cell in {grid.folder} is finished: there is nothing to verify yet")
    damaged = {cell.name: list(damage(grid.cell_folder(cell))) for cell in done}
    sound = [cell for cell in done if not damaged[cell.name]]
    chosen = sorted(random.Random(seed).sample(sound, min(sample, len(sound))), key=lambda c: c.name)
    differing = {}
    for cell in tqdm(chosen, unit="cell", disable=not sys.stderr.isatty(), dynamic_ncols=True):
        try:
            differing[cell.name] = list(difference(grid, cell, trust))
        except StudyError as error:
            differing[cell.name] = [f"cannot be evaluated again: {error}"]
    return _problems(damaged), _problems(differing)


def _problems(found: dict[str, list[str]]) -> dict[str, list[str]]:
    return {name: problems for name, problems in found.items() if problems}
