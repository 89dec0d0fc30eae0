"""The executor `ray`: each attempt is a Ray Core task, on whatever node has the cores and the part of a GPU it needs."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from harness.errors import UserError
from harness.sweep.attempt import supervise
from harness.sweep.contract import Ended, Spec, folder_of

LOOPBACK = "127.0.0.1"
STORE_BYTES = 100 * 2**20  # nothing but exit codes travels through Ray
WINDOW = 1000  # tasks given to Ray at once; waiting for one costs it time for each


class RayExecutor:
    """Ray schedules; it repeats nothing, since the head does."""

    def __init__(self, ray: Any, root: Path, address: str = "") -> None:
        """Joins the cluster at `address`, or starts Ray on this machine, to be reached from this machine only.

        Raises:
            UserError: nothing answers at the address.
        """
        self._ray, self._root = ray, root
        quiet = {"log_to_driver": False, "logging_level": "ERROR"}
        try:
            if address:
                ray.init(address=address, **quiet)
            else:
                ray.init(
                    address="local",
                    _node_ip_address=LOOPBACK,
                    include_dashboard=False,
                    object_store_memory=STORE_BYTES,
                    **quiet,
                )
        except (ConnectionError, ValueError, RuntimeError) as error:
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"--ray-address {address or 'none'}: no Ray there: {reason}") from None
        self._task = ray.remote(max_retries=0)(supervise)
        self._queue: deque[Spec] = deque()
        self._under_way: dict[Any, str] = {}

    @property
    def gpus(self) -> float:
        """GPUs of the cluster as it is now."""
        return float(self._ray.cluster_resources().get("GPU", 0))

    def submit(self, specs: Sequence[Spec]) -> None:
        """Queues them."""
        self._queue.extend(specs)
        self._hand_over()

    def _hand_over(self) -> None:
        while self._queue and len(self._under_way) < WINDOW:
            spec = self._queue.popleft()
            share = self._task.options(num_cpus=spec.cpus, num_gpus=spec.gpus, name=spec.key)
            self._under_way[share.remote(str(folder_of(self._root, spec.key)))] = spec.key

    def ended(self, timeout: float) -> list[Ended]:
        """Those that are over, at least one unless the time is."""
        references = list(self._under_way)
        if not self._ray.wait(references, timeout=timeout)[0]:
            return []
        over, _ = self._ray.wait(references, num_returns=len(references), timeout=0)
        found = [self._ended(reference) for reference in over]
        self._hand_over()
        return found

    def _ended(self, reference: Any) -> Ended:
        key = self._under_way.pop(reference)
        try:
            return Ended(key, self._ray.get(reference))
        except self._ray.exceptions.RayError as error:
            return Ended(key, None, f"Ray lost it ({type(error).__name__})")

    def close(self) -> None:
        """Leaves the cluster, which ends our tasks; Ray that was started here ends with it."""
        self._ray.shutdown()
