"""A Slurm cluster of two nodes on this machine's loopback: daemons, accounting and all, in a folder of its own."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

PROGRAMS = ("munged", "mariadbd", "mariadb-install-db", "mariadb", "slurmdbd", "slurmctld", "slurmd", "sbatch", "sacct")
NODES = ("n1", "n2")

SLURM = """
ClusterName=loopback
SlurmctldHost={host}(127.0.0.1)
SlurmctldPort={ctld}
SlurmUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket,cred_expire=5
AccountingStorageType=accounting_storage/slurmdbd
AccountingStorageHost=127.0.0.1
AccountingStoragePort={dbd}
AccountingStoragePass={folder}/munge.socket
JobAcctGatherType=jobacct_gather/none
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/%n.log
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
MpiDefault=none
SelectType=select/cons_tres
SelectTypeParameters=CR_CPU
SchedulerParameters=batch_sched_delay=0,sched_min_interval=100000
SlurmdTimeout=5
MessageTimeout=5
ReturnToService=2
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={n1} CPUs=1
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={n2} CPUs=1
PartitionName=main Nodes=n1,n2 Default=YES MaxTime=INFINITE State=UP
"""

ACCOUNTING = """
AuthType=auth/munge
AuthInfo=socket={folder}/munge.socket
DbdHost={host}
DbdAddr=127.0.0.1
DbdPort={dbd}
SlurmUser=root
LogFile={folder}/slurmdbd.log
PidFile={folder}/slurmdbd.pid
StorageType=accounting_storage/mysql
StorageHost=127.0.0.1
StoragePort={sql}
StorageUser=slurm
StoragePass=slurm
StorageLoc=accounts
"""

USER = "CREATE USER slurm@'127.0.0.1' IDENTIFIED BY 'slurm'; GRANT ALL ON accounts.* TO slurm@'127.0.0.1';"


def why_there_is_none() -> str:
    """What is missing for a cluster; nothing if one can be started."""
    missing = [name for name in PROGRAMS if _program(name) is None]
    if missing:
        return f"no Slurm cluster can be started here: {', '.join(missing)} not installed"
    return "" if os.geteuid() == 0 else "no Slurm cluster can be started here: that takes root"


class SlurmCluster:
    """Two nodes with one processor each. Commands find it by the variable SLURM_CONF."""

    def __init__(self, folder: Path) -> None:
        self._folder, self._daemons = folder, dict[str, subprocess.Popen[bytes]]()
        host = socket.gethostname().split(".")[0]
        names = ("ctld", "dbd", "sql", *NODES)
        self._names = {"folder": str(folder), "host": host, **dict(zip(names, map(str, _free_ports(5)), strict=True))}

    def start(self) -> None:
        """Starts everything, and waits until both nodes take jobs."""
        folder, names = self._folder, self._names
        (folder / "state").mkdir(parents=True)
        (folder / "slurm.conf").write_text(SLURM.format(**names))
        (folder / "slurmdbd.conf").write_text(ACCOUNTING.format(**names))
        (folder / "slurmdbd.conf").chmod(0o600)
        (folder / "munge.key").write_bytes(os.urandom(128))
        (folder / "munge.key").chmod(0o400)
        files = {"key-file": "key", "socket": "socket", "pid-file": "pid", "log-file": "log", "seed-file": "seed"}
        munge = [f"--{option}={folder}/munge.{end}" for option, end in files.items()]
        self._start("munged", "munged", "--foreground", "--force", *munge)
        database = [f"--datadir={folder}/sql", f"--socket={folder}/sql.socket"]
        _run("mariadb-install-db", "--no-defaults", "--user=root", f"--datadir={folder}/sql", "--skip-test-db")
        options = [f"--port={names['sql']}", "--bind-address=127.0.0.1", "--user=root"]
        self._start("sql", "mariadbd", "--no-defaults", *database, *options)
        _until(lambda: _run("mariadb", "--no-defaults", database[1], "--execute", USER), "the database answers")
        self._start("slurmdbd", "slurmdbd", "-D")
        _until(lambda: _run("sacctmgr", "--immediate", "list", "cluster"), "the accounting answers")
        self._start("slurmctld", "slurmctld", "-D")
        for node in NODES:
            self.add(node)
        _until(lambda: _run("srun", "--nodes=2", "true"), "both nodes take jobs")

    def add(self, node: str) -> None:
        """Starts the daemon of a node."""
        self._start(node, "slurmd", "-D", "-N", node)

    def remove(self, node: str) -> None:
        """As when its power is cut: its daemon and everything that runs there is gone."""
        its = f"SLURMD_NODENAME={node}".encode()
        inside = [process for process in _processes() if its in _read(process, "environ").split(b"\0")]
        around = {_parent(process) for process in inside} - {1}
        for process in [self._daemons.pop(node).pid, *around, *inside]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)

    def stop(self) -> None:
        """Ends all daemons, the last one first."""
        for daemon in reversed(self._daemons.values()):
            daemon.terminate()
            try:
                daemon.wait(20)
            except subprocess.TimeoutExpired:
                daemon.kill()

    def _start(self, name: str, program: str, *arguments: str) -> None:
        command = [_program(program) or program, *arguments]
        with open(self._folder / f"{name}.out", "ab") as out:
            self._daemons[name] = subprocess.Popen(command, stdout=out, stderr=out, start_new_session=True)


@contextlib.contextmanager
def slurm_cluster(folder: Path) -> Iterator[SlurmCluster]:
    """A cluster that commands of this process find."""
    cluster = SlurmCluster(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SLURM_CONF", str(folder / "slurm.conf"))
        try:
            cluster.start()
            yield cluster
        finally:
            cluster.stop()


def _program(name: str) -> str | None:
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:/usr/sbin")  # where Debian has daemons


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in sockets]


def _run(*command: str) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=30, check=False).returncode == 0
    except subprocess.TimeoutExpired:
        return False


def _until(condition: Callable[[], bool], what: str, seconds: float = 90.0) -> None:
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, f"it did not come to this: {what}"
        time.sleep(0.2)


def _processes() -> list[int]:
    return [int(path.name) for path in Path("/proc").glob("[0-9]*")]


def _read(process: int, name: str) -> bytes:
    try:
        return Path(f"/proc/{process}/{name}").read_bytes()
    except OSError:
        return b""


def _parent(process: int) -> int:
    return int((_read(process, "stat").rpartition(b")")[2].split() or [b"", b"1"])[1])
