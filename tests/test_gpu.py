"""Translation and training on a GPU, against the same on a CPU; skipped where there is none.

In processes of their own: once CUDA has begun in a process, no fork of it can use CUDA.
"""

import json

import pandas as pd
import pytest
import torch
from conftest import MODELS
from grids import olmp, write_plan

from experiments.collect import collect
from experiments.grid import Grid

pytestmark = pytest.mark.skipif(not torch.cuda.device_count(), reason="no GPU here")

TRAINED = """model = ["rnnsearch", "transformer"]
grouping = "single"
search = "class-blind"
sparsity = 0.5
"""
TABLES = f"""
[[cells]]
model = ["transformer", "rnnsearch", "luong"]
grouping = "single"
search = "class-blind"
sparsity = 0.3
device = ["cpu", "cuda"]
[[cells]]
model = "transformer"
grouping = "layer"
evaluations = 4
precision = ["float32", "bfloat16"]
device = "cuda"
[[cells]]
{TRAINED}schedule = ["retrain", "gradual"]
epochs = 2
learning_rate = 1e-3
device = ["cpu", "cuda"]
[[cells]]
{TRAINED}schedule = "retrain"
epochs = 2
distillation = 0.5
autocast = "bfloat16"
device = "cuda"
[[cells]]
{TRAINED}schedule = "retrain"
epochs = 2
learning_rate = 1e-3
autocast = "bfloat16"
training_device = "cuda"
"""


@pytest.fixture(scope="module")
def runs(small, tmp_path_factory) -> pd.DataFrame:
    """The cells of one grid on both devices, four at a time on however many GPUs there are."""
    folder = tmp_path_factory.mktemp("gpu")
    plan = write_plan(folder / "gpu.toml", small, TABLES)
    said = olmp("grid", plan, "--out", folder / "grid", "--jobs", 4)
    assert said.returncode == 0, said.stderr
    return collect(Grid(folder / "grid")).runs


def pairs(runs: pd.DataFrame, schedule: str) -> list[tuple[pd.Series, pd.Series]]:
    """The same cell on the CPU and on the GPU."""
    rows = runs[runs["config.sparsity"].notna() & (runs["config.schedule"] == schedule)]
    rows = rows[(rows["config.distillation"] == 0) & rows["config.training_device"].isna()]
    rows = rows.sort_values("config.device")
    return [(one.iloc[0], one.iloc[1]) for _, one in rows.groupby("model")]


def test_the_record_says_where_it_ran(runs):
    devices = runs[["config.device", "config.training_device"]]
    assert (runs["environment.accelerator"].notna() == (devices == "cuda").any(axis=1)).all()


def test_translations_are_those_of_a_cpu(runs):
    found = pairs(runs, "one-shot")
    assert len(found) == 3
    for cpu, gpu in found:
        assert gpu["pruned"] == cpu["pruned"]
        for column in ("dense_bleu", "bleu"):
            # a word of a dozen sentences may be another one by rounding
            assert gpu[f"sets.test.{column}"] == pytest.approx(cpu[f"sets.test.{column}"], abs=3)


@pytest.mark.parametrize("schedule", ["retrain", "gradual"])
def test_training_learns_as_on_a_cpu(runs, schedule):
    found = pairs(runs, schedule)
    assert len(found) == 2
    for cpu, gpu in found:
        own, other = (json.loads(one["rounds"])[-1]["retraining"] for one in (gpu, cpu))
        assert own["updates"] == other["updates"]
        assert own["valid_loss"] == pytest.approx(other["valid_loss"], rel=0.05)
        assert gpu["pruned"] == cpu["pruned"]


def test_it_may_train_there_and_translate_on_the_cpu(runs):
    rows = runs[(runs["config.training_device"] == "cuda") | (runs["config.schedule"] == "one-shot")]
    rows = rows[rows["config.device"] == "cpu"]
    trained = rows[rows["config.training_device"] == "cuda"]
    assert len(trained) == 2
    for _, own in trained.iterrows():
        assert json.loads(own["rounds"])[-1]["retraining"]["precision"] == "float32"
        others = rows.loc[(rows["model"] == own["model"]) & (rows["config.schedule"] == "one-shot")]
        # translated by the same kernels
        assert (others["sets.test.dense_bleu"] == own["sets.test.dense_bleu"]).all()


def test_it_distils_in_float32_whatever_was_asked(runs):
    rows = runs[runs["config.distillation"] > 0]
    assert len(rows) == 2
    assert {json.loads(one)[-1]["retraining"]["precision"] for one in rows["rounds"]} == {"float32"}


def test_a_pruned_model_is_retrained_there(small, tmp_path):
    """From the command line, zeros and all: ``retrain`` refuses a model whose pruned connections moved."""
    model = [MODELS / "rnnsearch.pt", "--corpus", small, "--device", "cuda"]
    rule = ["--search", "class-blind", "--grouping", "single", "--sparsity", 0.5]
    for command in (
        ["compress", *model, "--out", tmp_path / "cell", *rule],
        ["retrain", *model, "--cell", tmp_path / "cell", "--out", tmp_path / "r", "--epochs", 1],
    ):
        said = olmp(*command)
        assert said.returncode == 0, said.stderr
    state = torch.load(tmp_path / "r" / "retrained.pt", weights_only=True)["model"]
    zeros = sum(int((weights == 0).sum()) for weights in state.values())
    assert zeros > 0.45 * sum(weights.numel() for weights in state.values())
