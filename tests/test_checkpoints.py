"""Checkpoints that a kill has torn are mended, or go."""

from pathlib import Path

import pytest
import torch

from grouping.errors import StudyError
from harness.checkpoints import mend

WHOLE = {"model": {"weight": torch.arange(1000.0)}}


@pytest.mark.parametrize(
    ("best", "last", "left"),
    [
        ("whole", "whole", {"best": "best", "last": "last"}),
        ("whole", "torn", {"best": "best", "last": "best"}),
        ("whole", "", {"best": "best"}),
        ("torn", "whole", {}),
        ("torn", "torn", {}),
        ("torn", "", {}),
        ("", "whole", {"last": "last"}),
        ("", "torn", {}),
        ("", "", {}),
    ],
)
def test_what_is_torn_is_copied_again_or_goes(tmp_path, best, last, left):
    written = {}
    for name, state in (("best", best), ("last", last)):
        path = tmp_path / f"checkpoint_{name}.pt"
        torch.save(WHOLE | {"name": name}, path)
        written[name] = path.read_bytes()
        if state == "torn":
            path.write_bytes(written[name][:-100])
        elif not state:
            path.unlink()
    mend(tmp_path)
    found = {path.name: path.read_bytes() for path in Path(tmp_path).iterdir()}
    assert found == {f"checkpoint_{name}.pt": written[origin] for name, origin in left.items()}


def test_what_cannot_be_read_is_left_alone(tmp_path):
    (tmp_path / "checkpoint_best.pt").mkdir()
    torch.save(WHOLE, tmp_path / "checkpoint_last.pt")
    with pytest.raises(StudyError, match="checkpoint_best.pt cannot be read"):
        mend(tmp_path)
    assert (tmp_path / "checkpoint_last.pt").exists()
