"""The three ways to a plug-in, and what an unknown name is told."""

import pytest

from grouping.errors import StudyError
from grouping.registry import Registry


@pytest.fixture
def shapes():
    registry = Registry("shape", "olmp_test.shapes")
    registry.register("circle")("round")
    registry.register("square")("angular")
    return registry


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A distribution installed in a folder of its own, with two entry points of the group."""
    metadata = tmp_path / "olmp_test_shapes-1.0.dist-info"
    metadata.mkdir()
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: olmp-test-shapes\nVersion: 1.0\n")
    (metadata / "entry_points.txt").write_text(
        "[olmp_test.shapes]\nhexagon = olmp_test_shapes:six\ncircle = olmp_test_shapes:six\n"
        "broken = olmp_test_shapes:seven\n"
    )
    (tmp_path / "olmp_test_shapes.py").write_text("six = 'six corners'\n")
    monkeypatch.syspath_prepend(tmp_path)


def test_registered(shapes):
    assert shapes.get("circle") == "round"
    assert shapes.names() == ["circle", "square"]


def test_decorator_returns_what_it_registers(shapes):
    @shapes.register("line")
    def line():
        return "straight"

    assert line() == "straight"
    assert shapes.get("line") is line


def test_name_is_taken(shapes):
    with pytest.raises(ValueError, match="shape 'circle' is registered twice"):
        shapes.register("circle")


@pytest.mark.usefixtures("installed")
def test_entry_point(shapes):
    assert shapes.get("hexagon") == "six corners"
    assert shapes.names() == ["broken", "circle", "hexagon", "square"]
    assert shapes.get("circle") == "round", "what is registered here goes first"


@pytest.mark.usefixtures("installed")
def test_entry_point_to_nothing(shapes):
    with pytest.raises(StudyError, match="'olmp_test_shapes:seven' cannot be loaded.*no attribute 'seven'"):
        shapes.get("broken")


@pytest.mark.usefixtures("installed")
def test_import_path(shapes):
    assert shapes.get("olmp_test_shapes:six") == "six corners"


def test_unknown_name_suggests_the_nearest(shapes):
    with pytest.raises(StudyError) as caught:
        shapes.get("circel")
    assert str(caught.value) == (
        "unknown shape 'circel', did you mean 'circle'? known are circle, square, "
        "and module:name for one of your own on the import path"
    )


def test_unknown_name_without_a_near_one(shapes):
    with pytest.raises(StudyError, match="unknown shape 'xyz', known are circle, square"):
        shapes.get("xyz")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module_here:six", "No module named 'no_such_module_here'.*PYTHONPATH"),
        ("math:no_such_function", "no attribute 'no_such_function'"),
        (":six", "is incomplete: write module:name"),
        ("math:", "is incomplete: write module:name"),
    ],
)
def test_import_path_to_nothing(shapes, name, message):
    with pytest.raises(StudyError, match=message):
        shapes.get(name)
