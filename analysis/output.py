"""Where output may go: what is not there yet, or what the same command has written before."""

from pathlib import Path

from analysis.errors import NotOurs

#: says in a folder what has made it
MARKER = ".olmp"
#: says in the head of a page what has made it
GENERATOR = '<meta name="generator" content="olmp report">'
#: bytes of a page in which that is looked for
HEAD = 1000


def own_folder(folder: Path, maker: str) -> None:
    """Make a folder and mark it as that of ``maker``, whose files in it may be overwritten from then on.

    Raises NotOurs for a folder that holds anything and was not marked so; OSError where none can be made.
    """
    folder.mkdir(parents=True, exist_ok=True)
    mark = f"made by {maker}"
    marker = folder / MARKER
    if _first_line(marker) == mark:
        return
    if any(path.name != MARKER for path in folder.iterdir()):
        raise NotOurs(
            f"{folder} holds files and no mark that `{maker}` has made them, so that nothing there may be "
            "overwritten: name a new or an empty folder, or remove this one"
        )
    marker.write_text(f"{mark}\nEverything in this folder may be overwritten.\n", encoding="utf-8")


def check_page(path: Path) -> None:
    """Raise NotOurs if a page would overwrite a file that is not empty and no page of ``olmp report``."""
    if path.is_dir():
        raise NotOurs(f"{path} is a folder, where a file is wanted: name a file, such as {path}/report.html")
    if not path.is_file():
        return
    with path.open("rb") as file:
        head = file.read(HEAD)
    if head and GENERATOR.encode() not in head:
        raise NotOurs(f"{path} is no page that `olmp report` made: name another file, or remove that one")


def _first_line(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").partition("\n")[0]
    except (OSError, UnicodeDecodeError):
        return ""
