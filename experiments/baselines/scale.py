"""A small dense rival: the same recipe with all its widths scaled down together.

A pruned model is to be held against a small one of the same family, trained from scratch, with as many
parameters. Layers, heads and regularisation stay what they are, but for a dropout that may be given: a
smaller model wants less. Training goes on for as many updates more
as the pruned model may have had in retraining.
"""

import math
from bisect import bisect_left
from collections.abc import Callable, Mapping
from dataclasses import replace

from experiments.baselines.train import Recipe
from grouping.errors import StudyError
from harness.configuration import CellConfig

#: widths that keep their proportions exactly, by architecture: layers of these widths meet
MEETING = {
    "transformer": ("encoder-embed-dim", "decoder-embed-dim"),
    "lstm": ("encoder-hidden-size", "decoder-hidden-size"),
}
#: widths that are rounded
ROUNDED = (
    *("encoder-ffn-embed-dim", "decoder-ffn-embed-dim"),
    *("encoder-embed-dim", "decoder-embed-dim", "decoder-out-embed-dim"),
)
#: updates until training ends, and until the learning rate has fallen to zero
LENGTHS = ("max-update", "total-num-update")
#: updates of a cell's retraining at most: an epoch of the default corpus is 165 batches of 2,000 tokens
RETRAINING = 165 * CellConfig.model_fields["epochs"].default
HEADS = ("encoder-attention-heads", "decoder-attention-heads")
#: ratios that are looked at, finer than one of any width
STEPS = 1 << 12
#: the smallest of them, a sixteenth; fairseq cannot build what is narrower than four
LEAST = STEPS // 16


def scaled(
    recipe: Recipe,
    parameters: int,
    count: Callable[[Recipe], int],
    more_updates: int = RETRAINING,
    dropout: float | None = None,
) -> Recipe:
    """The recipe of the model whose number of parameters is nearest to ``parameters``.

    It is named by that number, and by the ``dropout`` (a fraction) where that is another.

    Each width w becomes r w for one r from 1/16 to 1, rounded; those that meet are rounded together, so that
    they stay in proportion and divisible by their heads. ``count`` says how many parameters a recipe's model
    has; it never falls when r rises. Training, and with it the fall of the learning rate, is longer by
    ``more_updates``. Raises StudyError for more parameters than the recipe has, and for fewer than are
    possible.
    """
    settings = _settings(recipe)
    if settings["arch"] not in MEETING:
        raise StudyError(f"architecture {settings['arch']} cannot be scaled: known are {', '.join(MEETING)}")
    meeting = [int(settings[name]) for name in MEETING[settings["arch"]]]
    heads = math.lcm(*(int(settings.get(name, 1)) for name in HEADS))
    whole = math.gcd(*meeting) // heads

    def of(steps: int) -> Recipe:
        ratio = steps / STEPS
        # in this order: what meets is no longer rounded alone
        widths = {name: max(1, round(int(settings[name]) * ratio)) for name in ROUNDED if name in settings}
        together = max(1, round(whole * ratio))
        widths |= {name: int(settings[name]) * together // whole for name in MEETING[settings["arch"]]}
        return replace(recipe, arguments=_with(recipe.arguments, widths))

    least, most = count(of(LEAST)), count(recipe)
    if not least <= parameters <= most:
        raise StudyError(
            f"parameters {parameters} is not possible: {recipe.name} has {most:,}, and scaled down {least:,} "
            "at least; give a number between"
        )
    possible = range(LEAST, STEPS + 1)
    above = bisect_left(possible, parameters, key=lambda steps: count(of(steps)))
    nearest = (of(steps) for steps in possible[max(0, above - 1) : above + 1])
    found = min(nearest, key=lambda one: abs(count(one) - parameters))
    values: dict[str, float] = {
        name: int(settings[name]) + more_updates for name in LENGTHS if name in settings
    }
    name = f"{recipe.name}-{count(found)}"
    if dropout is not None:
        name += f"-dropout{dropout:g}" if dropout != float(settings["dropout"]) else ""
        values["dropout"] = dropout
    return replace(
        found,
        name=name,
        arguments=_with(found.arguments, values),
        max_update=recipe.max_update + more_updates,
    )


def _settings(recipe: Recipe) -> dict[str, str]:
    """The arguments that have a value, without their dashes."""
    words = recipe.arguments
    pairs = zip(words, (*words[1:], "--"), strict=True)
    return {flag[2:]: value for flag, value in pairs if flag.startswith("--") and not value.startswith("--")}


def _with(arguments: tuple[str, ...], values: Mapping[str, float]) -> tuple[str, ...]:
    """The arguments with other values."""
    before = ("", *arguments)
    return tuple(str(values.get(flag[2:], word)) for flag, word in zip(before, arguments, strict=False))
