"""What decoding does besides matrix products: attention, normalisation, the best words, an LSTM's gates.

On a CPU through a small native library (``kernels.h``), which pip builds where there is a compiler;
elsewhere, and on a GPU, the same in PyTorch. Results are equal up to rounding.
"""

import ctypes
import importlib.util
from functools import cache
from typing import Any

import torch
from torch.nn import functional

from grouping.errors import StudyError

_NAMES = {torch.float32: "float32", torch.bfloat16: "bfloat16"}
#: what `best` may choose: any word, any but an ending (the first word), only an ending (the last)
ANY, FIRST, LAST = 0, 1, 2
#: numbers in a vector of the library: 8 on any processor, 16 with AVX-512
WIDTHS = (8, 16)

#: what each function of the library takes: addresses (p), int64 (i), float (f)
_TAKES = {"store": "pipipii", "arrange_int8": "piippp", "multiply_int8": "piippppiiip"}
#: and those that there are for each type and width of vectors
_TYPED = {
    "attend": "pippippipiiifp",
    "best": "piipiiipp",
    "lstm": "pppii",
    "norm": "ppppiifp",
}
_KINDS: dict[str, Any] = {"p": ctypes.c_void_p, "i": ctypes.c_int64, "f": ctypes.c_float}


@cache
def library() -> ctypes.CDLL | None:
    """The native library, or None where it was not built. Raises StudyError if it is of another version."""
    found = importlib.util.find_spec("harness.decoding._kernels")
    if found is None or found.origin is None:
        return None
    try:
        loaded = ctypes.CDLL(found.origin)
        widest = loaded.vector_lanes()
    except OSError:  # built for another machine
        return None
    except AttributeError as error:
        raise StudyError("the native kernels were built from another version: run `make setup`") from error
    typed = {
        f"{name}_{suffix}_{width}": takes
        for name, takes in _TYPED.items()
        for suffix in _NAMES.values()
        for width in WIDTHS
        if width <= widest
    }
    for name, takes in (_TAKES | typed).items():
        getattr(loaded, name).argtypes = [_KINDS[kind] for kind in takes]
    return loaded


def _native(name: str, like: torch.Tensor):
    loaded = library()
    if loaded is None or like.device.type != "cpu" or like.dtype not in _NAMES:
        return None
    return getattr(loaded, f"{name}_{_NAMES[like.dtype]}_{lanes()}")


@cache
def lanes() -> int:
    """Numbers in a vector of the fastest kernels that this processor runs, one of ``WIDTHS``."""
    loaded = library()
    assert loaded is not None
    return loaded.vector_lanes()


def call(function, *arguments) -> None:
    """A function of the library; of tensors goes the address of their first number."""
    if function(*[a.data_ptr() if isinstance(a, torch.Tensor) else a for a in arguments]):
        raise MemoryError("no memory for a step of decoding: translate fewer rows at a time")


def norm(
    x: torch.Tensor, added: torch.Tensor | None, weight: torch.Tensor, bias: torch.Tensor, eps: float
) -> torch.Tensor:
    """Layer normalisation of the rows of ``x`` [R, C], or of ``x + added``."""
    native = _native("norm", x)
    if native is None or not all(part is None or part.is_contiguous() for part in (x, added)):
        return functional.layer_norm(x if added is None else x + added, weight.shape, weight, bias, eps)
    out = torch.empty_like(x)
    call(native, x, added, weight, bias, *x.shape, eps, out)
    return out


def store(rows: torch.Tensor, memory: torch.Tensor, entries: torch.Tensor) -> None:
    """Write ``rows`` [R, C] to ``entries`` [R] of ``memory`` [E, C]."""
    loaded = library()
    if loaded is None or rows.device.type != "cpu":
        memory[entries] = rows
        return
    strides = (part.stride(0) * part.element_size() for part in (rows, memory))
    call(
        loaded.store,
        rows,
        next(strides),
        memory,
        next(strides),
        entries,
        len(rows),
        rows.shape[1] * rows.element_size(),
    )


