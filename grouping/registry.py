"""Find a plug-in by its name: one class for groupings, operators, searches and executors."""

import difflib
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar

from grouping.errors import StudyError

T = TypeVar("T")


class Registry(Generic[T]):
    """Plug-ins of one kind.

    A name is looked for among the registered objects, then among the installed entry points of the
    group ``entry_points``, and ``module:name`` is imported. ``kind`` is the word for error messages, ``also``
    what is known beside names.
    """

    def __init__(self, kind: str, entry_points: str, also: str = "") -> None:
        self.kind = kind
        self.also = also
        self.entry_points = entry_points
        self._registered: dict[str, T] = {}

    def register(self, name: str) -> Callable[[T], T]:
        """Decorator that makes a function or class known as ``name``; ValueError if the name is taken."""
        if name in self._registered:
            raise ValueError(f"{self.kind} {name!r} is registered twice")

        def keep(plugin: T) -> T:
            self._registered[name] = plugin
            return plugin

        return keep

    def get(self, name: str) -> T:
        """The plug-in called ``name``; StudyError with the known names and the nearest if there is none."""
        if name in self._registered:
            return self._registered[name]
        installed = self._installed()
        if name in installed:
            return self._load(installed[name])
        if ":" in name:
            return self._load(EntryPoint(name, name, self.entry_points))
        known = self.names()
        nearest = difflib.get_close_matches(name, known, n=1)
        hint = f", did you mean {nearest[0]!r}?" if nearest else ","
        raise StudyError(
            f"unknown {self.kind} {name!r}{hint} known are {', '.join(known)}, "
            f"{self.also}and module:name for one of your own on the import path"
        )

    def names(self) -> list[str]:
        """All names that need no import path, sorted."""
        return sorted({*self._registered, *self._installed()})

    def _installed(self) -> dict[str, EntryPoint]:
        return {point.name: point for point in entry_points(group=self.entry_points)}

    def _load(self, point: EntryPoint) -> T:
        module, _, attribute = point.value.partition(":")
        if not module or not attribute:
            raise StudyError(f"{self.kind} {point.value!r} is incomplete: write module:name")
        try:
            return point.load()
        except Exception as error:  # whatever the code of somebody else raises
            raise StudyError(
                f"{self.kind} {point.value!r} cannot be loaded ({error}): "
                f"check its name, and that {module!r} is installed or on PYTHONPATH"
            ) from error
