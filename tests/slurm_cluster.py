"""A real SLURM of emulated nodes on this one machine, loopback only, for tests and for trying things out.

``python -m tests.slurm_cluster COMMAND ...`` runs a command on one. It takes the Debian packages slurmctld,
slurmd, slurm-client and munge; neither root nor systemd, cgroups or an accounting database.
"""

import argparse
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

PROGRAMS = ["munged", "slurmctld", "slurmd", "sinfo", "sbatch", "srun", "setpriv"]
#: the daemons are here, which is not on the path of everybody
PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])

CONFIGURATION = """\
ClusterName=emulated
SlurmctldHost=localhost
SlurmctldPort={controller_port}
SlurmUser={user}
SlurmdUser={user}
# loopback only
CommunicationParameters=NoCtldInAddrAny,NoInAddrAny
AuthType=auth/munge
# a requeued job waits until its old credential has expired: 13 s instead of 128 s
AuthInfo=socket={sockets}/munge,cred_expire=5

StateSaveLocation={folder}/state
SlurmdSpoolDir={sockets}/%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid

# nothing that takes root or cgroups
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
JobAcctGatherType=jobacct_gather/{gather}
JobAcctGatherFrequency=task=1
JobAcctGatherParams=OverMemoryKill
AccountingStorageType=accounting_storage/none

SelectType=select/cons_tres
SelectTypeParameters=CR_CPU_Memory
SchedulerParameters=sched_min_interval=0,batch_sched_delay=0,sched_interval=1,bf_interval=1
MaxArraySize={max_array_size}
DefMemPerCPU={memory_per_cpu}
JobRequeue=1
KillWait=2
# squeue is all there is to ask about jobs that have ended
MinJobAge=86400

# nodes are what is written here, whatever this machine has
SlurmdParameters=config_overrides
ReturnToService=2
{nodes}
PartitionName=emulated Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
NODE = "NodeName={name} NodeHostname={host} NodeAddr=127.0.0.1 Port={port} CPUs={cpus} RealMemory={memory}"


def missing() -> str | None:
    """Why no cluster can be started here; ``None`` if one can."""
    absent = [name for name in PROGRAMS if shutil.which(name, path=PATH) is None]
    return f"SLURM is not installed: {', '.join(absent)}" if absent else None


def free_ports(count: int) -> list[int]:
    """TCP ports that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [each.getsockname()[1] for each in sockets]
    for each in sockets:
        each.close()
    return ports


