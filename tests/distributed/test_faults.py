"""Faults of a cluster of processes: the same result, or one sentence that says what to do."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from distributed import Client

import netflixdask as nd
from netflixdask.cluster import sound
from netflixdask.errors import ClusterError, StageError
from netflixdask.mapreduce import DaskEngine, faults
from netflixdask.progress import quiet
from netflixdask.store.clean import clean_store
from tests.hosts import Hosts, hosts
from tests.tables import differences, leftovers, pickles
from tests.waiting import until

pytestmark = [pytest.mark.slow, pytest.mark.distributed, pytest.mark.timeout(600)]

ENDS_WITHIN = 30  # seconds from a fault that is seen at once to the end of the command


@pytest.fixture
def two(tmp_path: Path) -> Iterator[Hosts]:
    """A scheduler and two workers."""
    folder = tmp_path / "hosts"
    folder.mkdir()
    with hosts(folder) as found:
        found.worker("a")
        found.worker("b")
        found.wait_for(2)
        yield found


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> nd.RatingsStore:
    folder = tmp_path_factory.mktemp("faults")
    size = {"n_ratings": 400_000, "n_users": 8_000, "n_items": 900}
    with nd.open_client("sequential"), quiet():
        nd.synth(folder / "raw", layout="netflix", **size)
        return nd.ingest(folder / "raw", folder / "store", block_ratings=50_000)


def start(where: Hosts, cwd: Path, *arguments: str) -> subprocess.Popen[str]:
    """Start a command on the cluster."""
    return subprocess.Popen(
        [sys.executable, "-m", "netflixdask", *arguments, "--cluster", where.address],
        cwd=cwd,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
    )


def sleep(seconds: float, *_: Any) -> float:
    time.sleep(seconds)
    return seconds


# --- the scheduler ---------------------------------------------------------------------------


FLOW = (
    *("run", "quickstart", "--workdir", "w"),
    *("--set", "n_ratings=120000", "--set", "n_users=3000", "--set", "n_items=400"),
    *("--set", "n_factors=32"),
)


def test_a_killed_scheduler_ends_a_flow_and_the_same_command_goes_on(
    two: Hosts, tmp_path: Path
) -> None:
    process = start(two, tmp_path, *FLOW)
    kept = tmp_path / "w" / "model-als.checkpoint" / "manifest.json"
    until(kept.exists, process=process, pause=0.002)
    began = time.monotonic()
    two.kill("scheduler")
    out, err = process.communicate(timeout=ENDS_WITHIN)
    assert time.monotonic() - began < ENDS_WITHIN
    assert process.returncode == 1
    assert "Traceback" not in err
    assert "ERROR" not in err
    *_, error, again = err.splitlines()
    said = rf"error: als: the scheduler at {two.address} is gone \(.*a fit goes on from its check"
    assert re.match(said, error)
    assert again == f"again: netflixdask {' '.join(FLOW)} --cluster {two.address}"
    assert not (tmp_path / "w" / "model-als").exists()
    assert pickles(tmp_path / "w") == []  # the checkpoint, what the stages spilled
    assert leftovers(tmp_path / "w") == []
    for name in "ab":
        two.processes[name].wait(timeout=60)  # workers end without their scheduler
        del two.processes[name]

    two.scheduler()
    two.worker("c")
    two.wait_for(1)
    process = start(two, tmp_path, *FLOW)
    out, err = process.communicate(timeout=240)
    assert process.returncode == 0, err
    assert re.search(r"^store +complete, skipped$", err, re.M)
    assert re.search(r"^.*/model-als\.checkpoint: going on after epoch 5$", err, re.M)
    assert "als" in out
    assert not kept.parent.exists()
    whole = tmp_path / "whole"
    whole.mkdir()
    command = [sys.executable, "-m", "netflixdask", *FLOW, "--cluster", "sequential", "--quiet"]
    assert subprocess.run(command, cwd=whole, capture_output=True, check=False).returncode == 0
    assert differences(whole / "w", tmp_path / "w") == []


def test_a_scheduler_that_is_stopped_is_not_waited_for(
    two: Hosts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(faults, "SCHEDULER_TIMEOUT", 3.0)
    monkeypatch.setattr(faults, "PULSE", 0.5)
    (process,) = two.tree("scheduler")
    with nd.open_client(two.address, quiet=True) as client:
        engine = DaskEngine(client)
        threading.Timer(1.0, process.suspend).start()
        began = time.monotonic()
        said = r"^similarity: the scheduler at .* is gone \(it has not answered for 3 s\)"
        with pytest.raises(ClusterError, match=said), engine.stage("similarity"), quiet():
            engine.gather([engine.submit(sleep, 60.0, name="sleep")])
        assert time.monotonic() - began < 10
        process.resume()


def test_without_workers_a_run_ends(two: Hosts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(faults, "WORKERS_TIMEOUT", 2.0)
    monkeypatch.setattr(faults, "PULSE", 0.2)
    with nd.open_client(two.address, quiet=True) as client, quiet():
        engine = DaskEngine(client)
        two.kill("a")
        two.kill("b")
        said = rf"^stats: no worker has been at the scheduler {two.address} for 2 s; start some"
        with pytest.raises(ClusterError, match=said), engine.stage("stats"):
            engine.gather([engine.submit(sleep, 0.1, name="sleep")])


def test_workers_whose_memory_stays_full_are_not_waited_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(faults, "WORKERS_TIMEOUT", 2.0)
    monkeypatch.setattr(faults, "PULSE", 0.2)
    with nd.open_client(workers=1, threads=1, memory_limit="1GB", quiet=True) as client, quiet():
        engine = DaskEngine(client)
        said = (
            r"^stats: the memory of all 1 workers has been full for 2 s, so that they take no task "
            r"\(limit of one: 1\.0 GB\); give each more memory .*run the same command again"
        )
        full = [engine.submit(_keep, 870_000_000, name="keep")]
        sums = [engine.submit(_slow_sum, full, i, name="sum", index=i) for i in (1, 2)]
        with pytest.raises(ClusterError, match=said), engine.stage("stats"):
            engine.gather(sums)


# --- workers -----------------------------------------------------------------------------------


def test_a_worker_that_hangs_is_taken_for_dead(store: nd.RatingsStore, tmp_path: Path) -> None:
    """Its tasks go to the other one when the scheduler has not heard of it for its time to live."""
    folder = tmp_path / "hosts"
    folder.mkdir()
    with nd.open_client("sequential"), quiet():
        nd.item_similarity(store, tmp_path / "expected")
    with hosts(folder, DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL="5s") as found:
        found.worker("a")
        found.worker("b")
        found.wait_for(2)
        with nd.open_client(found.address, quiet=True) as client, quiet():
            engine = DaskEngine(client)
            held = [engine.submit(np.full, 10, i, name="held", index=i) for i in range(8)]
            engine.gather(held)
            worker = found.tree("a")[-1]
            worker.suspend()
            began = time.monotonic()
            sums = [engine.submit(np.sum, one, name="sum", index=i) for i, one in enumerate(held)]
            assert engine.gather(sums) == [10 * i for i in range(8)]
            lost = time.monotonic() - began
            nd.item_similarity(store, tmp_path / "found")
    assert lost > 2
    assert differences(tmp_path / "expected", tmp_path / "found") == []


def test_workers_that_join_and_leave_change_nothing(store: nd.RatingsStore, tmp_path: Path) -> None:
    """All workers at the start are gone at the end, of one of them even its process."""

    def work(folder: Path) -> None:
        for number in range(2):
            nd.item_similarity(store, folder / f"neighbors-{number}", pairs=True)
            model = nd.ALS(n_factors=24, epochs=8, checkpoint_every=3)
            model.fit(store, rng=number).save(folder / f"als-{number}")

    for name in ("hosts", "expected", "found"):
        (tmp_path / name).mkdir()
    with nd.open_client("sequential"), quiet():
        work(tmp_path / "expected")
    with hosts(tmp_path / "hosts") as found:
        found.worker("w0")
        found.wait_for(1)
        done = threading.Event()
        seen = 0

        def come_and_go() -> None:
            nonlocal seen
            while not done.is_set() and seen < 12:
                found.worker(f"w{seen + 1}")
                found.wait_for(2)
                if seen % 2:
                    found.kill(f"w{seen}")
                else:
                    found.retire(f"w{seen}")
                seen += 1
            done.wait()  # what a thread has started ends with it

        thread = threading.Thread(target=come_and_go)
        thread.start()
        with nd.open_client(found.address, quiet=True), quiet():
            try:
                work(tmp_path / "found")
            finally:
                done.set()
                thread.join()
    assert seen >= 2
    assert differences(tmp_path / "expected", tmp_path / "found") == []


def _fill(_: int) -> int:
    held = []
    while True:
        held.append(np.ones(4 << 20))
        time.sleep(0.01)


_KEPT: list[bytearray] = []


def _keep(total: int) -> int:
    """Hold memory that Dask knows nothing of, until the process has so many bytes."""
    n = total - psutil.Process().memory_info().rss
    kept = bytearray(n)
    kept[:: 1 << 12] = b"x" * len(kept[:: 1 << 12])
    _KEPT.append(kept)
    return n


def _slow_sum(given: list[int], i: int) -> int:
    time.sleep(3.0)
    return sum(given) + i


def test_workers_over_their_memory_limit_end_in_one_sentence() -> None:
    with nd.open_client(workers=1, threads=1, memory_limit="600MB", quiet=True) as client:
        engine = DaskEngine(client)
        said = (
            r"^similarity: task similarity-map 7: 4 workers died on it as it took more than their "
            r"memory limit of 600 MB; give each worker more memory .* or fewer threads, or lower "
            r"what a task needs: list_bytes=; then run the same command again"
        )
        with quiet(), pytest.raises(StageError, match=said):
            with engine.stage("similarity", lower="list_bytes="):
                engine.gather([engine.submit(_fill, 1, name="similarity-map", index=7)])


def test_workers_too_small_for_any_task_are_refused_at_connect(two: Hosts) -> None:
    two.worker("c", "--memory-limit", "400MB")
    two.wait_for(3)
    least = f"expected at least {sound.least_memory() / 1e6:.0f} MB"
    said = rf"^{two.address}: the memory limit of worker c at tcp://\S+ is 400 MB, .*; {least}"
    with pytest.raises(ClusterError, match=said):
        nd.open_client(two.address)
    with pytest.raises(ClusterError, match=rf"^laptop: the memory limit of worker 0 at .*{least}"):
        nd.open_client(workers=1, memory_limit="400MB")


def test_the_least_memory_that_is_asked_for_is_enough(
    store: nd.RatingsStore, tmp_path: Path
) -> None:
    limit = sound.least_memory()
    with nd.open_client(workers=1, threads=1, memory_limit=limit, quiet=True) as client, quiet():
        nd.stats(store, tmp_path / "stats")
        nd.ALS(n_factors=8, epochs=2).fit(store)
        (worker,) = client.scheduler_info()["workers"].values()
        assert worker["status"] == "running"
        assert not client.get_events("worker-restart-memory")


def test_a_worker_whose_disk_is_full_keeps_what_it_cannot_write(tmp_path: Path) -> None:
    """Its local folder has no room for what does not fit in its memory budget."""
    folder = tmp_path / "hosts"
    local = folder / "local-a"
    local.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(local)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False).returncode:
        pytest.skip("no filesystem to fill")
    try:
        with hosts(folder) as found:
            with contextlib.suppress(OSError), (local / "fill").open("wb", buffering=0) as out:
                while True:
                    out.write(b"x" * 4096)
            # Held: more than the 60 % from which a worker writes, and with its code (200 MB) less
            # than the 80 % from which it takes no task.
            found.worker("a", "--memory-limit", "2GB")
            found.wait_for(1)
            with nd.open_client(found.address, quiet=True) as client, quiet():
                engine = DaskEngine(client)
                held = [
                    engine.submit(np.full, 5_000_000, float(i), name="held", index=i)
                    for i in range(31)
                ]
                sums = [
                    engine.submit(np.sum, one, name="sum", index=i) for i, one in enumerate(held)
                ]
                assert engine.gather(sums) == [5e6 * i for i in range(31)]
            assert "No space left on device" in found.log("a")
    finally:
        subprocess.run(["umount", "--lazy", str(local)], check=True)


# --- what workers see ----------------------------------------------------------------------------


def _blind(found: Hosts, name: str, folder: Path) -> None:
    """Start a worker to which a folder looks empty, as on a host without the mount."""
    unshare = shutil.which("unshare")
    if unshare is None or os.geteuid() != 0:
        pytest.skip("no mount namespaces here")
    inside = [unshare, "--mount", "true"]
    if subprocess.run(inside, capture_output=True, check=False).returncode:
        pytest.skip("no mount namespaces here")
    found.worker(name, hidden=folder)


def test_a_worker_that_does_not_see_the_store_is_named(
    store: nd.RatingsStore, two: Hosts, tmp_path: Path
) -> None:
    _blind(two, "c", store.path.parent)
    two.wait_for(3)
    with nd.open_client(two.address, quiet=True), quiet():
        said = rf"^worker c at tcp://\S+ does not see {store.path}; expected the same shared fold"
        for call in (
            lambda: nd.stats(store, tmp_path / "stats"),
            lambda: nd.ALS(n_factors=2).fit(store),
        ):
            with pytest.raises(ClusterError, match=said):
                call()
        raw = store.path.parent / "raw"
        with pytest.raises(ClusterError, match=rf"^worker c at \S+ does not see {raw}"):
            nd.ingest(raw, tmp_path / "store")
        out = store.path.parent / "again"
        with pytest.raises(ClusterError, match=rf"^worker c at \S+ does not see {out}/\.staging-"):
            nd.synth(out, n_ratings=1000)
    assert not (tmp_path / "stats").exists()
    assert not out.exists()


# --- the client ----------------------------------------------------------------------------------


def n_tasks(dask_scheduler: Any) -> int:
    return len(dask_scheduler.tasks)


def test_a_client_that_goes_away_leaves_nothing_at_the_scheduler(
    two: Hosts, tmp_path: Path
) -> None:
    size = ("--ratings", "1500000", "--users", "20000", "--items", "2000", "--layout", "store")
    process = start(two, tmp_path, "synth", "out", *size, "--quiet")
    until(lambda: any(tmp_path.glob("out/.staging-*/gen/by_*/*")), 120, process, pause=0.002)
    process.kill()
    process.communicate()
    with Client(two.address, set_as_default=False) as client:
        until(lambda: client.run_on_scheduler(n_tasks) == 0)
        assert len(client.scheduler_info(n_workers=-1)["workers"]) == 2
        # A task that was running may write one more file; nothing runs after it.
        until(lambda: not any(client.processing().values()))
    assert all(two.processes[name].poll() is None for name in ("scheduler", "a", "b"))
    (staging,) = (tmp_path / "out").iterdir()
    assert staging.name.startswith(".staging-")
    report = clean_store(tmp_path / "out")
    assert [one.name for one in report.removed] == [staging.name]
    assert not (tmp_path / "out").exists()


def test_a_killed_client_of_the_laptop_takes_all_processes_with_it(tmp_path: Path) -> None:
    code = (
        "import time, netflixdask as nd\n"
        "if __name__ == '__main__':\n"
        "    client = nd.open_client('laptop:2', threads=1, quiet=True)\n"
        "    client.submit(time.sleep, 600)\n"
        "    print('ready', flush=True)\n"
        "    time.sleep(600)\n"
    )
    script = tmp_path / "client.py"
    script.write_text(code)
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    tree = psutil.Process(process.pid).children(recursive=True)
    assert len(tree) >= 2
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    assert psutil.wait_procs(tree, timeout=20)[1] == []
