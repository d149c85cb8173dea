"""A cell from dense model to result, on real text and shipped weights."""

import json
import shutil
import subprocess
import sys

import jsonschema
import numpy as np
import pytest
import torch
from conftest import CELLS, MODELS, QUICK, Finished, read_evaluations

from grouping.errors import StudyError
from harness import records
from harness.cell import Study, run_cell
from harness.environment import environment
from harness.evaluator import FINAL
from harness.files import file_hash
from harness.record import read
from harness.records import Evaluation

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning")


@pytest.fixture(params=CELLS)
def cell(request, finished) -> Finished:
    return finished(request.param)


def weights(path) -> dict[str, torch.Tensor]:
    """The tensors of a checkpoint in float32, each storage once, by its first name."""
    state = torch.load(path, weights_only=False)["model"]
    found, seen = {}, set()
    for name, tensor in state.items():
        if tensor.data_ptr() not in seen:
            found[name] = tensor.float()
        seen.add(tensor.data_ptr())
    return found


def comparable(result: records.Result) -> dict:
    left_out = {"seconds": True, "other_seconds": True, "environment": True, "files": {records.EVALUATIONS}}
    return result.model_dump(exclude=left_out)


def without_seconds(evaluations: list[Evaluation]) -> list[dict]:
    return [e.model_dump(exclude={"seconds"}) for e in evaluations]


def test_the_files_keep_the_exported_schema(cell):
    schemas = json.loads((cell.folder / "schema.json").read_text())
    for name in ("config.json", "result.json"):
        content = json.loads((cell.folder / name).read_text())
        jsonschema.validate(content, schemas[name])
        with pytest.raises(jsonschema.ValidationError, match="unexpected"):
            jsonschema.validate(content | {"unexpected": 1}, schemas[name])
    lines = (cell.folder / "evaluations.jsonl").read_text().splitlines()
    for line in lines:
        jsonschema.validate(json.loads(line), schemas["evaluations.jsonl"])
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(json.loads(lines[0]) | {"stage": "end"}, schemas["evaluations.jsonl"])


def test_nothing_but_the_promised_files_is_left(cell):
    hypotheses = {f"{split}.{model}.txt" for split in ("confirm", "test") for model in ("dense", "pruned")}
    files = {"config.json", "schema.json", "evaluations.jsonl", "result.json", "masks.npz", "pruned.pt"}
    assert {path.name for path in cell.folder.iterdir()} == files | hypotheses


def test_sparsity_is_what_the_saved_checkpoint_lacks(cell):
    """Counted with torch alone: weights of the shipped checkpoint that the pruned one has not."""
    model, _ = CELLS[cell.folder.name.removeprefix("cell-")]
    shipped, pruned = weights(MODELS / f"{model}.pt"), weights(cell.folder / "pruned.pt")
    gone = zeros_before = 0
    for name, after in pruned.items():
        before = shipped[name]
        assert after.dtype == torch.float32
        assert torch.equal(after[after != 0], before[after != 0]), name
        gone += int(((after == 0) & (before != 0)).sum())
        zeros_before += int((before == 0).sum())
    assert cell.result.pruned > 0
    assert gone <= cell.result.pruned <= gone + zeros_before
    assert cell.result.remaining == pytest.approx(1 - cell.result.pruned / cell.result.prunable)
    assert cell.result.remaining_of_all == pytest.approx(1 - cell.result.pruned / cell.result.parameters)


def test_parameters_are_counted_as_torch_counts_them(cell):
    """All parameters; tied ones once, one padding row of an embedding apart."""
    model, _ = CELLS[cell.folder.name.removeprefix("cell-")]
    tensors = weights(MODELS / f"{model}.pt")
    tensors = {name: t for name, t in tensors.items() if "version" not in name and "_float_" not in name}
    embeddings = [t for name, t in tensors.items() if "embed_tokens" in name]
    everything = sum(t.numel() for t in tensors.values()) - sum(t.shape[1] for t in embeddings)
    matrices = sum(t.numel() for t in tensors.values() if t.dim() > 1) - sum(t.shape[1] for t in embeddings)
    assert cell.result.parameters == everything
    assert cell.result.prunable == matrices


