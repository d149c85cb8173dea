"""What fairseq-train starts from: models with frozen tensors or few positions, retrained cells."""

import json

import pytest
import torch
from conftest import MODELS, QUICK

from grouping.errors import StudyError
from harness import cli
from harness.cell import Study, run_cell
from harness.masks import read_masks
from harness.model import hash_weights

HALF = QUICK | {"search": "class-blind", "sparsity": 0.5, "epochs": 1, "learning_rate": 1e-3}


@pytest.fixture
def with_settings(small, tmp_path):
    """A study of a shipped model whose checkpoint says other settings."""

    def made(name: str, **settings) -> Study:
        state = torch.load(MODELS / f"{name}.pt", weights_only=True)
        assert settings.keys() <= state["cfg"]["model"].keys()
        state["cfg"]["model"] |= settings
        torch.save(state, tmp_path / "other.pt")
        return Study.open(tmp_path / "other.pt", small)

    return made


@pytest.mark.parametrize("schedule", ["retrain", "gradual"])
def test_a_frozen_embedding_is_pruned_and_not_trained(with_settings, tmp_path, schedule):
    study = with_settings("rnnsearch", encoder_freeze_embed=True)
    dense = {name: p.clone().numpy() for name, p in study.model.module.named_parameters()}
    result = run_cell(study, study.config(**HALF, schedule=schedule), tmp_path / "cell")
    weights = torch.load(tmp_path / "cell" / "pruned.pt", weights_only=True)["model"]
    masks, gone = read_masks(tmp_path / "cell" / "masks.npz"), 0
    assert not masks["encoder.embed_tokens.weight"].all()
    for name, mask in masks.items():
        found = weights[name].numpy()
        assert not found[~mask].any()
        gone += (~mask).sum()
        frozen = name == "encoder.embed_tokens.weight"
        assert (found[mask] == dense[name][mask]).all() == frozen
    assert gone == result.pruned == round(0.5 * result.prunable)


@pytest.mark.parametrize("side", ["source", "target"])
def test_a_sentence_of_valid_beyond_the_models_positions_is_refused_at_once(with_settings, tmp_path, side):
    study = with_settings("transformer", **{f"max_{side}_positions": 5})
    said = rf"of valid has \d+ tokens, and the model 5 positions: .* --max-{side}-positions$"
    with pytest.raises(StudyError, match=said):
        run_cell(study, study.config(**HALF, schedule="retrain"), tmp_path / "cell")
    assert not (tmp_path / "cell").exists()


def test_the_command_trains_the_model_of_a_retrained_cell_on(small, tmp_path, capsys):
    study, cell, out = Study.open(MODELS / "luong.pt", small), tmp_path / "cell", tmp_path / "out"
    command = ["retrain", str(MODELS / "luong.pt"), "--corpus", str(small), "--cell", str(cell)]
    command += ["--out", str(out), "--epochs", "1", "--distillation", "0.5"]
    run_cell(study, study.config(**HALF, schedule="retrain"), cell)
    result = (cell / "result.json").rename(tmp_path / "result.json")
    assert cli.main(command) == 2
    assert f"the cell in {cell} is not finished: `olmp compress` again" in capsys.readouterr().err
    result.rename(cell / "result.json")
    pruned = (cell / "pruned.pt").rename(tmp_path / "pruned.pt")
    assert cli.main(command) == 2
    assert f"{cell / 'pruned.pt'} is gone: put it back" in capsys.readouterr().err
    pruned.rename(cell / "pruned.pt")
    assert cli.main(command) == 0
    dense = hash_weights(study.model.flat)
    study.model.load_weights(cell / "pruned.pt")
    job = json.loads((out / "job.json").read_text())
    assert job["pruned_sha256"] == hash_weights(study.model.flat) != dense
    assert job["teacher_sha256"] == dense
