"""What the search asks of a compression operator."""

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import pandas as pd

from grouping.registry import Registry
from harness.model import TranslationModel
from harness.operators.ascending import Ascending


class Operator(Protocol):
    """Turns knobs [G] in [0, 1], one per group, into weights of a model; a pure function of the knobs.

    The size falls monotonically with every knob; at knobs 0 the model is the dense one.
    """

    @property
    def groups(self) -> Sequence[str]:
        """Names of the groups, in the order of the knobs."""
        ...

    def size(self, knobs: np.ndarray) -> np.ndarray:
        """Size relative to the dense prunable connections, in [0, 1]; knobs [..., G] → [...]."""
        ...

    def counts(self, knobs: np.ndarray) -> np.ndarray:
        """What the knobs do in whole connections: knobs [..., G] → pruned connections [..., G]."""
        ...

    def knobs(self, counts: np.ndarray) -> np.ndarray:
        """Knobs [G] that prune these numbers of connections [G], or as near as the knob can say."""
        ...

    def magnitudes(self) -> Sequence[Ascending]:
        """|w| of each group, ascending; what the search-free rules look at."""
        ...

    def apply(self, knobs: np.ndarray) -> None:
        """Write the compressed weights of knobs [G] into the model, in place."""
        ...

    def kept(self) -> np.ndarray:
        """Which of all parameters the applied knobs keep: bool [parameters], in the model's flat order."""
        ...

    def restore(self) -> None:
        """Write the dense weights back, bit for bit."""
        ...


operators: Registry[Callable[[TranslationModel, pd.DataFrame], Operator]] = Registry(
    "operator", "olmp.operators"
)
