"""The right to work in a folder: one holder at a time, among all machines that see the folder.

No lock of the file system is asked for (flock over NFS cannot be trusted) and no clock is compared with
another one. A claim is a file ``claim-<generation>`` that appears whole by a hard link, which exactly one
of several processes can make. Its holder adds a byte now and then as a sign of life. A claim whose holder
is dead is not removed but superseded by the next generation, so that of several processes that find it
dead again exactly one succeeds; and a holder that was only asleep sees, before it writes anything more,
that it has been superseded.

Whether a holder is dead is known at once if it was a process of this machine, or an earlier run of the
same SLURM job. Of others only their silence tells (``Watch``).
"""

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from grouping.errors import StudyError
from harness.files import PART

#: seconds between two signs of life
BEAT = 15.0
#: seconds of silence after which a holder on another machine counts as dead; file attributes may be cached
#: for a minute by a network file system
SILENCE = 150.0
CLAIM, SILENT = "claim-", "silent-"


class Held(StudyError):
    """Somebody else holds the folder, or may hold it."""


class Lost(StudyError):
    """The folder was taken over by somebody else, to whom this process seemed dead."""


class _Seen(NamedTuple):
    """A claim as it was read: its file's name, what its holder wrote, and how many bytes it has by now."""

    name: str
    owner: Mapping[str, Any]
    size: int

    @property
    def token(self) -> str:
        return str(self.owner["token"])


class Claim:
    """A folder that this process holds; ``with`` gives it back at the end."""

    def __init__(self, folder: Path):
        """Take the folder, which must exist. Raises Held, at once, when that is not possible now."""
        self.folder = folder
        found = _claims(folder)
        for seen in found:
            if not is_dead(folder, seen.owner):
                raise Held(
                    f"another process ({_where(seen.owner)}) is at work in {folder}: wait for it, "
                    f"or, if that machine is gone, remove {seen.name} there"
                )
        self.path = folder / f"{CLAIM}{max((_generation(s.name) for s in found), default=0) + 1:06d}"
        self.token = uuid.uuid4().hex
        owner = {"token": self.token, **_myself()}
        draft = folder / f".{self.path.name}.{self.token}{PART}"
        try:
            draft.write_text(json.dumps(owner) + "\n")
            os.link(draft, self.path)
        except FileExistsError:
            if draft.stat().st_nlink != 2:  # over NFS an answer may be lost, and the link be made after all
                raise Held(f"another process has just taken {folder}: try again") from None
        except OSError as error:
            raise StudyError(f"could not claim {folder}: {error}") from error
        finally:
            with contextlib.suppress(OSError):
                draft.unlink(missing_ok=True)
        # somebody else may have come and gone meanwhile, and a third begun to count from 1 again
        dead = {seen.token for seen in found}
        if any(s.token not in dead and s.name != self.path.name for s in _claims(folder)):
            self.path.unlink(missing_ok=True)
            raise Held(f"another process has just taken {folder}: try again")
        for seen in found:
            (folder / seen.name).unlink(missing_ok=True)
            (folder / f"{SILENT}{seen.token}").unlink(missing_ok=True)
        self._over = threading.Event()
        self._beating = threading.Thread(target=self._beat, name="claim", daemon=True)
        self._beating.start()

    def check(self) -> None:
        """Raise Lost if somebody has taken over. To be called before anything is written."""
        # a name alone says little: after a holder that has given the folder back, counting begins anew
        if [seen.token for seen in _claims(self.folder)][-1:] != [self.token]:
            raise Lost(f"{self.folder} was taken over by another process while this one was asleep")

    def sweep(self) -> None:
        """Remove what writes that were cut off have left in the folder."""
        for draft in self.folder.glob(f".*{PART}"):
            if not draft.name.startswith(f".{CLAIM}"):  # of one that is being made at this moment
                draft.unlink(missing_ok=True)

    def release(self) -> None:
        """Let others have the folder."""
        self._over.set()
        self._beating.join()
        with contextlib.suppress(OSError):
            if self.token in {seen.token for seen in _claims(self.folder) if seen.name == self.path.name}:
                self.path.unlink(missing_ok=True)

    def _beat(self) -> None:
        while not self._over.wait(BEAT):
            # "r+b" cannot make the file anew after it was removed
            with contextlib.suppress(OSError), self.path.open("r+b") as file:
                file.seek(0, os.SEEK_END)
                file.write(b".")

    def __enter__(self) -> "Claim":
        return self

    def __exit__(self, *exception: object) -> None:
        self.release()


