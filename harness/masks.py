"""Masks of a pruned model: a bit per connection, True = kept, by the first name of each tensor."""

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from grouping.errors import StudyError
from harness.files import write_atomically

if TYPE_CHECKING:  # torch takes a second to load, and planning a grid needs none of it
    from harness.model import TranslationModel
    from harness.operators import Operator


def pruned_masks(model: "TranslationModel", operator: "Operator") -> dict[str, NDArray[np.bool_]]:
    """Connections that the applied knobs keep (True), by parameter name; tied parameters once."""
    kept = operator.kept()
    shapes = model.description.shapes
    return {
        name: kept[start : start + int(np.prod(shapes[name]))].reshape(shapes[name])
        for name, start in model.offsets.items()
    }


def write_masks(path: Path, masks: Mapping[str, NDArray[np.bool_]]) -> None:
    """Write masks atomically: ``<name>`` packed to bits, and ``<name>/shape``."""
    packed = {name: np.packbits(mask) for name, mask in masks.items()}
    shapes = {f"{name}/shape": np.array(mask.shape) for name, mask in masks.items()}

    def write(draft: Path) -> None:
        with draft.open("wb") as file:
            np.savez_compressed(file, allow_pickle=False, **packed, **shapes)

    write_atomically(path, write)


def read_masks(path: Path) -> dict[str, NDArray[np.bool_]]:
    """Masks in the shapes of their parameters. Raises StudyError for a file that holds none."""
    try:
        with np.load(path) as saved:
            found = {}
            for name in saved.files:
                if not name.endswith("/shape"):
                    shape = tuple(saved[f"{name}/shape"])
                    bits = np.unpackbits(saved[name], count=int(np.prod(shape)))
                    found[name] = bits.astype(bool).reshape(shape)
            return found
    except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile, zlib.error) as error:
        raise StudyError(
            f"{path} holds no masks ({error}): name the {path.name} of a finished cell"
        ) from None