def test_masks_are_the_zeros_of_the_checkpoint(cell):
    model, _ = CELLS[cell.folder.name.removeprefix("cell-")]
    shipped, pruned = weights(MODELS / f"{model}.pt"), weights(cell.folder / "pruned.pt")
    removed = 0
    with np.load(cell.folder / "masks.npz") as masks:
        names = [name for name in masks.files if not name.endswith("/shape")]
        for name in names:
            shape = masks[f"{name}/shape"]
            kept = np.unpackbits(masks[name], count=int(np.prod(shape))).reshape(shape).astype(bool)
            saved, dense = pruned[name].numpy(), shipped[name].numpy()
            assert np.array_equal(saved, np.where(kept, dense, 0)), name
            removed += int((~kept).sum())
    assert removed == cell.result.pruned


def test_groups_add_up_and_are_cut_by_magnitude(cell):
    result = cell.result
    assert sum(group.connections for group in result.groups) == result.prunable
    assert sum(group.pruned for group in result.groups) == result.pruned
    pruned = weights(cell.folder / "pruned.pt")
    if cell.config.grouping != "matrix":
        return
    for group in result.groups:
        left = pruned[group.group].abs()
        assert group.pruned == 0 or left[left > 0].min() >= group.threshold


def test_hypotheses_score_as_the_sacrebleu_command_says(cell, small):
    for split in ("confirm", "test"):
        for model, said in (("pruned", "bleu"), ("dense", "dense_bleu")):
            hypotheses = cell.folder / f"{split}.{model}.txt"
            command = [sys.executable, "-m", "sacrebleu", small / "text" / f"{split}.de", "-i", hypotheses]
            done = subprocess.run([*command, "-b", "-w", "2"], capture_output=True, text=True, check=True)
            assert f"{getattr(cell.result.sets[split], said):.2f}" == done.stdout.strip()


def test_the_sets_tell_what_they_measured(cell):
    for name, beam, sentences in (("search", 1, 20), ("confirm", 2, 12), ("test", 2, 12)):
        found = cell.result.sets[name]
        assert (found.beam, found.sentences) == (beam, sentences)
        assert found.drop == pytest.approx(found.dense_bleu - found.bleu)
        low, high = found.interval
        assert low <= found.bound <= high
        # one-sided 95 % of a normal distribution: 1.645 standard errors
        assert found.smallest_detectable == pytest.approx(1.645 * found.standard_error, rel=1e-3)
        assert found.bleu_signature.startswith("nrefs:1|case:mixed|eff:no|tok:13a|smooth:exp")


def test_the_result_holds_on_search_and_on_confirm(cell):
    evaluations = cell.evaluations()
    chosen = [e for e in evaluations if e.knobs == cell.result.knobs]
    assert [e.feasible for e in chosen if e.stage == "confirm"] == [True]
    assert all(e.feasible for e in chosen if e.stage != "confirm")
    assert {e.stage for e in chosen} > {"confirm"}
    assert cell.result.sets["search"].drop <= cell.config.tolerance
    assert cell.result.sets["confirm"].drop <= cell.config.tolerance
    assert chosen[-1] == evaluations[-1]
    assert cell.result.backed_off == sum(e.stage == "confirm" for e in evaluations) - 1


def test_the_counters_of_the_result_are_those_of_the_record(cell):
    evaluations, result = cell.evaluations(), cell.result
    assert [e.index for e in evaluations] == list(range(len(evaluations)))
    assert result.evaluations == sum(e.stage not in FINAL for e in evaluations) <= cell.config.evaluations
    assert result.tokens == sum(e.tokens for e in evaluations if e.stage not in FINAL)
    assert result.confirm_tokens == sum(e.tokens for e in evaluations if e.stage in FINAL)
    assert result.tokens_computed == sum(e.tokens for e in evaluations if e.how == "translated")
    assert result.skipped == sum(e.how == "skipped" for e in evaluations)
    assert result.cached == sum(e.how == "cached" for e in evaluations)
    for e in evaluations:
        assert e.score == pytest.approx(e.size) if e.feasible or e.how == "skipped" else e.score > 1


def test_optimisers_spend_the_whole_budget(finished):
    for name in ("NCS", "OnePlusOne"):
        cell = finished(name)
        assert cell.result.evaluations == cell.config.evaluations