class Cluster:
    """A cluster that runs while the context lasts; its jobs die with it.

    Job ids begin at 1 in each: what is kept by job id, like the files of submitit, belongs into a new folder.

    Parameters
    ----------
    folder
        Holds configuration, state and logs. It must not exist yet: nothing of another cluster is taken over.
    nodes, cpus, memory
        How many nodes to emulate, with how many CPUs and MiB of memory each; the machine may have fewer.
    max_array_size
        SLURM's ``MaxArraySize``: the indices of a job array stay below it.
    memory_limits
        Kill jobs that take more memory than they asked for; looked at once a second.
    patience
        Seconds that the daemons may take to come up.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        nodes: int = 2,
        *,
        cpus: int = 1,
        memory: int = 2000,
        max_array_size: int = 1001,
        memory_limits: bool = False,
        patience: float = 30,
    ) -> None:
        self.folder = Path(folder).absolute()
        self.nodes = [f"n{number}" for number in range(1, nodes + 1)]
        self.patience = patience
        #: what a program needs in its environment to talk to this cluster
        self.environment: Mapping[str, str] = {"SLURM_CONF": f"{self.folder}/slurm.conf"}
        self._sockets = ""
        self._daemons: dict[str, subprocess.Popen[bytes]] = {}
        self._settings = {
            "folder": self.folder,
            "user": os.geteuid(),
            "gather": "linux" if memory_limits else "none",
            "max_array_size": max_array_size,
            "memory_per_cpu": memory // cpus,
        }
        self._node = {"host": socket.gethostname().partition(".")[0], "cpus": cpus, "memory": memory}

    def run(self, command: Sequence[str], **options) -> subprocess.CompletedProcess:
        """``subprocess.run`` on this cluster, not on one that this process may itself be a job of."""
        return subprocess.run(command, env=self._whole_environment(), **options)

    def __enter__(self) -> "Cluster":
        if reason := missing():
            raise RuntimeError(reason)
        self.folder.mkdir(parents=True)
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop()

    def _start(self) -> None:
        deadline = time.monotonic() + self.patience
        (self.folder / "state").mkdir()
        # the name of a Unix socket has to be short, which that of the folder need not be
        self._sockets = tempfile.mkdtemp(prefix="slurm-")
        controller_port, *ports = free_ports(1 + len(self.nodes))
        nodes = [
            NODE.format(name=name, port=port, **self._node)
            for name, port in zip(self.nodes, ports, strict=True)
        ]
        configuration = CONFIGURATION.format(
            sockets=self._sockets, controller_port=controller_port, nodes="\n".join(nodes), **self._settings
        )
        (self.folder / "slurm.conf").write_text(configuration, encoding="utf-8")
        key = self.folder / "munge.key"
        key.touch(mode=0o600)
        key.write_bytes(secrets.token_bytes(128))
        options = [f"--{what}-file={self.folder}/munge.{what}" for what in ("key", "pid", "seed")]
        # by itself it refuses a socket in a folder that not everybody may enter
        self._daemon("munged", "--foreground", "--force", f"--socket={self._sockets}/munge", *options)
        self._wait(Path(self._sockets, "munge").exists, deadline)
        self._daemon("slurmctld", "-D", "-c")
        for node in self.nodes:
            self._daemon("slurmd", "-D", "-N", node, log=node)
        self._wait(self._idle, deadline)

    def _daemon(self, program: str, *arguments: str, log: str | None = None) -> None:
        """Start a daemon in the foreground, as a child: where PID 1 reaps nobody, nobody else would."""
        found = str(shutil.which(program, path=PATH))
        with (self.folder / f"{log or program}.log").open("wb") as output:
            self._daemons[log or program] = subprocess.Popen(
                # it ends with the thread that is here, even a killed one, but not at Ctrl-C: we answer that
                ["setpriv", "--pdeathsig", "TERM", found, *arguments],
                start_new_session=True,
                cwd=self.folder,
                env=self._whole_environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def _wait(self, condition: Callable[[], bool], deadline: float) -> None:
        while (late := time.monotonic() > deadline) or not condition():
            ended = [name for name, daemon in self._daemons.items() if daemon.poll() is not None]
            if ended or late:
                what = f"{ended[0]} has ended" if ended else f"it is not up after {self.patience:g} s"
                raise RuntimeError("\n".join([f"SLURM does not start: {what}", *self._tails()]))
            time.sleep(0.05)

    def _idle(self) -> bool:
        states = self.run(["sinfo", "-h", "-N", "-o", "%t"], capture_output=True, text=True).stdout
        return states.split() == ["idle"] * len(self.nodes)

    def _tails(self, lines: int = 10) -> Iterator[str]:
        """The end of each log."""
        for log in sorted(self.folder.glob("*.log")):
            yield f"--- {log}"
            yield from log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]

    def _whole_environment(self) -> dict[str, str]:
        foreign = ("SLURM_", "SLURMD_", "SBATCH_", "SRUN_", "SALLOC_")
        return {k: v for k, v in os.environ.items() if not k.startswith(foreign)} | dict(self.environment)

    def _stop(self) -> None:
        """Kill all that runs, without the courtesies of scancel: nobody will look at this cluster again."""
        for daemon in self._daemons.values():
            daemon.kill()
        for daemon in self._daemons.values():
            daemon.wait()
        deadline = time.monotonic() + self.patience
        while processes := self._processes():  # again, for those that were born meanwhile
            if time.monotonic() > deadline:
                raise RuntimeError(f"processes that cannot be killed: {processes}")
            for process in processes:
                with suppress(ProcessLookupError):
                    os.kill(process, signal.SIGKILL)
            time.sleep(0.02)
        shutil.rmtree(self._sockets, ignore_errors=True)

    def _processes(self) -> list[int]:
        """Whoever was started with our configuration: jobs, and what runs them, are no children of ours."""
        setting = os.fsencode(f"SLURM_CONF={self.environment['SLURM_CONF']}")
        found = []
        for environment in Path("/proc").glob("[0-9]*/environ"):
            try:
                variables = environment.read_bytes().split(b"\0")
            except OSError:  # of another user, or just gone
                continue
            if setting in variables:
                found.append(int(environment.parent.name))
        return found


def main() -> int:
    """Run a command on a cluster and return its exit status."""
    parser = argparse.ArgumentParser(
        prog="slurm_cluster", description="Run a command on an emulated SLURM cluster."
    )
    parser.add_argument("--nodes", type=int, default=2)
    parser.add_argument("--cpus", type=int, default=1, help="of each node")
    parser.add_argument("--memory", type=int, default=4096, help="of each node, in MiB")
    parser.add_argument("command", nargs=argparse.REMAINDER)
    args = parser.parse_args()
    if reason := missing() or ("" if args.command else "no command"):
        parser.error(reason)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # leave the contexts
    with (
        tempfile.TemporaryDirectory(prefix="slurm-") as folder,
        Cluster(Path(folder) / "cluster", args.nodes, cpus=args.cpus, memory=args.memory) as cluster,
    ):
        signal.signal(signal.SIGINT, lambda *_: None)  # Ctrl-C reaches the command too, which is to answer it
        status = cluster.run(args.command).returncode
    return status if status >= 0 else 128 - status


if __name__ == "__main__":
    sys.exit(main())