def attend(
    query: torch.Tensor,
    keys: torch.Tensor,
    values: torch.Tensor,
    first: torch.Tensor,
    lengths: torch.Tensor,
    heads: int,
    scale: float,
    table: torch.Tensor | None = None,
) -> torch.Tensor:
    """Attention of single queries [R, C] over rows of ``keys`` and ``values`` [E, C] → [R, C].

    Query r looks at ``lengths[r]`` entries from ``first[r]`` on or, with a ``table`` [R, room], at
    the entries ``table[r, :lengths[r]]``. Keys and values have one stride; C = heads · head size.
    """
    native = _native("attend", query)
    if native is None:
        return _attend(query, keys, values, first, lengths, heads, scale, table)
    out = torch.empty(query.shape, dtype=query.dtype)
    room = 0 if table is None else table.stride(0)
    width = query.shape[1] // heads
    call(
        native,
        *(query, query.stride(0), keys, values, keys.stride(0), first, table, room, lengths),
        *(len(query), heads, width, scale, out),
    )
    return out


def _attend(query, keys, values, first, lengths, heads, scale, table) -> torch.Tensor:
    places = torch.arange(int(lengths.max()), device=query.device)
    if table is None:
        # consecutive queries that look at the same, such as the beams of a sentence, read it together
        looks = torch.stack([first, lengths], dim=1)
        looks, of, counts = looks.unique_consecutive(return_inverse=True, return_counts=True, dim=0)
        first, ends = looks[:, 0], counts.cumsum(0)
        rank = torch.arange(len(query), device=query.device) - (ends - counts)[of]
        lengths, entries = lengths[ends - 1], first[:, None] + places
    else:
        of = torch.arange(len(query), device=query.device)
        counts, rank, entries = torch.ones_like(of), torch.zeros_like(of), table[:, : len(places)]
    looked = places < lengths[:, None]
    # beyond a row's own entries there may be anything, even NaN, which no mask would keep out
    entries = torch.where(looked, entries, entries[:, :1])
    grouped = query.new_zeros(len(counts), int(counts.max()), query.shape[1])
    grouped[of, rank] = query
    parts = (grouped, keys[entries], values[entries])
    q, k, v = (part.unflatten(2, (heads, -1)).transpose(1, 2) for part in parts)
    y = functional.scaled_dot_product_attention(q, k, v, attn_mask=looked[:, None, None], scale=scale)
    return y.transpose(1, 2).flatten(2)[of, rank]


def best(
    logits: torch.Tensor, state: torch.Tensor, pad: int, eos: int, count: int, scored: bool
) -> tuple[torch.Tensor, torch.Tensor]:
    """The ``count`` most probable words [R, count] of each row of ``logits`` [R, V], best first.

    With their log-probabilities, float32 of the same shape, or nothing unless ``scored``. Padding
    is never chosen; ``state`` [R] says what else may not be: ANY, FIRST or LAST.
    """
    native = _native("best", logits)
    if native is None:
        return _best(logits, state, pad, eos, count, scored)
    rows, words = logits.shape
    found = torch.empty(rows, count, dtype=torch.long)
    scores = torch.empty(rows, count if scored else 0)
    call(native, logits, rows, words, state, pad, eos, count, found, scores if scored else None)
    return found, scores


def _best(logits, state, pad, eos, count, scored):
    logits = logits.float()
    if scored:
        logits = logits.log_softmax(dim=1)
    ending = logits[:, eos].clone()
    logits[:, pad] = -torch.inf
    logits[state == FIRST, eos] = -torch.inf
    logits[state == LAST] = -torch.inf
    logits[:, eos] = torch.where(state == LAST, ending, logits[:, eos])
    found = logits.argmax(dim=1, keepdim=True) if count == 1 else logits.topk(count, dim=1).indices
    return found, logits.gather(1, found if scored else found[:, :0])


def lstm_cell(gates: torch.Tensor, cell: torch.Tensor) -> torch.Tensor:
    """Hidden state [R, H] after one step from joined ``gates`` [R, 4·H] (input, forget, cell, output).

    ``cell``, float32 [R, H], is updated in place.
    """
    rows, width = cell.shape
    native = _native("lstm", gates)
    if native is None or not (cell.is_contiguous() and gates.is_contiguous()):
        into, forget, new, out = gates.float().chunk(4, dim=1)
        cell.copy_(forget.sigmoid() * cell + into.sigmoid() * new.tanh())
        return (out.sigmoid() * cell.tanh()).to(gates.dtype)
    hidden = torch.empty(rows, width, dtype=gates.dtype)
    call(native, gates, cell, hidden, rows, width)
    return hidden
