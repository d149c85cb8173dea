"""What the numbers say, in sentences."""

from collections.abc import Iterator, Sequence

import numpy as np

from analysis.report.answers import LEVEL, ROLES, Answer, Entry, Versus
from analysis.report.errors import Kind

#: how a verdict answers "is it more than that?"
VERDICTS = {
    "smaller": "yes",
    "larger": "no",
    "unclear": "not shown",
    "untested": "cannot be told",
    "described": "not tested",
}
#: how many parts by length there are
NUMBERS = {2: "two", 3: "three", 4: "four"}
#: p-values below are not told apart
SMALLEST = 0.001
CONTROLS = (
    ("shuffled", "More than its shuffled control"),
    ("other shuffled", "More than a shuffled control"),
)


def wins(answer: Answer) -> str:
    """How small the winner's models are, and who comes next; goes on after the winner's name."""
    winner = answer.winner
    beside = [e for e in answer.entries if e.searches and e.search == winner.search and e != winner]
    after = [e for e in beside if e.mean >= winner.mean]
    said = f"keeps the fewest connections: {_size(winner)}, searched by {winner.search}."
    if after:
        said += f" Next: {', '.join(f'{e.way} {e.mean:.1f} %' for e in after[:3])}."
    if len(after) < len(beside):
        said += f" Smaller still, with groups dealt at random: {beside[0].way} {beside[0].mean:.1f} %."
    rules = [e for e in answer.entries if not e.searches and e.mean < winner.mean]
    if rules:
        said += f" Smaller still, without any search: the rule {rules[0].way}, {rules[0].mean:.1f} %."
    return said


def noise(answer: Answer) -> str:
    """Whether the winner's lead is more than noise and more than its control's."""
    said = []
    for role, question in (("next", "More than noise"), *CONTROLS):
        if role in answer.versus:
            one = answer.versus[role]
            said.append(f"{question}: {VERDICTS[one.verdict]}{by_another(answer, one)}.")
    if any(one.verdict == "untested" for one in answer.versus.values()):
        said.append("One seed says nothing about noise.")
    return " ".join(said)


def role(one: Versus) -> str:
    """What the winner is compared with; the next may be no grouping at all."""
    return ROLES["single" if one.way == "single" else one.role]


def by_another(answer: Answer, one: Versus) -> str:
    """Names the search of a comparison that the winner's own search has not, in brackets."""
    return "" if one.search == answer.winner.search else f" ({answer.winner.way} by {one.search})"


def control(answer: Answer) -> Versus | None:
    """The comparison with groups dealt at random, the winner's own where it was run."""
    return next((answer.versus[role] for role, _ in CONTROLS if role in answer.versus), None)


def points(one: Versus) -> str:
    """A difference with its interval, in points of percent."""
    if np.isnan(one.low):
        return _number(one.points) + ", all alike" * (one.pairs > 1)
    return f"{_number(one.points)} [{_number(one.low)}, {_number(one.high)}]"


def seeds_interval(entry: Entry) -> str:
    """The interval of a mean over seeds, in percent; in words where there is none."""
    if entry.seeds == 1:
        return "one seed"
    return "all alike" if np.isnan(entry.low) else f"{entry.low:.1f} to {entry.high:.1f}"


def costs(answer: Answer) -> str:
    """What the winner costs: BLEU on test, and the search."""
    drops, winner = answer.drops, answer.winner
    said = f"The dense model has {answer.example['sets.test.dense_bleu']:.2f} BLEU on test. "
    said += f"The {len(drops)} pruned ones lose" if len(drops) > 1 else "The pruned one loses"
    if answer.bleu:
        lost = answer.bleu
        said += f" {lost.drop:.2f} (95 % interval {lost.low:.2f} to {lost.high:.2f})"
    else:
        said += f" {np.mean(drops):.2f}"
    said += " on average." if len(drops) > 1 else "."
    said += f" A search takes {_million(winner.tokens)} delivered tokens, {_time(winner.hours)} of one core"
    rules = [e for e in answer.entries if e.way == "class-blind"]
    return f"{said}; class-blind without search, {_million(rules[0].tokens)}." if rules else f"{said}."


def errors(answer: Answer) -> Iterator[str]:
    """What the winner's median model gets wrong, most telling first."""
    about = answer.profile
    if about is None:
        yield "BLEU's counts per sentence were not collected with these results: collect the grid again."
        return
    share = 100 * about.worse / about.sentences
    yield (
        f"Of {about.sentences:,} test sentences {about.worse:,} ({share:.0f} %) are translated worse than "
        f"by the dense model in GLEU, {about.better:,} better, {about.same:,} as well as before."
    )
    if len(answer.lengths) > 1:
        most = max(answer.lengths, key=lambda part: part.bleu.drop)
        least = min(answer.lengths, key=lambda part: part.bleu.drop)
        lost = most.bleu
        doubt = ", which may be noise" if lost.low <= 0 else ""
        # the part was picked after the fact, which flatters its interval
        yield (
            f"Of {NUMBERS[len(answer.lengths)]} lengths it loses most on references of "
            f"{_range(most.shortest, most.longest)} words: "
            f"{_number(lost.drop)} BLEU (95 % interval {_number(lost.low)} to {_number(lost.high)}{doubt}); "
            f"least on those of {_range(least.shortest, least.longest)}: {_number(least.bleu.drop)}."
        )
    (one_dense, one), (four_dense, four) = about.precisions[0], about.precisions[3]
    yield (
        f"Single words match in {one:.1f} % (dense {one_dense:.1f} %), sequences of four in {four:.1f} % "
        f"(dense {four_dense:.1f} %); translations are {about.ratio[1]:.3f} times as long as references "
        f"(dense {about.ratio[0]:.3f})."
    )
    if answer.kinds:
        yield _by_kind(answer.kinds)


def p_number(p: float) -> str:
    """A p-value as it is printed; nothing where nothing was tested."""
    if np.isnan(p):
        return ""
    return f"< {SMALLEST}" if p < SMALLEST else f"{p:.3f}"


def _by_kind(kinds: Sequence[Kind]) -> str:
    """The kinds of errors that grew by more than noise, the surest first."""
    grown = [k for k in kinds if k.p <= LEVEL and k.more > k.fewer and k.pruned > k.dense]
    if not grown:
        return "By kind: no kind of error grew by more than noise."
    said = (f"{k.name}: {k.pruned:,}, dense {k.dense:,}" for k in sorted(grown, key=lambda k: k.p))
    return f"By kind, what grew by more than noise: {'; '.join(said)}."


def _size(entry: Entry) -> str:
    if entry.seeds == 1:
        return f"{entry.mean:.1f} % (one seed)"
    if np.isnan(entry.low):
        return f"{entry.mean:.1f} % (all of {entry.seeds} seeds)"
    return f"{entry.mean:.1f} % (mean of {entry.seeds} seeds, 95 % interval {seeds_interval(entry)})"


def _number(value: float) -> str:
    return f"{round(value, 1) + 0.0:.1f}"  # no minus before a zero


def _million(number: float) -> str:
    return f"{number / 1e6:.1f} million"


def _time(hours: float) -> str:
    if hours >= 1:
        return f"{hours:.1f} hours"
    minutes = max(1, round(60 * hours))
    return f"{minutes} minute{'s' if minutes > 1 else ''}"


def _range(low: int, high: int) -> str:
    return f"{low}" if low == high else f"{low} to {high}"