def test_ncs_starts_where_class_blind_ends(finished):
    """A scan of 9 and a bisection of 6, charged to the budget; the search begins at the edge."""
    evaluations = finished("NCS").evaluations()
    start = [e for e in evaluations if e.stage == "start"]
    assert len(start) == 15
    sizes = [e.size for e in start[:9]]
    assert sizes == pytest.approx([0.9, 0.8, 0.7, 0.6, 0.5, 0.4, 0.3, 0.2, 0.1], abs=1e-6)
    edge = min((e for e in start if e.feasible), key=lambda e: e.size)
    first = evaluations[15]
    assert first.stage == "search"
    assert first.knobs == edge.knobs
    assert first.how == "cached"


def test_oneplusone_starts_at_the_dense_model(finished):
    first = finished("OnePlusOne").evaluations()[0]
    assert first.knobs == [0] * 5
    assert first.size == 1
    assert first.drop == 0


def test_the_model_is_dense_again(cell):
    model, _ = CELLS[cell.folder.name.removeprefix("cell-")]
    fresh = Study.open(MODELS / f"{model}.pt", cell.study.corpus.folder)
    assert torch.equal(cell.study.model.flat, fresh.model.flat)


def test_a_finished_cell_returns_at_once(cell):
    before = {path.name: path.stat().st_mtime_ns for path in cell.folder.iterdir()}

    def never(evaluation: Evaluation) -> None:
        raise AssertionError("a finished cell evaluates nothing")

    assert run_cell(cell.study, cell.config, cell.folder, never) == cell.result
    assert {path.name: path.stat().st_mtime_ns for path in cell.folder.iterdir()} == before


def test_another_configuration_is_refused(finished):
    cell = finished("OnePlusOne")
    before = {path.name: file_hash(path) for path in cell.folder.iterdir()}
    other = cell.config.model_copy(update={"tolerance": 2.0, "seed": 7})
    with pytest.raises(StudyError, match=r"another configuration \(differs in tolerance, seed\)"):
        run_cell(cell.study, other, cell.folder)
    assert {path.name: file_hash(path) for path in cell.folder.iterdir()} == before


@pytest.mark.parametrize(("name", "said"), [("masks.npz", "has changed"), ("test.pruned.txt", "is gone")])
def test_a_finished_cell_whose_files_are_not_as_they_were_is_refused(finished, tmp_path, name, said):
    cell = finished("OnePlusOne")
    folder = tmp_path / "cell"
    shutil.copytree(cell.folder, folder)
    if said == "is gone":
        (folder / name).unlink()
    else:
        (folder / name).write_bytes((folder / name).read_bytes()[:-1])
    with pytest.raises(StudyError, match=f"{name} {said}.*remove the folder to run it again"):
        run_cell(cell.study, cell.config, folder)


class Stopped(KeyboardInterrupt):
    """Ctrl-C at a chosen evaluation."""


def stop_at(index: int):
    def notify(evaluation: Evaluation) -> None:
        if evaluation.index == index:
            raise Stopped

    return notify


def same_cell(folder, other) -> None:
    """Everything but the time is the same, weights and masks bit for bit."""
    assert without_seconds(read_evaluations(folder)) == without_seconds(read_evaluations(other))
    results = [comparable(read(f / "result.json", records.Result)) for f in (folder, other)]
    assert results[0] == results[1]
    for name in ("config.json", "confirm.pruned.txt", "test.pruned.txt", "test.dense.txt"):
        assert (folder / name).read_bytes() == (other / name).read_bytes()
    with np.load(folder / "masks.npz") as ours, np.load(other / "masks.npz") as theirs:
        assert ours.files == theirs.files
        assert all(np.array_equal(ours[name], theirs[name]) for name in ours.files)
    first, second = (weights(f / "pruned.pt") for f in (folder, other))
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("last", [0, 4, -1])
def test_an_interrupted_cell_resumes_to_the_same_result(finished, tmp_path, last):
    """Interrupted at the first evaluation, in the search, and when only files were left to write."""
    cell = finished("OnePlusOne")
    last = range(len(cell.evaluations()))[last]
    dense = cell.study.model.flat.clone()
    with pytest.raises(Stopped):
        run_cell(cell.study, cell.config, tmp_path / "cell", stop_at(last))
    assert torch.equal(cell.study.model.flat, dense)
    assert len(read_evaluations(tmp_path / "cell")) == last + 1
    assert not (tmp_path / "cell" / "result.json").exists()
    replayed = []
    run_cell(cell.study, cell.config, tmp_path / "cell", replayed.append)
    assert without_seconds(replayed) == without_seconds(cell.evaluations())
    same_cell(tmp_path / "cell", cell.folder)


