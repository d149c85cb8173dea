"""What a cell says on the terminal when it is done."""

from collections.abc import Sequence

from harness.configuration import CellConfig
from harness.records import Evaluation, Result
from harness.search.rules import rules

UNITS = {
    "bleu": "BLEU",
    "accuracy": "percentage points of token accuracy",
    "likelihood": "nats per token",
}


def summary_lines(config: CellConfig, result: Result) -> list[str]:
    """Grouping, sparsity, and BLEU on the three sets side by side, with their uncertainty."""
    lines = [
        f"{config.grouping} / {config.operator} / {config.search}, tolerance {config.tolerance:g} "
        f"{UNITS[config.constraint]} ({config.criterion}), seed {config.seed}",
        f"pruned {result.pruned:,} of {result.prunable:,} prunable connections: sparsity "
        f"{1 - result.remaining:.1%}, remaining {result.remaining:.1%} "
        f"({result.remaining_of_all:.1%} of all {result.parameters:,} parameters)",
        f"{'set':8} {'sentences':>9} {'beam':>4} {'dense':>6} {'pruned':>6} {'drop':>6} "
        f"{'95 % interval':>16} {'std. error':>10} {'detectable':>10}",
    ]
    for name, found in result.sets.items():
        low, high = found.interval
        lines.append(
            f"{name:8} {found.sentences:9} {found.beam:4} {found.dense_bleu:6.2f} {found.bleu:6.2f} "
            f"{found.drop:6.2f} {f'[{low:.2f}, {high:.2f}]':>16} {found.standard_error:10.2f} "
            f"{found.smallest_detectable:10.2f}"
        )
    test = result.sets["test"]
    training = " and retraining" if config.trains else ""
    if config.given:
        by_bound = config.criterion == "bound"
        judged, excess = (
            ("the bound of the drop", result.held.bound) if by_bound else ("the drop", result.held.drop)
        )
        where = "within" if excess <= config.tolerance else "beyond"
        given = "nothing was pruned" if config.sparsity is None else "the size was given"
        lines.append(f"{given}; on confirm {judged}, {excess:.2f}, is {where} the tolerance")
    elif not result.pruned:
        lines.append(
            f"nothing that was tried is within the tolerance: allow more of it, or a larger budget; on "
            f"{result.sets['search'].sentences} sentences a bound lies far above the drop"
        )
    lines += [
        f"test chrF {test.dense_chrf:.2f} → {test.chrf:.2f}; {test.bleu_signature}",
        f"{result.evaluations} evaluations ({result.skipped} skipped, {result.raced} stopped early, "
        f"{result.cached} cached), "
        f"{result.tokens:,} tokens delivered, {result.confirm_tokens:,} more on confirm, "
        f"{result.tokens_computed:,} computed, "
        f"{result.backed_off} backed off on confirm, {result.seconds:.0f} s of evaluation{training}",
    ]
    return lines


def beginning_lines(config: CellConfig, result: Result, evaluations: Sequence[Evaluation]) -> list[str]:
    """Where a one-shot search began and what it gained; nothing where there was no search."""
    start = [e for e in evaluations if e.stage == "start"]
    held = [e.size for e in start if e.feasible]
    if config.schedule != "one-shot" or config.search in rules.names() or not held:
        return []
    gained = 100 * (min(held) - result.remaining)
    searched = any(e.stage == "search" for e in evaluations)
    if abs(gained) < 0.05:
        came = "found nothing smaller that holds" if searched else "its budget ended there"
    elif gained > 0:
        came = f"ended {gained:.1f} points below"
    else:
        came = f"ended {-gained:.1f} points above: confirm refused {result.backed_off} that were smaller"
    return [
        f"the search began where class-blind pruning keeps the tolerance on search, at {min(held):.1%} "
        f"remaining ({len(start)} evaluations), and {came}"
    ]
