"""Products in int8: the native ones against whole numbers multiplied in PyTorch, and where there are none."""

import numpy as np
import pytest
import torch
from conftest import QUICK
from tiny_checkpoints import tiny
from torch.nn import functional

from grouping.errors import StudyError
from harness.bleu import score
from harness.cell import run_cell
from harness.decoding import Decoding, Translator, int8, kernels, linear
from harness.decoding.int8 import Int8Linear
from harness.decoding.linear import Place, fastest_precision
from harness.environment import processor

CPU = torch.device("cpu")


@pytest.fixture(params=[*int8.UNITS.values(), "torch"])
def build(request, monkeypatch) -> str:
    """Each way to multiply that this processor has."""
    if request.param == "torch":
        monkeypatch.setattr(kernels, "library", lambda: None)
        return request.param
    if kernels.library() is None:
        pytest.fail("the native kernels were not built: is there a C compiler?")
    if not int8.unit() or request.param not in processor()[1]:
        pytest.skip(f"no {request.param}")
    number = next(number for number, name in int8.UNITS.items() if name == request.param)
    monkeypatch.setattr(int8, "unit", lambda: number)
    return request.param


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def whole(rows: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Whole numbers from -127 to 127, and what one of them is worth in each row."""
    step = rows.double().abs().amax(dim=1, keepdim=True) / 127
    return (rows / step.clamp(min=1e-30)).round(), step


@pytest.mark.parametrize("after", [None, functional.relu, torch.tanh])
@pytest.mark.parametrize("bias", [True, False])
# outputs of no, one and several panels; inputs that four do not divide; rows of no, one and several tiles
@pytest.mark.parametrize("shape", [(1, 8, 6), (7, 11, 70), (13, 130, 200), (400, 64, 64), (5, 1, 17)])
def test_a_product_is_that_of_whole_numbers(build, shape, bias, after):
    rows, inputs, outputs = shape
    x, weight = randn(rows, inputs).bfloat16(), randn(outputs, inputs, seed=1)
    added = randn(outputs, seed=2) if bias else None
    (x_whole, x_step), (weight_whole, weight_step) = whole(x.float()), whole(weight)
    expected = x_whole.double() @ weight_whole.double().T * x_step * weight_step.T
    expected = expected if added is None else expected + added
    expected = expected if after is None else after(expected)
    found = Int8Linear(weight, added, after)(x)
    assert found.dtype == torch.bfloat16
    # a number between two whole ones may become either
    loose = float(x_step.max() * weight.abs().max())
    torch.testing.assert_close(found.double(), expected, rtol=2**-7, atol=loose)
    assert (found.double() - expected).norm() < 0.01 * expected.norm()


def test_all_units_of_a_processor_give_the_same(monkeypatch):
    has = [number for number, name in int8.UNITS.items() if int8.unit() and name in processor()[1]]
    if len(has) < 2:
        pytest.skip("fewer than two units for int8")
    x, weight, bias = randn(40, 130).bfloat16(), randn(200, 130, seed=1), randn(200, seed=2)
    found = []
    for number in has:
        monkeypatch.setattr(int8, "unit", lambda number=number: number)
        found.append(Int8Linear(weight, bias)(x))
    assert all(torch.equal(found[0], other) for other in found[1:])


def test_it_is_close_to_the_product_itself(build):
    x, weight = randn(20, 256).bfloat16(), randn(100, 256, seed=1)
    expected = x.double() @ weight.double().T
    found = Int8Linear(weight)(x).double()
    assert (found - expected).norm() < 0.02 * expected.norm()


def test_a_row_does_not_depend_on_the_others(build):
    x, weight = randn(40, 60).bfloat16(), randn(70, 60, seed=1)
    x[3] *= 1000
    product = Int8Linear(weight, randn(70, seed=2), functional.relu)
    together = product(x)
    assert all(torch.equal(product(x[r : r + 1]), together[r : r + 1]) for r in range(40))
    assert torch.equal(product(x.T.contiguous().T), together)


def test_nothing_but_zeros_gives_the_bias(build):
    x, weight, bias = randn(9, 12).bfloat16(), randn(20, 12), randn(20, seed=1)
    expected = bias.bfloat16()
    x[4], weight[5] = 0, 0
    assert torch.equal(Int8Linear(torch.zeros(20, 12), bias)(x), expected.expand(9, 20))
    found = Int8Linear(weight, bias)(x)
    assert torch.equal(found[4], expected)
    assert torch.equal(found[:, 5], expected[5].expand(9))


@pytest.mark.parametrize("model", ["lstm tied", "transformer pre-norm"])
def test_pytorch_translates_alike(build, model, tmp_path, monkeypatch):
    """Up to rounding, which random weights turn into other words here and there."""
    _, read = tiny(model, tmp_path)
    rng = np.random.default_rng(0)
    sentences = [np.append(rng.integers(4, 10, size=length), 2) for length in range(30)]
    unit = int8.unit() or 1
    monkeypatch.setattr(int8, "unit", lambda: unit)
    decoding = Decoding(max_len_b=10, precision="int8")
    found = Translator(read, 1, 2).translate(sentences, decoding).hypotheses
    monkeypatch.setattr(kernels, "library", lambda: None)
    slowly = Translator(read, 1, 2).translate(sentences, decoding).hypotheses
    assert len({tuple(words) for words in found}) > 5
    assert sum(one == other for one, other in zip(found, slowly, strict=True)) >= 20


def test_int8_is_refused_where_it_cannot_be_had(monkeypatch, tmp_path):
    with pytest.raises(StudyError, match="int8 is for CPUs: give bfloat16 or float16 on a GPU"):
        Place.of(torch.device("cuda"), "int8")
    monkeypatch.setattr(kernels, "library", lambda: None)
    _, read = tiny("lstm", tmp_path)
    with pytest.raises(StudyError, match="int8 takes an x86 processor with AVX2"):
        Translator(read, 1, 2).translate([np.array([4, 2])], Decoding(precision="int8"))


def test_a_cell_in_int8_is_refused_at_its_beginning(studies, tmp_path, monkeypatch):
    study = studies("rnnsearch")
    config = study.config(**QUICK, grouping="component", precision="int8")
    monkeypatch.setattr(int8, "unit", lambda: 0)
    monkeypatch.setattr(Translator, "translate", lambda *_: pytest.fail("translates"))
    with pytest.raises(StudyError, match="int8 takes an x86 processor"):
        run_cell(study, config, tmp_path / "cell")


@pytest.mark.skipif(not int8.unit(), reason="no unit for int8")
@pytest.mark.parametrize("model", ["transformer", "rnnsearch", "luong"])
def test_shipped_models_keep_their_bleu(studies, model):
    study = studies(model)
    low, exact = (study.sentences("search", 1, 100, True, precision) for precision in ("int8", "float32"))
    found, expected = (part.dense.statistics.sum(axis=0) for part in (low, exact))
    assert score(found) == pytest.approx(score(expected), abs=1)


def test_the_probe_runs_one_thread_whatever_is_set(monkeypatch):
    seen = []
    monkeypatch.setattr(linear.time, "perf_counter", lambda: seen.append(torch.get_num_threads()) or 0.0)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        fastest_precision("cpu")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert set(seen) == {1}


def test_a_lower_precision_has_to_be_worth_it(monkeypatch):
    for unit, float32, bfloat16, whole, expected in [
        (3, 4.0, 2.0, 1.0, "int8"),
        (3, 4.0, 2.0, 1.8, "bfloat16"),
        (3, 2.0, 9.0, 1.0, "int8"),
        (3, 1.0, 0.9, 0.9, "float32"),
        (0, 4.0, 2.0, 1.0, "bfloat16"),
    ]:
        taken = {Place(CPU, torch.float32): float32, Place(CPU, torch.bfloat16): bfloat16}
        monkeypatch.setattr(linear, "_seconds", (taken | {Place(CPU, torch.bfloat16, int8=True): whole}).get)
        monkeypatch.setattr(int8, "unit", lambda unit=unit: unit)
        assert fastest_precision("cpu") == expected
