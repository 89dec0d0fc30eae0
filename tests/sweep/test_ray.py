"""What only Ray can lose, a node; and what it must not do, listen to the network unless told to."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

from harness.base.errors import UserError
from harness.running.sweep.head import Summary
from harness.running.sweep.ray_tasks import RayExecutor
from tests.sweep.fakes import drive, spec, starts, table
from tests.sweep.test_contract import ROOT, SMALL, ray_cluster, wait_for

ray = pytest.importorskip("ray", reason="the extra 'ray' is not installed")

LISTENERS = """
import sys
from pathlib import Path
from harness.running.sweep.ray_tasks import RayExecutor, prepare
prepare("")
import ray
executor = RayExecutor(ray, Path("."))
assert ray.get(ray.remote(lambda: 1).remote()) == 1  # so that a worker listens too
sockets = set()
for process in Path("/proc").glob("[0-9]*"):
    try:
        if b"LTBENCH_TEST=listeners" in process.joinpath("environ").read_bytes():
            sockets |= {entry.readlink().name for entry in process.joinpath("fd").iterdir()}
    except OSError:
        continue
for table in ("tcp", "tcp6"):
    for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
            print(fields[1].split(":")[0])
executor.close()
"""


def test_a_node_is_lost_during_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two nodes; the one that is removed has a run under way, which is then done on the other."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    with ray_cluster(1) as cluster:
        lost = cluster.add_node(num_cpus=1, object_store_memory=SMALL["object_store_memory"])
        executor = RayExecutor(ray, tmp_path, cluster.address)
        specs = [spec(tmp_path, f"waiting{number}", "waits") for number in range(2)]
        specs += [spec(tmp_path, f"quick{number}") for number in range(3)]
        found: list[Summary] = []
        head = threading.Thread(target=lambda: found.append(drive(tmp_path, executor, specs)))
        head.start()
        wait_for(lambda: {"waiting0", "waiting1"} <= set(starts(tmp_path)))
        cluster.remove_node(lost)
        wait_for(lambda: "Ray lost it" in (tmp_path / "notes.txt").read_text())
        (tmp_path / "go").touch()
        head.join(60)
        executor.close()
    assert len(found) == 1
    assert len(found[0].done) == len(table(tmp_path)) == 5
    assert sorted(starts(tmp_path).count(f"waiting{number}") for number in range(2)) == [1, 2]


def test_ray_that_is_started_here_listens_on_the_loopback_address_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("LTBENCH_TEST", "listeners")
    command = [sys.executable, "-c", LISTENERS]
    result = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    addresses = result.stdout.split()
    assert len(addresses) >= 4, "the server, the node's two, a worker's"
    assert set(addresses) <= {"0100007F", "0000000000000000FFFF00000100007F", "00000000000000000000000001000000"}


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("127.0.0.1:1", "nothing answers there"),
        ("ray://head:10001", "expected HOST:PORT"),
        ("head", "expected HOST:PORT"),
    ],
)
def test_an_address_without_ray_is_one_line(tmp_path: Path, address: str, reason: str) -> None:
    with pytest.raises(UserError, match=f"--ray-address {address}: {reason}"):
        RayExecutor(ray, tmp_path, address)
