"""Plans: products, lists and skips to cells, whose identity is what their inputs contain."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import MODELS, ROOT

from experiments import inputs as inputs_module
from experiments.commands.options import check_names
from experiments.inputs import Inputs
from experiments.plan import SHIPPED, Cells, Plan, cells_of, read_plan
from grouping.errors import StudyError
from harness import cli
from harness.cell import Study

HEAD = 'title = "t"\ncorpus = "c"\nmodels = "m"\n'


@pytest.fixture
def inputs(tmp_path) -> Inputs:
    return Inputs(tmp_path / "checkpoints.json")


def plan(small: Path, *cells: dict, **others) -> Plan:
    return Plan(title="test", corpus=small, models=MODELS, cells=list(cells), **others)


def test_a_table_is_the_product_of_its_lists_with_models_outermost(small, inputs):
    tables = {"grouping": ["layer", "single"], "model": ["transformer", "rnnsearch"], "seed": [2, 1]}
    found = cells_of(plan(small, tables, defaults={"tolerance": 0.5}), inputs).cells
    assert [(c.model, c.config.grouping, c.config.seed) for c in found] == [
        (model, grouping, seed)
        for model in ("transformer", "rnnsearch")
        for grouping in ("layer", "single")
        for seed in (2, 1)
    ]
    assert {cell.config.tolerance for cell in found} == {0.5}
    assert len({cell.name for cell in found}) == 8


def test_a_cell_is_the_one_that_a_study_makes_of_the_same_settings(small, inputs):
    """`olmp compress` and a grid mean the same cell."""
    settings = {"grouping": "shuffled(layer)", "search": "CMA", "seed": 3, "tolerance": 2.0}
    (cell,) = cells_of(plan(small, {"model": "rnnsearch", **settings}), inputs).cells
    assert cell.config == Study.open(MODELS / "rnnsearch.pt", small).config(**settings)


def test_cells_of_one_model_stand_together_and_each_is_there_once(small, inputs):
    first = {"model": ["rnnsearch", "transformer"], "grouping": "layer"}
    again = {"model": ["transformer", "rnnsearch"], "grouping": ["layer", "single"]}
    found = [(c.model, c.config.grouping) for c in cells_of(plan(small, first, again), inputs).cells]
    assert found == [
        ("rnnsearch", "layer"),
        ("rnnsearch", "single"),
        ("transformer", "layer"),
        ("transformer", "single"),
    ]


def test_skipped_cells_say_why(small, inputs):
    tables = {"model": ["rnnsearch", "transformer"], "grouping": ["gate", "layer"], "search": ["NCS", "CMA"]}
    rule = {"grouping": ["layer", "single"], "search": "CMA", "operator": "magnitude", "reason": "enough"}
    found = cells_of(plan(small, tables, skip=[rule]), inputs)
    assert len(found.cells) == 4
    reasons = [(s.settings["model"], s.settings["grouping"], s.reason) for s in found.skipped]
    gates = "grouping 'gate' needs LSTM layers, which this model does not have"
    assert reasons == [
        ("rnnsearch", "layer", "enough"),
        ("transformer", "gate", gates),
        ("transformer", "gate", gates),
        ("transformer", "layer", "enough"),
    ]


def test_a_rule_that_skips_nothing_is_an_error(small, inputs):
    rule = {"operator": "magnitude-threshold", "reason": "not today"}
    with pytest.raises(StudyError, match=r"\[skip\] .*not today.* skips nothing"):
        cells_of(plan(small, {"model": "rnnsearch"}, skip=[rule]), inputs)


def test_identity_is_what_the_files_contain(small, inputs, tmp_path):
    models, corpus = tmp_path / "models", tmp_path / "corpus"
    models.mkdir()
    shutil.copy(MODELS / "rnnsearch.pt", models)
    shutil.copytree(small, corpus)
    moved = plan(corpus, {"model": str(models / "rnnsearch.pt")})
    (here,) = cells_of(plan(small, {"model": "rnnsearch"}), inputs).cells
    (there,) = cells_of(moved, inputs).cells
    assert there.name == here.name
    text = corpus / "text" / "test.de"
    text.write_text(text.read_text().replace("e", "E", 1))
    (other,) = cells_of(moved, Inputs(inputs.memory)).cells
    assert other.name != here.name
    shutil.copy(MODELS / "luong.pt", models / "rnnsearch.pt")
    (another,) = cells_of(moved, Inputs(inputs.memory)).cells
    assert another.config.checkpoint_sha256 != here.config.checkpoint_sha256


def test_a_checkpoint_is_read_once_and_remembered(small, inputs, monkeypatch):
    asked = plan(small, {"model": "rnnsearch", "grouping": ["layer", "gate"]})
    before = cells_of(asked, inputs)
    monkeypatch.setattr(inputs_module, "_load", lambda *arguments: pytest.fail("read again"))
    assert cells_of(asked, Inputs(inputs.memory)) == before
    monkeypatch.undo()
    inputs.memory.write_text('{"format": 0}')  # of another version, or damaged: only a memory
    assert cells_of(asked, Inputs(inputs.memory)) == before
    assert cells_of(asked, Inputs(inputs.memory / "not a folder" / "memory.json")) == before


@pytest.mark.parametrize("name", sorted(path.stem for path in SHIPPED.glob("*.toml")))
def test_shipped_plans_are_sound_and_the_same_every_time(name, shared, tmp_path):
    for model in MODELS.glob("*.pt"):  # and of another seed, which do not ship
        (tmp_path / model.name).symlink_to(model)
        (tmp_path / f"{model.stem}.seed2.pt").symlink_to(model)
    # another corpus, which one plan wants, is made by hand
    asked = read_plan(name).model_copy(update={"models": tmp_path, "corpus": read_plan("study").corpus})

    def found() -> Cells:
        return cells_of(asked, Inputs(shared / f"checkpoints-{name}.json"))

    cells = found()
    assert cells == found()
    assert cells.cells
    assert len({cell.name for cell in cells.cells}) == len(cells.cells)
    assert all(skipped.reason for skipped in cells.skipped)


def test_groupings_of_the_main_table_share_their_seeds(shared):
    """Pairs of groupings are compared seed by seed; rules have one."""
    cells = cells_of(read_plan("study"), Inputs(shared / "checkpoints-study.json")).cells
    seeds: dict[tuple, set[int]] = {}
    for cell in cells:
        told = cell.config
        key = (cell.model, told.grouping, told.search, told.tolerance)
        seeds.setdefault(key, set()).add(told.seed)
    searched = {key: found for key, found in seeds.items() if key[2] in ("NCS", "DE")}
    assert len(searched) == 46 + 3  # the smallest of each model at half the tolerance, too
    assert all(found == {1, 2, 3, 4, 5} for found in searched.values())
    assert len({(c.config.tokens, c.config.evaluations) for c in cells}) == 1


def shuffled() -> Plan:
    """A plan that a table could not say."""
    return read_plan("smoke").model_copy(update={"title": "made"})


NUMBER = 3


def test_a_plan_may_be_a_function():
    with pytest.raises(StudyError, match="'test_plan:NUMBER' is of type int: name a function that returns a"):
        read_plan("test_plan:NUMBER")
    assert read_plan("test_plan:shuffled").title == "made"
    with pytest.raises(StudyError, match="plan 'test_plan:plann' cannot be had .*: is its module on"):
        read_plan("test_plan:plann")
    with pytest.raises(StudyError, match="returns a str: it must return a Plan"):
        read_plan("platform:node")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("title = ", "cannot be read"),
        (HEAD, "cells: Field required; a plan has title, corpus"),
        (HEAD + "cells = []", "cells: List should have at least 1 item"),
        (HEAD + "cell = 1", "cells: Field required"),
        (
            HEAD + "[[cells]]\nmodel='a'\ngroupings=['b']",
            "'groupings', did you mean 'grouping'",
        ),
        (HEAD + "[[cells]]\nmodel='a'\ngroups_sha256=['b']", r"\[cells\] has no 'groups_sha256'"),
        (
            HEAD + "[defaults]\nsede=1\n[[cells]]\nmodel='a'",
            r"\[defaults\] has no 'sede', did",
        ),
        (HEAD + "[[cells]]\nmodel='a'\nseed=[]", "seed is an empty list, so there is no cell"),
        (HEAD + "[[cells]]\nseed=1", "does not say which model"),
        (HEAD + "[[cells]]\nmodel='a'\n[[skip]]\nseed=1", r"\[skip\] needs a reason"),
        (HEAD + "[[cells]]\nmodel='a'\n[[skip]]\nreason='x'", r"\[skip\] needs a reason and what"),
    ],
)
def test_an_unsound_plan_is_refused_by_name(tmp_path, text, said):
    path = tmp_path / "mine.toml"
    path.write_text(text)
    with pytest.raises(StudyError, match=f"plan {path}.*{said}"):
        read_plan(str(path))


def test_an_unknown_plan_is_answered_with_the_known_ones():
    with pytest.raises(StudyError, match="no plan 'smok', did you mean 'smoke'. known are ablation, .*study"):
        read_plan("smok")
    with pytest.raises(StudyError, match="no file none/here.toml: give the name of a shipped plan"):
        read_plan("none/here.toml")


def test_impossible_settings_and_missing_inputs_are_told_before_anything_runs(small, inputs):
    with pytest.raises(StudyError, match="^tolerance -1 is not possible"):
        cells_of(plan(small, {"model": "rnnsearch", "tolerance": [1.0, -1]}), inputs)
    with pytest.raises(StudyError, match="unknown grouping 'leyer', did you mean 'layer'"):
        cells_of(plan(small, {"model": "rnnsearch", "grouping": "leyer"}), inputs)
    with pytest.raises(StudyError, match="^no model 'gru': .*known in .*: luong, rnnsearch, transformer"):
        cells_of(plan(small, {"model": "gru"}), inputs)
    for name in ("luong.seed2", "transformer.seed3"):
        model, seed = name.split(".seed")
        made = (
            f"`make baselines MODEL={model} SEED={seed}` and `make ship MODEL={model} SEED={seed}` make it$"
        )
        with pytest.raises(StudyError, match=made):
            cells_of(plan(small, {"model": name}), inputs)
    for name in ("luong.seed1", "gru.seed2"):  # the shipped one, and none that can be made
        with pytest.raises(StudyError, match="known in .*: luong, rnnsearch, transformer$"):
            cells_of(plan(small, {"model": name}), inputs)
    with pytest.raises(StudyError, match="is no corpus folder"):
        cells_of(plan(ROOT / "tests", {"model": "rnnsearch"}), inputs)


def test_searches_that_cannot_run_are_told_before_anything_runs(small, inputs):
    def check(**settings) -> None:
        check_names(cells_of(plan(small, {"model": "rnnsearch", **settings}), inputs).cells)

    check(search=["class-blind", "lamp"], sparsity=[0.1, 0.9])
    with pytest.raises(StudyError, match="^search 'NCS' finds its own sparsity"):
        check(search=["class-blind", "NCS"], sparsity=0.5)
    with pytest.raises(StudyError, match="^unknown optimiser 'NSC'"):
        check(search="NSC")


def test_what_is_wrong_is_said_with_the_plan_and_the_cell(small, tmp_path, capsys):
    path = tmp_path / "mine.toml"

    def said(**settings: object) -> str:
        table = "".join(f"{key} = {value!r}\n" for key, value in settings.items())
        head = f'title = "t"\ncorpus = "{small}"\nmodels = "{MODELS}"\n'
        path.write_text(f'{head}[[cells]]\nmodel = "rnnsearch"\n{table}')
        assert cli.main(["plan", str(path), "--out", str(tmp_path / "grid")]) == 2
        prefix, _, message = capsys.readouterr().err.partition(f"plan {path}: ")
        assert prefix == "olmp: error: "
        return message

    assert said(grouping="leyer").startswith("unknown grouping 'leyer', did you mean 'layer'?")
    assert said(grouping="leyer").endswith(" (in the cell model = 'rnnsearch', grouping = 'leyer')\n")
    assert said(tolerance="one").endswith(" (in the cell model = 'rnnsearch', tolerance = 'one')\n")
    found = said(search=["class-blind", "NCS"], sparsity=0.5)
    assert re.search(r"finds its own .* \(in the cell rnnsearch/layer-NCS-1-seed1-\w+\)\n$", found)


def test_planning_loads_no_torch():
    # it takes longer to load than ten thousand cells to plan
    program = "import sys, experiments.cost, experiments.plan; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT)
