"""A search whose sentences are drawn anew in every generation."""

import numpy as np
import pytest
import sacrebleu
from conftest import QUICK, read_evaluations

from grouping.errors import StudyError
from harness import racing
from harness.cell import run_cell
from harness.evaluator import Evaluator
from harness.olmp import confirm, run_search
from harness.operators import MagnitudePruning
from harness.record import Record
from harness.sentences import subset

SETTINGS = QUICK | {"grouping": "component", "search_sentences": 12, "redraw": True, "evaluations": 24}


@pytest.fixture(scope="module")
def study(studies):
    return studies("rnnsearch")


@pytest.fixture
def start(study, tmp_path):
    """An evaluator over the record in a folder."""
    operator = MagnitudePruning(study.model, study.groups("component"))
    whole = study.sentences("search", 1, 100, searching=True)
    sets = {"search": whole, "exact": whole, "confirm": study.sentences("confirm", 2, 100)}
    opened: list[Record] = []

    def make(folder: str = "cell", workers: int = 1, number: int = 0, **settings) -> Evaluator:
        for record in opened:
            record.close()
        config = study.config(**SETTINGS | settings)
        opened.append(Record(tmp_path / folder, config))
        return Evaluator(config, operator, opened[-1], sets, workers=workers, number=number)

    yield make
    operator.restore()
    for record in opened:
        record.close()


def drawn(round_: int, draw: int) -> np.ndarray:
    """By hand: 12 of 20."""
    return np.sort(np.random.default_rng([1, round_, draw]).permutation(20)[:12])


def test_subsets_are_many_and_the_first_is_what_it_was():
    assert subset(20, 12).tolist() == np.sort(np.random.default_rng(1).permutation(20)[:12]).tolist()
    places = [subset(20, 12, (0, draw)).tolist() for draw in range(5)]
    assert len(set(map(tuple, places))) == 5
    assert places == [drawn(0, draw).tolist() for draw in range(5)]


@pytest.mark.parametrize("number", [0, 2])
def test_every_generation_is_judged_by_its_own_sentences(study, start, number):
    """BLEU of what sacrebleu says of just these sentences, dense and pruned."""
    evaluator = start(number=number)
    knobs = np.array([0.4, 0.3])
    evaluator.operator.apply(knobs)
    pruned = evaluator.sets["search"].translate().hypotheses
    evaluator.operator.restore()
    dense, references = evaluator.sets["search"].dense.hypotheses, study.corpus.references("search")
    found = [evaluator.evaluate(knobs, "search") for _ in range(4)]
    assert len({e.bleu for e in found}) > 1
    for draw, evaluation in enumerate(found):
        places = drawn(number, draw)

        def bleu(hypotheses, places=places):
            chosen = [[side[i] for i in places] for side in (hypotheses, references)]
            return sacrebleu.corpus_bleu(chosen[0], [chosen[1]]).score

        assert evaluation.how == "translated"
        assert evaluation.sentences == 12
        assert evaluation.bleu == pytest.approx(bleu(pruned))
        assert evaluation.drop == pytest.approx(bleu(dense) - bleu(pruned))


def test_a_generation_sees_the_same_sentences_and_confirming_draws_none(start):
    evaluator = start()
    knobs = [np.array([0.3, 0.3]), np.zeros(2), np.array([0.3, 0.3])]
    first, dense, again = evaluator.evaluate_all(knobs, "search")
    assert (first.how, again.how) == ("translated", "cached")
    assert (dense.drop, dense.bound) == (0, 0)
    exact = evaluator.evaluate(knobs[0], "exact")
    assert (exact.how, exact.sentences) == ("translated", 20)
    assert evaluator.evaluate(knobs[0], "exact").how == "cached"
    # the next draw is the second one, whatever was confirmed meanwhile
    evaluator.evaluate(knobs[0], "confirm")
    later = evaluator.evaluate(knobs[0], "search")
    other = start("other")
    _, second = (other.evaluate(knobs[0], "search") for _ in range(2))
    assert later.bleu == second.bleu
    assert later.how == "translated"


@pytest.fixture
def short_blocks(monkeypatch):
    """Looks at a race of 12 sentences after 3 and after 6."""
    monkeypatch.setattr(racing, "LOOKS", (1 / 4, 1 / 2))
    monkeypatch.setattr(racing, "SMALLEST_BLOCK", 3)


@pytest.mark.parametrize(
    "search",
    [
        "NCS",
        pytest.param("OnePlusOne", marks=pytest.mark.long),
        pytest.param("class-blind", marks=pytest.mark.long),
    ],
)
def test_workers_and_interruptions_change_nothing(start, short_blocks, tmp_path, search):
    def run(folder: str, workers: int = 1) -> list[dict]:
        with start(folder, workers, search=search, tolerance=8.0) as evaluator:
            run_search(evaluator)
            confirm(evaluator)
            return [e.model_dump(exclude={"seconds"}) for e in evaluator.done]

    whole = run("whole")
    assert {e["how"] for e in whole} >= {"translated", "raced"}
    assert run("workers", 3) == whole
    lines = (tmp_path / "whole" / "evaluations.jsonl").read_text().splitlines(keepends=True)
    for done in (5, 12, len(lines) - 1):
        start(f"resumed{done}", search=search, tolerance=8.0)
        (tmp_path / f"resumed{done}" / "evaluations.jsonl").write_text("".join(lines[:done]))
        assert run(f"resumed{done}") == whole


def test_a_cell_is_confirmed_by_what_holds_on_the_whole_search_set(study, tmp_path):
    config = study.config(**SETTINGS | {"search": "NCS", "tolerance": 6.0})
    result = run_cell(study, config, tmp_path / "cell")
    evaluations = read_evaluations(tmp_path / "cell")
    assert {e.sentences for e in evaluations if e.stage in ("start", "search")} == {12}
    exact = [e for e in evaluations if e.stage == "exact"]
    assert exact
    assert {e.sentences for e in exact} == {20}
    chosen = [e for e in evaluations if e.knobs == result.knobs and e.stage in ("exact", "confirm")]
    if result.pruned:
        assert [e.stage for e in chosen] == ["exact", "confirm"]
    assert all(e.feasible for e in chosen)
    assert result.sets["search"].sentences == 20
    # who fails is a step on the way back, on either set
    sizes = [e.size for e in evaluations if e.stage == "exact"]
    assert all(b - a >= 0.005 - 1e-4 for a, b in zip(sizes, sizes[1:], strict=False))


def test_where_nothing_is_drawn_anew(study, tmp_path):
    with pytest.raises(StudyError, match="^redraw wants search_sentences"):
        study.config(redraw=True)
    for given in ({"search": "lamp", "sparsity": 0.5}, {"search": "dense"}):
        with pytest.raises(StudyError, match="^redraw is for a search, and here the size is given"):
            study.config(redraw=True, search_sentences=5, **given)
    with pytest.raises(StudyError, match="^redraw is for translations"):
        study.config(redraw=True, search_sentences=5, constraint="accuracy")
    config = study.config(**SETTINGS | {"search_sentences": 99})
    with pytest.raises(StudyError, match="search-sentences 99 is not possible: the search set has 20"):
        run_cell(study, config, tmp_path / "cell")
    assert not (tmp_path / "cell").exists()
