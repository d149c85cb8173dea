"""Magnitude pruning against torch.nn.utils.prune and hand calculations."""

import tracemalloc
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from conftest import mostly_long
from tiny_checkpoints import lively, tiny
from tiny_models import MODELS, dictionary
from torch.nn.utils import prune

from grouping.groups import partition
from grouping.table import connection_table
from harness.model import TranslationModel, load_model
from harness.operators import MagnitudePruning, ThresholdPruning, magnitude
from harness.operators.magnitude import connection_indices
from harness.search.rules import rules

PADDING = 1  # fairseq's index


def blocks_of(model: TranslationModel, grouping: str, vectors: bool = False) -> pd.DataFrame:
    return partition(connection_table(model.description, vectors), grouping)


def weights(model: TranslationModel, name: str) -> np.ndarray:
    """A parameter as the model has it at the moment."""
    return dict(model.module.named_parameters(remove_duplicate=False))[name].numpy()


def embeddings(module: torch.nn.Module) -> list[str]:
    """Names of the parameters that have a padding row."""
    parts = module.named_modules()
    return [
        f"{name}.weight"
        for name, part in parts
        if isinstance(part, torch.nn.Embedding) and part.padding_idx is not None
    ]


UNTIED = ["lstm", "lstm 3 layers", "transformer", "transformer pre-norm", "transformer projected"]


@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.37, 0.8, 0.999, 1.0])
@pytest.mark.parametrize("name", UNTIED)
def test_single_removes_what_torch_removes(name, fraction, tmp_path):
    _, model = tiny(name, tmp_path)
    operator = MagnitudePruning(model, blocks_of(model, "single"))
    operator.apply(np.array([fraction]))

    theirs = lively(name)
    padded = embeddings(theirs)
    matrices = [key for key, part in theirs.named_parameters() if part.dim() > 1]
    connections = 0
    for key in matrices:
        matrix = theirs.get_parameter(key)
        connections += matrix.numel()
        if key in padded:
            connections -= matrix.shape[1]
            with torch.no_grad():
                matrix[PADDING] = 1e9  # torch knows no padding: keep its row out of reach
    assert len(torch.cat([theirs.get_parameter(key).flatten() for key in matrices]).abs().unique()) > (
        0.999 * connections
    )
    places = [(theirs.get_submodule(key.rpartition(".")[0]), key.rpartition(".")[2]) for key in matrices]
    amount = round(fraction * connections)
    if amount:
        prune.global_unstructured(places, pruning_method=prune.L1Unstructured, amount=amount)
    removed = 0
    for key, (part, weight) in zip(matrices, places, strict=True):
        expected = getattr(part, weight).detach().numpy().copy()
        if key in padded:
            expected[PADDING] = 0
        assert np.array_equal(weights(model, key), expected)
        removed += int((expected == 0).sum()) - (expected.shape[1] if key in padded else 0)
    assert removed == amount
    assert operator.size(np.array([fraction])) == pytest.approx(1 - amount / connections, abs=1e-12)


def test_equal_magnitudes_go_in_table_order(tmp_path):
    _, model = tiny("transformer", tmp_path)
    model.flat[:] = 0.5
    model.flat[::2] = -0.5
    operator = MagnitudePruning(model, blocks_of(model, "single"))
    # the source embedding comes first, 8 wide: row 0, then row 2, for row 1 is the padding
    operator.apply(operator.knobs(np.array([11])))
    expected = np.ones((10, 8), dtype=bool)
    expected[0] = expected[2, :3] = False
    assert np.array_equal(weights(model, "encoder.embed_tokens.weight") != 0, expected)
    assert int((model.flat == 0).sum()) == 11
    # the last of the table stay longest: the output projection, 12 × 8
    operator.apply((operator.totals - 3) / operator.totals)
    last = weights(model, "decoder.output_projection.weight")
    assert np.argwhere(last != 0).tolist() == [[11, 5], [11, 6], [11, 7]]


