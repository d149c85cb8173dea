"""The set-up files say the same thing."""

import re
import tomllib
from pathlib import Path

import yaml

ROOT = Path(__file__).parents[1]
NAME = re.compile(r"^[A-Za-z0-9._-]+")


def canonical(requirement: str) -> str:
    """The name of a requirement as pip compares it."""
    match = NAME.match(requirement)
    assert match, requirement
    return re.sub(r"[-_.]+", "-", match[0]).lower()


def lock() -> list[str]:
    lines = (ROOT / "requirements.lock").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if not line.startswith("#")]


def project() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_lock_pins_every_requirement():
    extras = project()["optional-dependencies"]
    asked = {canonical(name) for name in [*project()["dependencies"], *extras["study"], *extras["dev"]]}
    # the fork for other platforms, pinned in pyproject.toml itself
    assert asked - {canonical(line) for line in lock()} <= {"fairseq-fixed"}


def test_the_lock_serves_any_index_and_any_build_of_torch():
    assert all(re.fullmatch(r"[A-Za-z0-9._-]+==[A-Za-z0-9.]+", line) for line in lock())
    assert "torch==2.13.0" in lock()


def test_the_version_is_the_same_everywhere():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    assert citation["version"] == project()["version"]
    assert citation["license"] == project()["license"] == "MIT"
    assert citation["cff-version"] == "1.2.0"