class Watch:
    """Looks at claims of other machines again and again, and marks those that have long been silent.

    Only the time between two looks counts, by the clock of this process that nobody can set.
    """

    def __init__(self, silence: float = SILENCE):
        self._silence = silence
        self._seen: dict[str, tuple[int, float]] = {}

    def held(self, folder: Path) -> bool:
        """Whether somebody holds the folder, or may hold it. One that is silent for too long does not."""
        held = False
        for seen in _claims(folder):
            if is_dead(folder, seen.owner):
                continue
            size, since = self._seen.get(seen.token, (-1, 0.0))
            if size != seen.size:
                self._seen[seen.token] = seen.size, time.monotonic()
            elif time.monotonic() - since > self._silence:
                (folder / f"{SILENT}{seen.token}").touch()
                continue
            held = True
        return held


def is_dead(folder: Path, owner: Mapping[str, Any]) -> bool:
    """Whether the holder of a claim in this folder is known to be gone."""
    if (folder / f"{SILENT}{owner.get('token')}").exists():
        return True
    mine = _myself()
    job = owner.get("job")
    if job is not None and job == mine["job"] and owner.get("restart", 0) < mine["restart"]:
        return True
    if owner.get("machine") != mine["machine"]:
        return False
    return owner.get("started") != _started(int(owner.get("pid", 0)))


def is_leftover(name: str) -> bool:
    """Whether a file in a cell's folder is of a claim or of a write that was cut off."""
    return name.startswith((CLAIM, SILENT)) or (name.startswith(".") and name.endswith(PART))


def claimed(folder: Path) -> bool:
    """Whether there is any claim that is not known to be dead."""
    return any(not is_dead(folder, seen.owner) for seen in _claims(folder))


def _claims(folder: Path) -> list[_Seen]:
    found = []
    for name in sorted(os.listdir(folder)):
        if not name.startswith(CLAIM):
            continue
        try:
            content = (folder / name).read_bytes()
        except FileNotFoundError:
            continue  # given back since
        try:
            owner = json.loads(content.partition(b"\n")[0])
        except ValueError:
            owner = {}  # damaged: nobody can be asked whether it is alive, so its silence must tell
        known = owner if isinstance(owner, dict) and isinstance(owner.get("pid"), int) else {}
        found.append(_Seen(name, {"token": name} | known, len(content)))
    return found


def _generation(name: str) -> int:
    number = name.removeprefix(CLAIM)
    return int(number) if number.isdigit() else 0


def _where(owner: Mapping[str, Any]) -> str:
    return f"process {owner.get('pid', '?')} on {owner.get('host', 'an unknown machine')}"


def _myself() -> dict[str, Any]:
    return {
        "host": socket.gethostname(),
        "machine": _machine(),
        "pid": os.getpid(),
        "started": _started(os.getpid()),
        "job": os.environ.get("SLURM_JOB_ID"),
        "restart": int(os.environ.get("SLURM_RESTART_COUNT", 0)),
    }


def _machine() -> str:
    """What processes have in common that can see each other: this boot, this space of process numbers."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return socket.gethostname()


def _started(pid: int) -> str | None:
    """When a process began, in ticks since the machine's start: tells it from a later one of its number.

    None if there is no such process, or if it has ended and waits to be reaped.
    """
    try:
        # the name, in parentheses, may hold anything
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return _alive(pid) if not Path("/proc/self/stat").exists() else None
    return None if fields[0] in "ZX" else fields[19]


def _alive(pid: int) -> str | None:
    """As well as it can be told without /proc."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    return "alive"