def test_equal_magnitudes_of_a_block_by_columns(tmp_path):
    """Output projections are cut by columns into heads: all rows of head 0 come before head 1."""
    _, model = tiny("transformer", tmp_path)
    model.flat[:] = 0.5
    operator = MagnitudePruning(model, blocks_of(model, "attention-role"))
    counts = np.zeros(len(operator.groups), dtype=int)
    counts[operator.groups.index("output")] = 4 * 8 + 6
    operator.apply(operator.knobs(counts))
    kept = weights(model, "encoder.layers.0.self_attn.out_proj.weight") != 0
    expected = np.ones((8, 8), dtype=bool)
    expected[:, :4] = False
    expected[0, 4:] = expected[1, 4:6] = False
    assert np.array_equal(kept, expected)
    assert int((model.flat == 0).sum()) == 38


def test_smaller_ones_go_before_equal_ones(tmp_path):
    _, model = tiny("lstm", tmp_path)
    model.flat[:] = 0.5
    start = model.offsets["decoder.fc_out.weight"]
    model.flat[start + 5], model.flat[start + 40] = 0.25, -0.125
    operator = MagnitudePruning(model, blocks_of(model, "single"))
    pruned = []
    for count in range(4):
        operator.apply(operator.knobs(np.array([count])))
        pruned.append(np.flatnonzero(model.flat.numpy() == 0).tolist())
    # then the source embedding, which comes first in the table
    assert pruned == [[], [start + 40], [start + 5, start + 40], [0, start + 5, start + 40]]


