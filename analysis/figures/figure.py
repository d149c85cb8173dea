"""What a figure is."""

from collections.abc import Callable
from typing import NamedTuple

import altair as alt

from analysis.frame import Results


class LeftOut(Exception):
    """The results do not have what a figure shows; the message says what is missing."""


class Figure(NamedTuple):
    """A figure: ``draw`` makes it of results, or raises LeftOut.

    ``caption`` says what is to be seen, in the terms of the axes, and of what it is computed.
    """

    name: str
    title: str
    caption: str
    draw: Callable[[Results], alt.TopLevelMixin]
