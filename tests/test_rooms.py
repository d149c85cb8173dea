"""Who may import fairseq: import-linter keeps the rooms apart, this keeps fairseq behind few doors."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[1]
ROOMS = ("grouping", "harness", "experiments", "analysis")
#: modules and packages that may
DOORS = (
    "harness/model.py",
    "harness/decoding/",
    "harness/training/",
    "harness/corpus/corpus.py",
    "harness/corpus/databin.py",
    # one measures fairseq itself, the other builds its largest architectures
    "experiments/bench/",
    "experiments/growth.py",
)


def imported(path: Path) -> set[str]:
    """Top-level names of everything a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            found.add(node.module.split(".")[0])
    return found


def test_fairseq_is_imported_behind_few_doors():
    files = [path for room in ROOMS for path in sorted((ROOT / room).rglob("*.py"))]
    users = [path.relative_to(ROOT).as_posix() for path in files if "fairseq" in imported(path)]
    assert "harness/model.py" in users
    assert [user for user in users if not user.startswith(DOORS)] == []
