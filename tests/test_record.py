"""The folder of a cell: opened, appended to, repaired, and never taken from somebody else."""

import json
from pathlib import Path

import numpy as np
import pytest
from conftest import largest_file

from grouping.errors import StudyError
from harness.configuration import CellConfig
from harness.environment import environment
from harness.record import Record, cell_name
from harness.records import Evaluation, Held, Result, SetResult
from harness.report import beginning_lines, summary_lines

CONFIG = CellConfig(checkpoint_sha256="c" * 64, corpus_sha256="d" * 64)


def evaluation(index: int) -> Evaluation:
    return Evaluation(
        index=index,
        stage="search",
        knobs=[0.1, 1 / 3],
        size=0.9,
        how="translated",
        score=0.9,
        feasible=True,
        bleu=30.0,
        drop=0.5,
        bound=0.7,
        standard_error=0.2,
        sentences=10,
        tokens=100,
        tokens_computed=100,
        seconds=0.1,
    )


def replayed(folder: Path) -> list[Evaluation]:
    with Record(folder, CONFIG) as record:
        return record.replayed


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_a_new_folder_says_what_the_cell_is_and_what_its_files_hold(tmp_path):
    with Record(tmp_path / "a" / "cell", CONFIG) as record:
        assert record.replayed == []
        assert record.result() is None
    assert json.loads((tmp_path / "a" / "cell" / "config.json").read_text())["tolerance"] == 1.0
    schema = json.loads((tmp_path / "a" / "cell" / "schema.json").read_text())
    assert set(schema) == {
        "schema_version",
        "config.json",
        "evaluations.jsonl",
        "result.json",
        "failure.json",
    }


def test_an_empty_folder_is_free(tmp_path):
    Record(tmp_path, CONFIG).close()
    assert (tmp_path / "config.json").exists()


def test_appended_evaluations_are_replayed(tmp_path):
    with Record(tmp_path, CONFIG) as record:
        record.append(evaluation(0))
        # on disk before anything else happens
        assert len((tmp_path / "evaluations.jsonl").read_text().splitlines()) == 1
        record.append(evaluation(1))
    with Record(tmp_path, CONFIG) as record:
        assert record.replayed == [evaluation(0), evaluation(1)]
        record.append(evaluation(2))
    assert replayed(tmp_path) == [evaluation(i) for i in range(3)]


@pytest.mark.parametrize("tail", ["{", evaluation(1).model_dump_json(), "\x00\x00\x00"])
def test_a_line_cut_off_by_a_crash_is_removed(tmp_path, tail):
    with Record(tmp_path, CONFIG) as record:
        record.append(evaluation(0))
    path = tmp_path / "evaluations.jsonl"
    whole = path.read_text()
    path.write_text(whole + tail)
    with Record(tmp_path, CONFIG) as record:
        assert record.replayed == [evaluation(0)]
        assert path.read_text() == whole
        record.append(evaluation(1))
    assert replayed(tmp_path) == [evaluation(0), evaluation(1)]


@pytest.mark.parametrize("line", ['{"index": 1}', "\x00\x00\x00", ""])
def test_a_damaged_line_is_refused_and_nothing_behind_it_lost(tmp_path, line):
    with Record(tmp_path, CONFIG) as record:
        record.append(evaluation(0))
    path = tmp_path / "evaluations.jsonl"
    path.write_text(path.read_text() + line + "\n" + evaluation(1).model_dump_json() + "\n")
    before = contents(tmp_path)
    with pytest.raises(StudyError, match="evaluations.jsonl:2 is damaged or of another version"):
        Record(tmp_path, CONFIG)
    assert contents(tmp_path) == before


def test_two_at_a_time_are_refused(tmp_path):
    with Record(tmp_path, CONFIG), pytest.raises(StudyError, match="another process .* is at work in"):
        Record(tmp_path, CONFIG)
    with Record(tmp_path, CONFIG) as again:
        assert again.replayed == []


def test_another_configuration_is_refused_by_field(tmp_path):
    Record(tmp_path, CONFIG).close()
    before = contents(tmp_path)
    other = CONFIG.model_copy(update={"search": "CMA", "corpus_sha256": "e" * 64})
    with pytest.raises(StudyError, match=r"\(differs in corpus_sha256, search\): choose another --out"):
        Record(tmp_path, other)
    assert contents(tmp_path) == before


