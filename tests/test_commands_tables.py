"""`olmp tables` as a user types it, with and without what only a study needs."""

import subprocess
import sys
import tomllib

import pytest
from conftest import ROOT
from miniature import failure, run, written

from harness import cli

#: packages by what they are imported as
IMPORTED = {
    "ve-fairseq": "fairseq",
    "fairseq-fixed": "fairseq",
    "hydra-core": "hydra",
    "scikit-learn": "sklearn",
}
#: makes the extra packages of a study as absent as they are after `pip install .`
WITHOUT = """\
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {names}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
from harness.cli import main
raise SystemExit(main())
"""


def test_tables_are_printed_and_failures_counted(tmp_path, capsys):
    written(tmp_path / "grid", [run(), failure()])
    assert cli.main(["tables", str(tmp_path), "--only", "best", "ranks"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "| luong | 1 | NCS | gate |" in out
    assert "mean rank" in out
    assert out.endswith("\n1 cells failed: `olmp status` of their grid says why\n")


def test_tables_are_written_and_what_is_missing_is_said(tmp_path, capsys):
    written(tmp_path / "grid", [run()])
    out = tmp_path / "a" / "tables"
    assert cli.main(["tables", str(tmp_path / "grid"), "--out", str(out)]) == 0
    shown = capsys.readouterr().out
    assert f"{out / 'best.md'}\n" in shown
    assert "\nretraining: no retrained cell is finished" in shown
    assert (out / "tables.tex").is_file()


def test_bad_input_ends_with_one_line(tmp_path, capsys):
    missing = tmp_path / "none"
    for folder, said in ((tmp_path, f"runs.parquet in {tmp_path}, nor"), (missing, f"{missing}: name")):
        assert cli.main(["tables", str(folder)]) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith(f"olmp: error: there is no {said}")
        assert err.count("\n") == 1
    written(tmp_path / "grid", [run()])
    assert cli.main(["tables", str(tmp_path), "--only", "bset"]) == 2
    assert "there is no table 'bset', did you mean 'best'? Known are best, " in capsys.readouterr().err
    assert cli.main(["tables", str(tmp_path), "--only", "x"]) == 2
    assert "there is no table 'x'. Known are best, " in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert cli.main(["tables", str(tmp_path), "--out", str(tmp_path / "file")]) == 2
    wanted = f"olmp: error: {tmp_path / 'file'} is a file, where a folder is wanted: name another\n"
    assert capsys.readouterr().err == wanted
    assert cli.main(["tables", str(tmp_path), "--out", str(tmp_path / "file" / "in" / "it")]) == 2
    assert capsys.readouterr().err == wanted


@pytest.mark.parametrize("verb", ["tables", "figures", "report"])
def test_a_torn_table_is_said_once(tmp_path, capsys, verb):
    written(tmp_path / "grid", [run()])
    torn = tmp_path / "grid" / "runs.parquet"
    torn.write_bytes(torn.read_bytes()[:-100])
    out = tmp_path / "out"
    for place in ([], ["--out", str(out)]) if verb == "tables" else (["--out", str(out)],):
        assert cli.main([verb, str(tmp_path / "grid"), *place]) == 2
        shown, err = capsys.readouterr()
        assert shown == ""
        assert err.startswith(f"olmp: error: {torn} cannot be read (")
        assert err.count("\n") == 1
    assert not out.exists()


def test_reading_results_needs_the_base_alone(tmp_path):
    written(tmp_path / "grid", [run()])
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    study = [
        name.split(";")[0].split(">")[0].split("=")[0] for name in project["optional-dependencies"]["study"]
    ]
    names = {IMPORTED.get(name, name) for name in study}
    assert {"torch", "fairseq", "pydantic"} <= names
    program = WITHOUT.format(names=names)

    def olmp(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", program, *map(str, arguments)]
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)

    done = olmp("tables", tmp_path, "--out", tmp_path / "out")
    assert (done.returncode, done.stderr) == (0, "")
    done = olmp("plan", "smoke")
    assert done.returncode == 2
    assert done.stderr == "olmp: error: pydantic is not installed: install olmp[study] (make setup)\n"
