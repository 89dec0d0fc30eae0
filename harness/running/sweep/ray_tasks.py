"""The executor `ray`: each attempt is a Ray Core task, on a node that has the cores and the part of a GPU it needs."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.base.errors import UserError, reason
from harness.running.sweep.attempt import supervise
from harness.running.sweep.contract import Ended, Spec, folder_of

LOOPBACK = "127.0.0.1"
STORE_BYTES = 100 * 2**20  # nothing but exit codes travels through Ray
WINDOW = 1000  # tasks given to Ray at once; waiting for one costs it time for each

# Ray on Linux turns 127.0.0.1 into the machine's address and listens on every interface, unless it believes to be on a
# system where clusters are not supported. It reads this once, when it is imported.
ALONE = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_worker_niceness": "0",  # else 15: a sweep on a machine with other work would hardly get on
}


def prepare(address: str) -> None:
    """Call this before Ray is imported: no usage statistics; and without an address, the loopback address only."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    if not address:
        os.environ.update(ALONE)


def _reach(address: str) -> None:
    """Checks that something listens there; Ray itself takes minutes to notice."""
    if address in ("", "auto"):
        return
    host, colon, port = address.rpartition(":")
    if not colon or not port.isdecimal() or "/" in host:
        raise UserError(f"--ray-address {address}: expected HOST:PORT of the head, or auto")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()
    except (OSError, OverflowError) as error:
        raise UserError(f"--ray-address {address}: nothing answers there: {error}") from None


class RayExecutor:
    """Ray schedules; it repeats nothing, since the head does."""

    def __init__(self, ray: Any, root: Path, address: str = "", cores: int | None = None) -> None:
        """Joins the cluster at `address`, or starts Ray on this machine, to be reached from this machine only.

        Args:
            cores: runs on this machine at once, without an address; default as many as it has cores.

        Raises:
            UserError: no Ray answers at the address, or Ray does not keep to the loopback address (see `prepare`).
        """
        self._ray, self._root = ray, root
        _reach(address)
        here = {"_node_ip_address": LOOPBACK, "include_dashboard": False, "object_store_memory": STORE_BYTES}
        options = {} if address else here | {"num_cpus": cores}
        try:
            ray.init(address=address or "local", log_to_driver=False, logging_level="ERROR", **options)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UserError(f"--ray-address {address or 'none'}: no Ray there: {reason(error)[:200]}") from None
        if not address and ray.util.get_node_ip_address() != LOOPBACK:
            ray.shutdown()
            raise UserError(f"--executor ray: this Ray does not keep to {LOOPBACK}; start one yourself: --ray-address")
        self._task = ray.remote(max_retries=0)(supervise)
        self._under_way: dict[Any, str] = {}

    @property
    def gpus(self) -> float:
        """GPUs of the cluster as it is now."""
        return float(self._ray.cluster_resources().get("GPU", 0))

    @property
    def cores(self) -> int:
        """Most cores that a node offers, and so runs that share it."""
        offered = [node["Resources"].get("CPU", 0) for node in self._ray.nodes() if node["Alive"]]
        return max(1, int(max(offered, default=1)))

    def room(self) -> int:
        """Ray has a queue of its own, which is kept short."""
        return WINDOW - len(self._under_way)

    def submit(self, specs: Sequence[Spec]) -> bool:
        """Gives them to Ray."""
        for spec in specs:
            share = self._task.options(num_cpus=1, num_gpus=spec.gpus, name=spec.key)
            self._under_way[share.remote(str(folder_of(self._root, spec.key)))] = spec.key
        return True

    def ended(self, timeout: float) -> list[Ended]:
        """Those that are over, at least one unless the time is."""
        references = list(self._under_way)
        if not self._ray.wait(references, timeout=timeout)[0]:
            return []
        over, _ = self._ray.wait(references, num_returns=len(references), timeout=0)
        return [self._ended(reference) for reference in over]

    def _ended(self, reference: Any) -> Ended:
        key = self._under_way.pop(reference)
        try:
            return Ended(key, self._ray.get(reference))
        except self._ray.exceptions.RayError as error:
            return Ended(key, None, f"Ray lost it ({type(error).__name__})")

    def close(self) -> None:
        """Leaves the cluster, which ends our tasks; Ray that was started here ends with it."""
        self._ray.shutdown()