def test_ncs_resumes_in_mid_search(finished, tmp_path):
    cell = finished("NCS")
    folder = tmp_path / "cell"
    shutil.copytree(cell.folder, folder)
    (folder / "result.json").unlink()
    lines = (folder / "evaluations.jsonl").read_text().splitlines(keepends=True)
    # 16 whole lines, the last of them of NCS itself, and what a crash left of the 17th
    (folder / "evaluations.jsonl").write_text("".join(lines[:16]) + lines[16][:50])
    run_cell(cell.study, cell.config, folder)
    same_cell(folder, cell.folder)


def test_the_seed_decides(finished, tmp_path):
    cell = finished("OnePlusOne")
    runs = {}
    for name, seed in (("again", cell.config.seed), ("other", cell.config.seed + 1)):
        config = cell.config.model_copy(update={"seed": seed})
        run_cell(cell.study, config, tmp_path / name)
        runs[name] = without_seconds(read_evaluations(tmp_path / name))
    expected = without_seconds(cell.evaluations())
    assert runs["again"] == expected
    assert runs["other"][0] == expected[0]  # the start
    assert runs["other"][1]["knobs"] != expected[1]["knobs"]


def test_the_budget_of_tokens_ends_a_search(finished, tmp_path):
    """It ends with the candidate that reaches the budget; confirm is not charged."""
    cell = finished("OnePlusOne")
    costs = [e.tokens for e in cell.evaluations() if e.stage != "confirm"]
    config = cell.config.model_copy(update={"tokens": costs[0] + costs[1] + 1})
    result = run_cell(cell.study, config, tmp_path / "cell")
    evaluations = read_evaluations(tmp_path / "cell")
    assert result.evaluations == 3
    assert [e.tokens for e in evaluations if e.stage != "confirm"] == costs[:3]


def test_a_budget_smaller_than_the_start(studies, tmp_path):
    study = studies("rnnsearch")
    config = study.config(**QUICK, grouping="component", evaluations=2)
    result = run_cell(study, config, tmp_path / "cell")
    assert result.evaluations == 2
    assert [e.stage for e in read_evaluations(tmp_path / "cell")[:2]] == ["start", "start"]


@pytest.mark.parametrize("search", ["NSC", "OnePlusTwo"])
def test_an_unknown_search_writes_nothing(studies, tmp_path, search):
    study = studies("rnnsearch")
    with pytest.raises(StudyError, match=f"unknown optimiser '{search}'.*did you mean"):
        run_cell(study, study.config(search=search), tmp_path / "cell")
    assert not (tmp_path / "cell").exists()


def test_settings_are_checked_by_name(studies):
    study = studies("rnnsearch")
    for wrong in ({"tolerance": -1}, {"tolerance": float("nan")}, {"search_beam": 0}, {"criterion": "x"}):
        name = next(iter(wrong)).replace("_", "-")
        with pytest.raises(StudyError, match=f"^{name} .* is not possible: "):
            study.config(**wrong)
    with pytest.raises(StudyError, match="^toleranz 1 is not possible: "):
        study.config(toleranz=1)


def test_the_environment_names_versions_and_no_paths():
    found = environment()
    # pip may leave out the build
    assert found.packages["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert found.threads == 1
    assert found.python.count(".") == 2
    assert "/" not in found.model_dump_json().replace("/ ", "")


@pytest.mark.parametrize("constraint", ["accuracy", pytest.param("likelihood", marks=pytest.mark.long)])
def test_a_search_under_teacher_forcing_reports_bleu(studies, tmp_path, constraint):
    study = studies("rnnsearch")
    quick = QUICK | {"grouping": "component", "evaluations": 16, "constraint": constraint, "tolerance": 5.0}
    config = study.config(**quick)
    result = run_cell(study, config, tmp_path / "cell")
    assert 0 < result.pruned < result.prunable
    assert result.sets["confirm"].bleu_signature.startswith("nrefs:1|")
    assert result.sets["test"].dense_bleu > 5
    assert result.held.constraint == constraint
    assert result.held.drop <= 5
    assert result.held.drop == pytest.approx(result.held.dense - result.held.value)
    evaluations = read_evaluations(tmp_path / "cell")
    assert {e.sentences for e in evaluations if e.how == "translated"} == {20, 12}
    assert all(e.drop is not None for e in evaluations if e.how == "translated")
    assert (tmp_path / "cell" / "confirm.pruned.txt").read_text().count("\n") == 12
