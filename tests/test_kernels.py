"""The native kernels against PyTorch's own operators, in both precisions."""

import _ctypes
from types import SimpleNamespace

import pytest
import torch
from torch.nn import functional

from grouping.errors import StudyError
from harness.decoding import kernels
from harness.decoding.kernels import ANY, FIRST, LAST, attend, best, library, lstm_cell, norm, store

TYPES = (torch.float32, torch.bfloat16)
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}
PAD, EOS = 1, 2


@pytest.fixture(params=[*kernels.WIDTHS, "torch"], autouse=True)
def build(request, monkeypatch) -> str:
    if request.param == "torch":
        monkeypatch.setattr(kernels, "library", lambda: None)
        return "torch"
    if kernels.library() is None:
        pytest.fail("the native kernels were not built: is there a C compiler?")
    if request.param > kernels.lanes():
        pytest.skip("no AVX-512")
    monkeypatch.setattr(kernels, "lanes", lambda: request.param)
    return "native"


def randn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(("heads", "width"), [(1, 5), (2, 16), (3, 24), (4, 64), (1, 200)])
@pytest.mark.parametrize("tabled", [False, True])
def test_attention_row_by_row(dtype, heads, width, tabled):
    lengths = torch.tensor([1, 4, 4, 19, 40, 2, 3])
    first = torch.tensor([0, 7, 7, 20, 50, 50, 50])
    size = heads * width
    query, store = randn(7, size + 3).to(dtype)[:, :size], randn(100, 2 * size, seed=1).to(dtype)
    store[99] = torch.nan  # what nobody looks at does not matter
    table = None
    if tabled:
        table = torch.full((7, 45), 99)
        for r in range(7):
            shuffled = torch.randperm(99, generator=torch.Generator().manual_seed(r))
            table[r, : lengths[r]] = shuffled[: lengths[r]]
    keys, values = store.split(size, dim=1)
    found = attend(query, keys, values, first, lengths, heads, 0.3, table)
    for r in range(7):
        entries = torch.arange(int(lengths[r])) + first[r] if table is None else table[r, : lengths[r]]
        q, k, v = (
            x.double().view(-1, heads, width).transpose(0, 1)
            for x in (query[r : r + 1], keys[entries], values[entries])
        )
        expected = ((0.3 * q @ k.transpose(1, 2)).softmax(dim=2) @ v).flatten()
        torch.testing.assert_close(found[r].double(), expected, rtol=0, atol=TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("words", [9, 64, 65, 200])
def test_the_best_words(dtype, words):
    logits = randn(6, words).to(dtype)
    state = torch.tensor([ANY, FIRST, LAST, ANY, FIRST, LAST])
    logits[:, PAD] = 50  # never chosen, but part of the distribution, as in fairseq
    logits[:, EOS] = 40
    expected = logits.float().log_softmax(dim=1)
    found, scores = best(logits.clone(), state, PAD, EOS, 3, scored=True)
    assert found[:, 0].tolist()[2::3] == [EOS, EOS]
    assert (scores[2::3, 1:] == -torch.inf).all()
    torch.testing.assert_close(scores[2::3, 0], expected[2::3, EOS])
    for r in (0, 1, 3, 4):
        row = expected[r].clone()
        row[PAD] = -torch.inf
        if state[r] == FIRST:
            row[EOS] = -torch.inf
        torch.testing.assert_close(scores[r], row.topk(3).values)
        torch.testing.assert_close(expected[r][found[r]], scores[r])
        assert len(set(found[r].tolist())) == 3
    one, nothing = best(logits.clone(), state, PAD, EOS, 1, scored=False)
    assert nothing.numel() == 0
    torch.testing.assert_close(expected.gather(1, one), expected.gather(1, found[:, :1]))


def test_the_first_of_equal_words_is_best():
    logits = torch.zeros(2, 150)
    found, _ = best(logits, torch.tensor([ANY, FIRST]), PAD, EOS, 1, scored=False)
    assert found.tolist() == [[0], [0]]


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("width", [3, 16, 50])
def test_an_lstm_cell_is_torchs(dtype, width):
    gates, cell = 3 * randn(4, 4 * width).to(dtype), randn(4, width, seed=1)
    into, forget, new, out = gates.double().chunk(4, dim=1)
    content = forget.sigmoid() * cell.double() + into.sigmoid() * new.tanh()
    hidden = lstm_cell(gates, cell)
    torch.testing.assert_close(cell.double(), content, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(hidden.double(), out.sigmoid() * content.tanh(), rtol=0, atol=TOLERANCE[dtype])


def test_exponentials_of_large_numbers_stay_finite():
    keys = torch.tensor([[1000.0], [-1000.0], [999.0]])
    out = attend(torch.tensor([[1.0]]), keys, keys, torch.tensor([0]), torch.tensor([3]), 1, 1.0)
    expected = functional.softmax(torch.tensor([1000.0, -1000.0, 999.0]), 0) @ keys[:, 0]
    torch.testing.assert_close(out[0, 0], expected)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("width", [3, 32, 72, 256])
@pytest.mark.parametrize("residual", [False, True])
def test_layer_normalisation_is_torchs(dtype, width, residual):
    x, added = (3 + 2 * randn(5, width, seed=seed).to(dtype) for seed in (0, 1))
    weight, bias = (randn(width, seed=seed).to(dtype) for seed in (2, 3))
    found = norm(x, added if residual else None, weight, bias, 1e-5)
    whole = x.double() + added.double() if residual else x.double()
    expected = functional.layer_norm(whole, (width,), weight.double(), bias.double(), 1e-5)
    # without the native kernel, bfloat16 rounds the sum, too
    loose = 5 * TOLERANCE[dtype] if residual else 2 * TOLERANCE[dtype]
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=loose)
    assert found.dtype == dtype


@pytest.mark.parametrize("dtype", TYPES)
def test_rows_are_stored_at_their_entries(dtype):
    rows, memory, entries = randn(3, 9).to(dtype)[:, 2:6], torch.zeros(8, 4, dtype=dtype), [6, 0, 3]
    store(rows, memory, torch.tensor(entries))
    assert torch.equal(memory[entries], rows)
    assert not memory[[1, 2, 4, 5, 7]].any()


def test_a_library_of_another_version_is_refused(monkeypatch):
    monkeypatch.setattr(
        kernels.importlib.util, "find_spec", lambda name: SimpleNamespace(origin=_ctypes.__file__)
    )
    with pytest.raises(StudyError, match="run `make setup`"):
        library.__wrapped__()