@pytest.mark.parametrize("content", ["{}", "[1]", '{"schema_version": 2}', "\xff"])
def test_a_foreign_configuration_is_refused(tmp_path, content):
    (tmp_path / "config.json").write_text(content, encoding="latin-1")
    before = contents(tmp_path)
    with pytest.raises(StudyError, match=r"config.json cannot be read \("):
        Record(tmp_path, CONFIG)
    assert contents(tmp_path) == before


def test_a_configuration_that_a_power_cut_left_empty_is_written_again(tmp_path):
    (tmp_path / "config.json").touch()
    with Record(tmp_path, CONFIG):
        assert json.loads((tmp_path / "config.json").read_text()) == CONFIG.model_dump()


def test_a_foreign_folder_or_file_is_refused(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    for place in (tmp_path, tmp_path / "notes.txt"):
        with pytest.raises(StudyError, match="exists and is no cell folder"):
            Record(place, CONFIG)
    with pytest.raises(StudyError, match="could not make .*Not a directory"):
        Record(tmp_path / "notes.txt" / "cell", CONFIG)
    assert contents(tmp_path) == {"notes.txt": b"mine"}


def test_an_unreadable_result_is_an_error_and_stays(tmp_path):
    with Record(tmp_path, CONFIG) as record:
        (tmp_path / "result.json").write_text('{"schema_version": 2}')
        with pytest.raises(StudyError, match=r"result.json cannot be read \("):
            record.result()
    assert (tmp_path / "result.json").read_text() == '{"schema_version": 2}'


def test_a_full_disk_keeps_what_was_recorded(tmp_path):
    line = len(evaluation(0).model_dump_json()) + 1
    with largest_file(1000), pytest.raises(StudyError, match="could not write .*schema.json"):
        Record(tmp_path, CONFIG)
    assert set(contents(tmp_path)) == {"config.json"}
    Record(tmp_path, CONFIG).close()
    assert (tmp_path / "schema.json").exists()
    with largest_file(2 * line + 40), Record(tmp_path, CONFIG) as record:
        record.append(evaluation(0))
        record.append(evaluation(1))
        with pytest.raises(StudyError, match="could not record an evaluation .* it resumes"):
            record.append(evaluation(2))
    assert replayed(tmp_path) == [evaluation(0), evaluation(1)]


def test_a_full_disk_leaves_no_half_written_file(tmp_path):
    with Record(tmp_path, CONFIG) as record:
        record.write_lines("test.pruned.txt", ["old"])
        before = contents(tmp_path)
        with largest_file(1000):
            with pytest.raises(StudyError, match="could not write .*test.pruned.txt"):
                record.write_lines("test.pruned.txt", ["new"] * 1000)
            noise = np.random.default_rng(1).random(100_000) < 0.5
            with pytest.raises(StudyError, match="could not write .*masks.npz"):
                record.write_masks({"w": noise})
        assert contents(tmp_path) == before


def test_lines_are_kept_as_they_are(tmp_path):
    with Record(tmp_path, CONFIG) as record:
        record.write_lines("test.pruned.txt", ["Tür öffnen", "", "Ende"])
    assert (tmp_path / "test.pruned.txt").read_bytes() == "Tür öffnen\n\nEnde\n".encode()


def test_masks_are_packed_to_bits(tmp_path):
    mask = np.array([[True, False, True], [False, False, True]])
    with Record(tmp_path, CONFIG) as record:
        record.write_masks({"a.weight": mask})
    with np.load(tmp_path / "masks.npz") as saved:
        # 101001 and two bits of padding
        assert saved["a.weight"].tolist() == [0b10100100]
        assert saved["a.weight/shape"].tolist() == [2, 3]


def test_the_name_of_a_cell_is_readable_and_follows_every_field():
    name = cell_name(CONFIG)
    # as it was before there were the younger fields: finished cells are found again
    assert name == "layer-NCS-1-seed1-53f9bbd985"
    assert cell_name(CONFIG.model_copy()) == name
    changes = [{"sigma": 0.1}, {"tokens": 5}, {"checkpoint_sha256": "0"}, {"vectors": True}, {"dropout": 0.0}]
    names = {cell_name(CONFIG.model_copy(update=change)) for change in changes}
    assert len(names | {name}) == 6
    assert cell_name(CONFIG.model_copy(update={"grouping": "my/mod:shuffled(a)"})).startswith(
        "my_mod_shuffled_a_-NCS"
    )


def test_what_a_killed_process_was_writing_is_removed(tmp_path):
    replayed(tmp_path)
    (tmp_path / ".masks.npz.1a2b.part").touch()
    (tmp_path / ".claim-000001.3c4d.part").touch()  # may be of one that is about to claim the folder
    replayed(tmp_path)
    assert [path.name for path in tmp_path.glob(".*")] == [".claim-000001.3c4d.part"]


def test_the_summary_shows_the_three_sets_side_by_side():
    def measured(bleu: float) -> SetResult:
        return SetResult(
            sentences=500,
            beam=5,
            dense_bleu=30.0,
            bleu=bleu,
            drop=30.0 - bleu,
            bound=1.0,
            interval=(-0.125, 1.5),
            standard_error=0.25,
            smallest_detectable=0.41,
            dense_chrf=55.5,
            chrf=54.25,
            bleu_signature="nrefs:1",
            chrf_signature="nc:6",
        )

    result = Result(
        family="lstm",
        knobs=[0.25],
        groups=[],
        prunable=4000,
        parameters=5000,
        pruned=1000,
        remaining=0.75,
        remaining_of_all=0.8,
        backed_off=2,
        evaluations=150,
        raced=0,
        skipped=7,
        cached=3,
        tokens=123456,
        confirm_tokens=7890,
        tokens_computed=120000,
        seconds=61.4,
        other_seconds=20.0,
        held=Held(constraint="bleu", dense=30.0, value=29.25, drop=0.75, bound=0.9),
        rounds=[],
        sets={"search": measured(29.5), "confirm": measured(29.25), "test": measured(29.0)},
        files={},
        environment=environment(),
    )
    lines = summary_lines(CONFIG, result)
    assert lines[0] == "layer / magnitude / NCS, tolerance 1 BLEU (bound), seed 1"
    assert "pruned 1,000 of 4,000" in lines[1]
    assert "sparsity 25.0%, remaining 75.0% (80.0% of all 5,000 parameters)" in lines[1]
    rows = [line.split() for line in lines[3:6]]
    assert rows[0] == ["search", "500", "5", "30.00", "29.50", "0.50", "[-0.12,", "1.50]", "0.25", "0.41"]
    assert [row[4] for row in rows] == ["29.50", "29.25", "29.00"]
    assert lines[6] == "test chrF 55.50 → 54.25; nrefs:1"
    assert lines[7].startswith(
        "150 evaluations (7 skipped, 0 stopped early, 3 cached), 123,456 tokens delivered, "
    )
    assert "7,890 more on confirm, 120,000 computed" in lines[7]
    assert lines[7].endswith("2 backed off on confirm, 61 s of evaluation")
    started = [
        evaluation(index).model_copy(update={"stage": "start", "size": size, "feasible": feasible})
        for index, (size, feasible) in enumerate([(0.5, False), (0.875, True), (0.785, True), (0.7, False)])
    ]
    (begun,) = beginning_lines(CONFIG, result, [*started, evaluation(4)])
    assert begun.endswith("at 78.5% remaining (4 evaluations), and ended 3.5 points below")
    larger = result.model_copy(update={"remaining": 0.8})
    assert beginning_lines(CONFIG, larger, started)[0].endswith(
        "and ended 1.5 points above: confirm refused 2 that were smaller"
    )
    same = result.model_copy(update={"remaining": 0.785})
    found = [*started, evaluation(4).model_copy(update={"stage": "search"})]
    assert beginning_lines(CONFIG, same, found)[0].endswith("and found nothing smaller that holds")
    assert beginning_lines(CONFIG, same, started)[0].endswith("and its budget ended there")
    for other in ({"search": "class-blind"}, {"schedule": "retrain"}):
        assert beginning_lines(CONFIG.model_copy(update=other), result, started) == []
    assert beginning_lines(CONFIG, result, started[:1]) == []  # or begun at the dense model
    nothing = summary_lines(CONFIG, result.model_copy(update={"pruned": 0}))
    assert nothing[6].startswith("nothing that was tried is within the tolerance: ")
    assert "on 500 sentences" in nothing[6]
    retrained = summary_lines(CONFIG.model_copy(update={"schedule": "retrain"}), result)
    assert retrained[7].endswith("61 s of evaluation and retraining")
