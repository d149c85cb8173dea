"""The command ``olmp``: a dispatcher over the verbs that each room brings.

A verb is a module named by an entry point of the group ``olmp.verbs``; it has ``SUMMARY``,
``add_arguments(parser)`` and ``run(args)``, and imports what is heavy only in ``run``. One that goes on
where it was interrupted says so with ``RESUMES = True``; errors of its room that are for the user to read,
as StudyError is, it names in ``ERRORS``.
"""

import argparse
import logging
import os
import sys
from collections.abc import Callable, Sequence
from importlib.metadata import entry_points
from pathlib import Path

from grouping.errors import StudyError

PROGRAM = "olmp"
#: what bad input and an interruption end with
USER_ERROR = 2
ROOMS = ("grouping", "harness", "experiments", "analysis")


def parser() -> argparse.ArgumentParser:
    """The parser of all verbs; a fresh one each time."""
    top = argparse.ArgumentParser(
        PROGRAM, description="How far can each part of a translation model be compressed at the same BLEU?"
    )
    commands = top.add_subparsers(dest="verb", required=True, metavar="VERB")
    for entry in sorted(entry_points(group="olmp.verbs"), key=lambda entry: entry.name):
        verb = entry.load()
        sub = commands.add_parser(entry.name, help=verb.SUMMARY, description=verb.SUMMARY)
        verb.add_arguments(sub)
        sub.set_defaults(
            run_verb=verb.run, resumes=getattr(verb, "RESUMES", False), errors=getattr(verb, "ERRORS", ())
        )
    return top


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a verb. Returns the exit code: 0, or 2 with one line on standard error."""
    args = parser().parse_args(arguments)
    return guarded(lambda: args.run_verb(args), args.resumes, args.errors)


def guarded(run: Callable[[], object], resumes: bool = True, errors: tuple[type[Exception], ...] = ()) -> int:
    """Run something whose errors and interruption are for the user to read. Returns the exit code.

    ``resumes`` says whether the same command goes on where Ctrl-C stopped it; ``errors`` are for the user
    beside StudyError.
    """
    expected: tuple[type[Exception], ...] = (StudyError, *errors)
    before = logging.root.manager.disable
    logging.disable(logging.INFO)  # what fairseq and nevergrad have to tell is not for the user
    try:
        _run_installed(run)
        sys.stdout.flush()
    except expected as error:
        print(f"{PROGRAM}: error: {' '.join(str(error).split())}", file=sys.stderr)
        return USER_ERROR
    except KeyboardInterrupt:
        below_the_bar = "\n" * sys.stderr.isatty()
        advice = "; run the same command again, it resumes" * resumes
        print(f"{below_the_bar}{PROGRAM}: interrupted{advice}", file=sys.stderr)
        return USER_ERROR
    except BrokenPipeError:
        _end_output()  # the reader of a pipe has gone, which is no error of ours
    except OSError as error:
        print(f"{PROGRAM}: error: {_told(error)}", file=sys.stderr)
        _end_output()
        return USER_ERROR
    finally:
        logging.disable(before)
    return 0


def _told(error: OSError) -> str:
    if isinstance(error, (FileExistsError, NotADirectoryError)) and error.filename is not None:
        path = Path(os.fsdecode(error.filename))
        file = next((one for one in (path, *path.parents) if one.is_file()), None)
        if file is not None:
            return f"{file} is a file, where a folder is wanted: name another"
    return str(error)


def _run_installed(run: Callable[[], object]) -> None:
    try:
        run()
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if not package or package in ROOMS:
            raise
        raise StudyError(f"{package} is not installed: install olmp[study] (make setup)") from error


def _end_output() -> None:
    """Write out what was printed; where that is impossible, keep Python from saying so at exit."""
    try:
        sys.stdout.flush()
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    raise SystemExit(main())