@pytest.fixture
def halves(tmp_path) -> tuple[TranslationModel, int]:
    """A model whose target output weights are half ±1, half ±3, and the index of their group."""
    _, model = tiny("lstm", tmp_path)
    weight = torch.tensor([1.0, -3.0, 3.0, -1.0]).repeat(12 * 6 // 4)
    start = model.offsets["decoder.fc_out.weight"]
    model.flat[start : start + 72] = weight
    groups = blocks_of(model, "matrix")["group"].unique().tolist()
    return model, next(i for i, group in enumerate(groups) if "fc_out" in group)


@pytest.mark.parametrize(
    ("c", "pruned"),
    # mean|w| = 2, std|w| = 1: the threshold is 2 + c, and at most 3 = max|w|
    [(-2, 0), (-1.01, 0), (-1, 36), (0, 36), (0.99, 36), (1, 72)],
)
def test_threshold_by_hand(halves, c, pruned):
    model, group = halves
    operator = ThresholdPruning(model, blocks_of(model, "matrix"))
    knobs = np.zeros(len(operator.groups))
    knobs[group] = (2 + c) / 3
    counts = operator.counts(knobs)
    assert counts[group] == pruned
    assert counts.sum() == pruned
    operator.apply(knobs)
    expected = np.tile([1.0, -3.0, 3.0, -1.0], 18).reshape(12, 6)
    expected[np.abs(expected) <= max(2 + c, 0)] = 0
    assert np.array_equal(weights(model, "decoder.fc_out.weight"), expected)


@pytest.mark.parametrize("c", [-5.0, -1.2, -0.5, 0.0, 0.7, 2.0])
@pytest.mark.parametrize("name", ["lstm bidirectional", "transformer tied"])
def test_threshold_is_mean_and_deviation_of_each_group(name, c, tmp_path):
    """|w| ≤ max(mean|w| + c·std|w|, 0), over float64 sums of each matrix."""
    module, model = tiny(name, tmp_path)
    blocks = blocks_of(model, "matrix")
    operator = ThresholdPruning(model, blocks)
    knobs, expected = [], {}
    for group in operator.groups:
        (key,) = blocks.loc[blocks["group"] == group, "parameter"].unique()
        matrix = module.get_parameter(key).detach().numpy().astype(np.float64)
        real = np.ones(len(matrix), dtype=bool)
        if key in embeddings(module):
            real[PADDING] = False
        magnitudes = np.abs(matrix[real])
        threshold = max(magnitudes.mean() + c * magnitudes.std(), 0)
        knobs.append(min(threshold / magnitudes.max(), 1))
        expected[key] = np.where(np.abs(matrix) <= threshold, 0, matrix)
    operator.apply(np.array(knobs))
    for key, matrix in expected.items():
        assert np.array_equal(weights(model, key), matrix)
    share = 1 - operator.size(np.array(knobs))
    assert (share == 0) if c == -5 else (0.05 < share < 1)


def test_zeros_are_pruned_by_the_least_threshold_but_not_by_none(tmp_path):
    _, model = tiny("lstm", tmp_path)
    first = model.offsets["decoder.fc_out.weight"]
    model.flat[first : first + 10] = 0
    operator = ThresholdPruning(model, blocks_of(model, "single"))
    assert operator.counts(np.array([0.0])).tolist() == [0]
    assert operator.counts(operator.knobs(np.array([10]))).tolist() == [10]


def test_sizes_of_many_candidates_by_hand(tmp_path):
    _, model = tiny("lstm", tmp_path)
    blocks = blocks_of(model, "component")
    operator = MagnitudePruning(model, blocks)
    # source embedding 9·6 (padding apart), LSTM 32·6 + 32·8; decoder: embedding 11·6, LSTM 32·(6 + 8) + 32·8,
    # attention 8·8 + 8·16, then 8·6 to the width of the output layer and 12·6 in it
    encoder, decoder = 54 + 448, 66 + 704 + 192 + 48 + 72
    assert operator.groups == ["encoder", "decoder"]
    assert operator.totals.tolist() == [encoder, decoder]
    knobs = np.array([[[0, 0], [0.5, 0], [0, 1]], [[1, 1], [0.001, 0.001], [0.25, 0.5]]])
    pruned = [[0, 251, decoder], [encoder + decoder, 1 + 1, 126 + 541]]  # 125.5 is rounded to even
    assert operator.counts(knobs).sum(axis=-1).tolist() == pruned
    np.testing.assert_allclose(operator.size(knobs), 1 - np.array(pruned) / (encoder + decoder), atol=1e-12)


@pytest.mark.parametrize("vectors", [False, True])
@pytest.mark.parametrize("operator", [MagnitudePruning, ThresholdPruning])
@pytest.mark.parametrize("name", MODELS)
def test_padding_stays_and_vectors_stay_unless_asked_for(name, operator, vectors, tmp_path):
    module, model = tiny(name, tmp_path)
    for key in embeddings(module):
        dict(model.module.named_parameters())[key][PADDING] = 0.01  # the first to go if it counted
    dense = model.flat.clone()
    pruning = operator(model, blocks_of(model, "single", vectors))
    pruning.apply(np.ones(1))
    assert pruning.size(np.ones(1)) == 0
    kept = 0
    for key, start in model.offsets.items():
        part = module.get_parameter(key)
        now = model.flat[start : start + part.numel()].view(part.shape)
        before = dense[start : start + part.numel()].view(part.shape)
        if key in embeddings(module):
            assert (now[PADDING] == np.float32(0.01)).all()
            kept += part.shape[1]
            now = torch.cat([now[:PADDING], now[PADDING + 1 :]])
        if part.dim() > 1 or vectors:
            assert not now.any()
        else:
            assert torch.equal(now, before)
            kept += part.numel()
    assert int(pruning.kept().sum()) == kept


@pytest.mark.parametrize("name", ["lstm tied", "transformer tied"])
def test_a_tied_tensor_is_pruned_once_everywhere(name, tmp_path):
    module, model = tiny(name, tmp_path)
    operator = MagnitudePruning(model, blocks_of(model, "matrix"))
    group = next(i for i, label in enumerate(operator.groups) if "embed_tokens" in label)
    assert operator.totals[group] == 9 * module.encoder.embed_tokens.embedding_dim
    knobs = np.zeros(len(operator.groups))
    knobs[group] = 0.5
    operator.apply(knobs)
    shared = weights(model, "encoder.embed_tokens.weight")
    assert int((shared[[0, *range(2, 10)]] == 0).sum()) == round(0.5 * 9 * shared.shape[1])
    last = "decoder.fc_out.weight" if name == "lstm tied" else "decoder.output_projection.weight"
    for other in ("decoder.embed_tokens.weight", last):
        if other in dict(model.module.named_parameters(remove_duplicate=False)):
            assert np.array_equal(weights(model, other), shared)


def test_kept_connections_are_what_the_pruned_checkpoint_holds(tmp_path: Path):
    _, model = tiny("lstm 3 layers", tmp_path)
    model.flat[::5] = 0  # zero before, but not pruned
    dense = model.flat.clone()
    operator = MagnitudePruning(model, blocks_of(model, "gate"))
    operator.apply(np.linspace(0.1, 0.9, len(operator.groups)))
    kept = torch.from_numpy(operator.kept())
    assert torch.equal(model.flat, torch.where(kept, dense, 0))
    expected = np.rint(np.linspace(0.1, 0.9, len(operator.groups)) * operator.totals).sum()
    assert int((~kept).sum()) == expected


GROUPINGS = {"lstm": ["single", "gate+layer", "matrix"], "transformer": ["single", "head", "attention-role"]}


@pytest.mark.parametrize("piece", mostly_long([1, 7, 64, 1 << 17], quick=[7, 1 << 17]))
@pytest.mark.parametrize("name", ["lstm 3 layers", "transformer 3 layers", "transformer tied"])
def test_what_goes_is_the_start_of_a_stable_sort(name, piece, monkeypatch, tmp_path):
    """However the groups are cut into pieces, with equal magnitudes of both signs in most of them."""
    monkeypatch.setattr(magnitude, "PIECE", piece)
    _, model = tiny(name, tmp_path)
    model.flat.mul_(5).round_().div_(5)
    model.flat[::13] = -0.0
    dense = model.flat.numpy().copy()
    rng = np.random.default_rng(piece)
    for grouping in (*GROUPINGS[model.family], "shuffled(layer)", "shuffled(matrix)"):
        blocks = blocks_of(model, grouping)
        operator = MagnitudePruning(model, blocks)
        orders = []
        for group in operator.groups:
            places = connection_indices(blocks[blocks["group"] == group], model)
            orders.append(places[np.argsort(np.abs(dense[places]), kind="stable")])
        for _ in range(12):
            counts = rng.integers(0, operator.totals + 1)
            operator.apply(operator.knobs(counts))
            gone = np.concatenate([order[:count] for order, count in zip(orders, counts, strict=True)])
            expected, kept = dense.copy(), np.ones(dense.size, dtype=bool)
            expected[gone], kept[gone] = 0, False
            assert np.array_equal(model.flat.numpy().view(np.int32), expected.view(np.int32))
            assert np.array_equal(operator.kept(), kept)
        operator.restore()
        assert np.array_equal(model.flat.numpy().view(np.int32), dense.view(np.int32))


def test_only_groups_that_change_are_written(tmp_path):
    _, model = tiny("transformer", tmp_path)
    operator = MagnitudePruning(model, blocks_of(model, "matrix"))
    knobs = np.full(len(operator.groups), 0.5)
    operator.apply(knobs)
    model.flat += 1  # whatever is written again shows the weights there were
    moved = model.flat.clone()
    knobs[2] = 0.6
    operator.apply(knobs)
    (name,) = operator.groups[2:3]
    changed = (model.flat != moved).numpy()
    first = model.offsets[name]
    assert changed[first : first + operator.totals[2]].all()
    assert changed.sum() == operator.totals[2]


@pytest.mark.parametrize(
    "grouping",
    mostly_long(["single", "layer", "matrix", "head", "shuffled(layer)"], ["layer", "shuffled(layer)"]),
)
@pytest.mark.parametrize("operator", [MagnitudePruning, ThresholdPruning])
def test_memory_stays_below_three_times_the_model(operator, grouping):
    """The model itself is the first; measured while all is built, sorted, sized, ruled and applied."""
    folder = Path(__file__).parents[1] / "models" / "homeassistant.en-de"
    words = dictionary(0)
    words.add_from_file(str(folder / "dict.txt"))
    model = load_model(folder / "transformer.pt", words, words)
    MagnitudePruning(model, blocks_of(model, "single")).size(np.zeros(1))  # imports what it takes
    tracemalloc.start()
    pruning = operator(model, blocks_of(model, grouping))
    pruning.size(np.random.default_rng(0).uniform(size=(100, len(pruning.groups))))
    for rule in ("class-blind", "class-distribution", "lamp"):
        pruning.apply(pruning.knobs(rules.get(rule)(pruning.magnitudes(), 0.3)))
    pruning.kept()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2 * model.flat.nbytes
