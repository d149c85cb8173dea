"""What the words of the report mean: the groupings and rules that occur in it, in a line each."""

import pandas as pd

from analysis.frame import finished
from analysis.outcomes import DENSE
from analysis.settings import SHUFFLED, is_rule

GENERAL = {
    "% left": "percent of the prunable connections that remain; smaller is better",
}
GROUPINGS = {
    "single": "all connections in one group: a search without groups",
    "component": "encoder, decoder, shared",
    "layer": "each embedding, each layer of each side, attention, prediction",
    "matrix": "each parameter",
    "stage": "SiPO's: embeddings with prediction, input-to-hidden, hidden-to-hidden, attention; for a "
    "Transformer embeddings, self-attention, cross-attention, feed-forward",
    "gate": "input, forget, cell and output gates over all LSTM layers",
    "embedding": "source, target, prediction, apart from the rest",
    "attention-role": "query, key, value, output, feed-forward in and out",
    "head": "each attention head",
    "see2016": "the classes of See, Luong and Manning (2016)",
}
#: the groups of a rule are called classes
RULES = {
    "class-blind": "rule without search: one threshold for all connections",
    "class-uniform": "rule without search: the same fraction of each class (the groups in brackets)",
    "class-distribution": "rule without search: each class's threshold is as many of its standard deviations",
    "lamp": "rule without search: one threshold for all LAMP scores, a weight's square over the sum of "
    "those in its class that are no smaller (Lee et al., 2021)",
}


def glossary(runs: pd.DataFrame) -> dict[str, str]:
    """What finished cells name, by word: general terms, groupings, products, shuffled groupings, rules.

    Groupings of a user's own are left out.
    """
    rows = finished(runs)
    if rows.empty:
        return {}
    named = {str(name) for name in rows["config.grouping"].unique()}
    rules = set(rows.loc[is_rule(rows), "config.search"]) - {DENSE}
    shuffled = {name for name in named if name.startswith(SHUFFLED)}
    within = {name.removeprefix(SHUFFLED).removesuffix(")") for name in shuffled}
    plain = (named - shuffled) | within
    products = {name for name in plain if "+" in name}
    factors = plain | {factor for name in products for factor in name.split("+")}
    found = GENERAL | {name: text for name, text in GROUPINGS.items() if name in factors}
    for name in sorted(products):
        found[name] = f"product: a group for each combination of groups of {' and '.join(name.split('+'))}"
    for name in sorted(shuffled):
        found[name] = (
            "rows of all matrices dealt at random into groups of the sizes of "
            f"{name.removeprefix(SHUFFLED).removesuffix(')')}: the null control"
        )
    return found | {name: text for name, text in RULES.items() if name in rules}
