"""Figure: our tokens/s over what the measured rate of matrix products would allow."""

import re
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn import functional
from tqdm import tqdm

from experiments.bench import speed
from experiments.bench.context import Context, Skipped, figures
from experiments.bench.machine import multiplies
from experiments.bench.race import SETTLE, Runner, tokens
from experiments.bench.rows import Row, ratios
from experiments.bench.workers import Layout, Workers
from grouping.anatomy import ModelDescription

RATES = "experiments.bench.roofline:Rates"
PRECISIONS = ("float32", "bfloat16")
#: rows of a product, as batches of decoding have them
ROWS = (64, 128, 256, 512)
#: how long one product is repeated for, in seconds, and how often: a limit is what the best round reaches
REPEAT, ROUNDS = 0.004, 5


@dataclass(frozen=True)
class Product:
    """A matrix [outputs, inputs] that multiplies once for each source token, target token or sentence."""

    outputs: int
    inputs: int
    per: str

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one row."""
        return self.outputs * self.inputs


def products(description: ModelDescription) -> list[Product]:
    """The matrix products of decoding, told from the names of the weights.

    Matrices that read the same input are one product: query, key and value of self-attention; input
    and state of an LSTM cell. Embeddings are looked up, not multiplied, unless they are the output
    projection, too. Products of attention have no weights and are not counted.
    """
    joined: dict[str, Product] = {}
    shapes = {name: shape for name, shape in description.shapes.items() if len(shape) == 2}
    output = {"decoder.output_projection.weight", "decoder.fc_out.weight"} & set(shapes)
    for name, (outputs, inputs) in shapes.items():
        if "embed_positions" in name:
            continue
        if "embed_tokens" in name and (name.startswith("encoder.") or output):
            continue
        key = re.sub(r"(self_attn|encoder_attn)\.[kv]_proj", r"\1.joined", name)
        key = re.sub(r"self_attn\.q_proj", "self_attn.joined", key)
        key = re.sub(r"weight_(ih|hh)", "joined", key)
        found = joined.get(key)
        if found is None:
            joined[key] = Product(outputs, inputs, _per(name))
        elif "_proj" in name:
            joined[key] = Product(found.outputs + outputs, inputs, found.per)
        else:
            joined[key] = Product(outputs, found.inputs + inputs, found.per)
    return list(joined.values())


def _per(name: str) -> str:
    if name.startswith("decoder.encoder_") and "_proj" in name:
        return "sentence"  # the encoder's last state becomes the decoder's first
    of_source = name.startswith("encoder.") or re.search(r"encoder_attn\.[kv]_proj", name)
    return "source" if of_source else "target"


def macs(found: Sequence[Product], per: str) -> int:
    """Multiply-accumulates for each source token, target token or sentence."""
    return sum(product.macs for product in found if product.per == per)


def allowed(found: Sequence[Product], counts: dict[str, int], rate: float) -> float:
    """Target tokens/s if ``rate`` (FLOP/s, two for each multiply-accumulate) were all it took.

    ``counts`` are the source tokens, target tokens and sentences of the set.
    """
    return counts["target"] * rate / (2 * sum(macs(found, per) * count for per, count in counts.items()))


class Rates:
    """Measures matrix products, as an engine: the best of torch's and oneDNN's, at the best batch."""

    def __init__(self, layout: Layout, found: Sequence[Product], precision: str) -> None:
        torch.set_num_threads(layout.threads)
        self.found, self.dtype = found, getattr(torch, precision)

    def measure(self) -> float:
        """FLOP/s over one row of each product."""
        with torch.inference_mode():
            seconds = {product: self._seconds(product) for product in set(self.found)}
        return 2 * sum(p.macs for p in self.found) / sum(seconds[p] for p in self.found)

    def _seconds(self, product: Product) -> float:
        """Of one row, at best."""
        weight = torch.randn(product.outputs, product.inputs).to(self.dtype)
        return min(
            _time(multiply) / rows
            for rows in ROWS
            for multiply in ways(torch.randn(rows, product.inputs).to(self.dtype), weight)
        )


def ways(x: torch.Tensor, weight: torch.Tensor) -> Iterator[Callable[[], Any]]:
    """What multiplies x [rows, in] by weight [out, in]: torch, oneDNN, and oneDNN with its own layout."""
    yield lambda: functional.linear(x, weight)
    if torch.backends.mkldnn.is_available():
        onednn = torch.ops.mkldnn
        try:
            packed = onednn._reorder_linear_weight(weight, len(x))
            for laid_out in (weight, packed):
                onednn._linear_pointwise(x, laid_out, None, "none", [], "")
        except RuntimeError:
            return  # not in this precision on this processor
        yield lambda: onednn._linear_pointwise(x, weight, None, "none", [], "")
        yield lambda: onednn._linear_pointwise(x, packed, None, "none", [], "")


def _time(multiply: Callable[[], Any]) -> float:
    """Seconds of one call: the mean over ``REPEAT`` seconds, the best of ``ROUNDS`` of these."""
    multiply()
    return min(_mean(multiply) for _ in range(ROUNDS))


def _mean(multiply: Callable[[], Any]) -> float:
    calls, start = 0, time.perf_counter()
    while (elapsed := time.perf_counter() - start) < REPEAT:
        multiply()
        calls += 1
    return elapsed / calls


@figures.register("roofline")
def roofline(context: Context) -> list[Row]:
    """Greedy, every model there is: float32 over float32's limit, the faster of both over bfloat16's."""
    rows: list[Row] = []
    for model in speed.MODELS:
        try:
            rows += [_row(context, model, precision) for precision in PRECISIONS if multiplies(precision)]
        except Skipped as reason:
            tqdm.write(f"roofline of {model} is skipped: {reason}", file=sys.stderr)
    return rows


def _row(context: Context, model: str, precision: str) -> Row:
    contenders = speed.ours(context, model, 1)
    chosen = (
        contenders[:1] if precision == "float32" else [c for c in contenders if c.precision in PRECISIONS]
    )
    found = products(context.study(model).model.description)
    decoder = [product for product in found if product.per == "target"]
    total = sum(contender.tries for contender in chosen) + context.pairs
    with ExitStack() as stack:
        bar = stack.enter_context(context.progress(f"roofline {model} {precision}", total))
        best = max(chosen, key=lambda contender: context.fastest(contender, bar).speed)
        setting = context.fastest(best, bar)
        runner = stack.enter_context(Runner(best, setting.layout, context.lengths))
        runner.warm(setting.batch)
        asked = {"found": decoder, "precision": precision}
        rates = stack.enter_context(Workers(RATES, asked, Layout(context.cores, 1)))
        ours, limits, flops = [], [], []
        for _ in range(context.pairs):
            time.sleep(SETTLE)
            ours.append(runner.run())
            time.sleep(SETTLE)
            flops.append(sum(rates.call("measure").answers))
            counts = {
                "source": sum(context.lengths),
                "target": tokens(runner.hypotheses),
                "sentence": len(context.lengths),
            }
            limits.append(allowed(found, counts, flops[-1]))
            bar.update()
    return {
        "id": "roofline",
        "model": model,
        "beam": 1,
        "ours": best.precision,
        "rival": f"matrix rate {precision}",
        **ratios(ours, limits),
        **speed.told(context, "ours", speed.Side(setting, ours, runner.hypotheses)),
        "rival_tokens_per_s": statistics.median(limits),
        "gflops": statistics.median(flops) / 1e9,
        **{f"macs_per_{per}": macs(found, per) for per in ("source", "target", "sentence")},
        **context.provenance(),
    }
