"""Plans: what is counted without running, what is refused, and that nothing is started."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask
import distributed
import numpy as np
import pytest

import netflixdask as nd
from netflixdask import plan as plans
from netflixdask.cli.app import run
from netflixdask.cluster import sound
from netflixdask.errors import ConfigError, InputError, RoomError
from netflixdask.flow import plan_flow
from netflixdask.mapreduce import Key, MapReduce, SequentialEngine, count_tasks
from netflixdask.mapreduce import run as run_stage
from netflixdask.models.plan import takers
from netflixdask.plan import Machines, Plan, Rates, Step, machines_of
from netflixdask.plan.machines import LEAST_ROOM
from netflixdask.plan.rates import write_rates
from netflixdask.progress import quiet
from netflixdask.stages.similarity.bands import popularity
from netflixdask.stages.similarity.lists import ListForm, make_lists
from netflixdask.stages.similarity.plan import expected_summary
from netflixdask.stages.similarity.values import ValueBlock
from netflixdask.store.build import plan_rows
from netflixdask.store.build.plan import line_bytes, shuffle_of
from netflixdask.store.readers.base import SourceFile
from netflixdask.store.shape import Shape

ONE = Machines("laptop", 1, 2, 4_000_000_000)


class Keyed(MapReduce[int, int]):
    """Some keys of which every map emits all."""

    name = "keyed"

    def __init__(self, n: int) -> None:
        self.n = n

    def keys(self) -> list[Key]:
        return [(i,) for i in range(self.n)]

    def for_keys(self, keys: Any) -> Keyed:
        return self

    def map_partition(self, blocks: Any) -> dict[Key, int]:
        return {key: sum(blocks) for key in self.keys()}

    def combine(self, a: int, b: int) -> int:
        return a + b

    def finalize(self, key: Key, acc: int) -> int:
        return acc


class Counting(SequentialEngine):
    """Counts what is submitted, for some number of workers."""

    def __init__(self, n_workers: int) -> None:
        super().__init__()
        self.n_workers = n_workers
        self.n = 0

    def submit(self, fn: Any, *args: Any, **kwargs: Any) -> Any:
        self.n += 1
        return super().submit(fn, *args, **kwargs)

    def put(self, value: Any, *, name: str) -> Any:
        self.n += 1
        return value


@pytest.mark.parametrize("n_workers", [1, 3])
@pytest.mark.parametrize("n_keys", [1, 2, 5])
@pytest.mark.parametrize("n_partitions", [1, 7, 70])
@pytest.mark.parametrize(("n_maps", "groups"), [(None, None), (9, None), (2, 2), (64, 5)])
def test_tasks_are_counted_as_they_are_submitted(
    n_workers: int, n_keys: int, n_partitions: int, n_maps: int | None, groups: int | None
) -> None:
    engine = Counting(n_workers)
    run_stage(
        Keyed(n_keys), list(range(n_partitions)), engine=engine, n_maps=n_maps, key_groups=groups
    )
    wanted = count_tasks(
        n_keys, n_partitions, n_workers=n_workers, n_maps=n_maps, key_groups=groups
    )
    assert abs(wanted - engine.n) <= (n_partitions if groups and groups > 1 else 0)


@pytest.mark.parametrize("dense", [False, True])
def test_expected_work_of_pairs_is_that_of_independent_ratings(dense: bool) -> None:
    rng = np.random.default_rng(5)
    n_users, n_items = 3_000, 700
    often = np.linspace(1, 0, n_items) ** 3 * np.linspace(1, 0.05, n_users)[:, None] ** 2
    mask = rng.random((n_users, n_items)) < often
    counts = mask.sum(0)
    order = popularity(counts)
    place = np.empty(n_items, np.int32)
    place[order] = np.arange(n_items)
    indptr = np.concatenate([[0], np.cumsum(mask.sum(1))]).astype(np.int64)
    src = np.nonzero(mask)[1].astype(np.int32)
    block = ValueBlock(indptr, src, np.ones(len(src), np.uint8))
    found = make_lists(block, place, ListForm(5), dense).summary
    shape = Shape(mask.sum(1), counts, {"user": [len(src)], "item": [len(src)]})
    planned = expected_summary(shape, ListForm(5), counts[order], dense)
    assert planned.work.sum(0) == pytest.approx(found.work.sum(0), rel=0.2)
    assert planned.groups.sum() == pytest.approx(found.groups.sum(), rel=0.2)
    assert (planned.groups.sum() > 0) == dense


def test_machines_are_known_without_a_cluster() -> None:
    cores = machines_of(None).n_threads
    assert machines_of("laptop") == Machines("laptop", 1, cores, machines_of("laptop").memory_limit)
    assert machines_of("laptop:3").n_workers == 3
    assert machines_of("sequential").memory_limit == 0
    assert str(Machines("laptop:2", 2, 2, 3_000_000_000)) == (
        "laptop:2: 2 workers, 2 threads, 3.0 GB a worker"
    )
    with pytest.raises(ConfigError, match=r"expected laptop"):
        machines_of("laptops")


def test_machines_of_a_cluster_file_that_is_not_up(tmp_path: Path) -> None:
    def of(text: str) -> Machines:
        (tmp_path / "lab.toml").write_text(text)
        return machines_of(str(tmp_path / "lab.toml"))

    ssh = 'kind = "ssh"\nhosts = ["127.0.0.1"]\n'
    found = of(ssh + 'workers = 4\nthreads = 8\nmemory = "16GB"\n')
    assert (found.n_workers, found.n_threads, found.memory_limit) == (4, 32, 16_000_000_000)
    assert of(ssh + "threads = 8\n").memory_limit == 0
    with pytest.raises(ConfigError, match=r"threads is not given"):
        of(ssh)
    laptop = of('kind = "laptop"\nworkers = 2\nthreads = 3\nmemory = "1GB"\n')
    assert (laptop.n_workers, laptop.n_threads, laptop.memory_limit) == (2, 6, 1_000_000_000)
    with pytest.raises(ConfigError, match=r"none.toml"):
        machines_of(str(tmp_path / "none.toml"))


@pytest.mark.distributed
def test_machines_of_a_running_scheduler() -> None:
    with nd.open_client("threads", quiet=True, memory_limit="1GB") as client:
        found = machines_of(client.scheduler.address)
        assert (found.n_workers, found.memory_limit) == (1, 1_000_000_000)


def test_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    step = Step("als", memory=9_000_000_000, least=5_000_000_000, smaller="use fewer factors")
    with pytest.raises(
        RoomError,
        match=r"^als: needs about 5\.0 GB of memory at a time on a worker, and of the 4\.0 GB of "
        r"one 2\.9 GB are for that \(laptop: .*\); nothing was started: use fewer factors$",
    ):
        Plan("fit als", (step,), ONE).check()
    Plan("fit als", (Step("als", memory=9_000_000_000, least=1),), ONE).check()  # is spilled
    for least, fits in ((ONE.most, True), (ONE.most + 1, False)):
        assert Plan("fit als", (Step("als", least=least),), ONE).problems() == [] or not fits
        assert (
            Plan("fit als", (Step("als", least=least),), Machines("free", 1, 2, 0)).check() is None
        )
    free = shutil.disk_usage(tmp_path).free
    big = Step("ingest", disk=free, scratch=free)
    with pytest.raises(RoomError, match=rf"^{tmp_path}/a/b: ingest needs about .* of disk, and "):
        Plan("ingest", (big,), ONE, tmp_path / "a" / "b").check()
    Plan("ingest", (big,), ONE).check()


def test_what_a_worker_holds_anyway_and_cannot_use_is_no_room() -> None:
    on = Machines("laptop:2", 2, 2, 600_000_000)
    assert on.most == round(0.8 * 600e6) - sound.IDLE
    assert LEAST_ROOM < on.room == round(0.7 * 600e6) - sound.IDLE < on.most
    with dask.config.set({"distributed.worker.memory.pause": False}):
        assert on.most == 600_000_000 - sound.IDLE
    tiny = Machines("laptop", 1, 1, 400_000_000)
    assert (tiny.room, tiny.most) == (LEAST_ROOM, 0)
    # 230 million ratings on two workers that small were paused for good.
    (step,) = plan_rows(230_000_000, 400_000, 17_770, on, parse="parse")
    (said,) = Plan("ingest", (step,), on).problems()
    assert "ingest: needs about" in said
    assert "of the 600.0 MB of one 155.0 MB are for that" in said
    assert "lower --set block_ratings=" in said
    large = Machines("laptop:2", 2, 2, 1_000_000_000)
    (step,) = plan_rows(230_000_000, 400_000, 17_770, large, parse="parse")
    assert Plan("ingest", (step,), large).problems() == []


def test_runs_go_to_disk_where_the_workers_cannot_hold_them() -> None:
    rows, block = 50_000_000, 4_000_000
    free, small = Machines("free", 1, 2, 0), Machines("small", 1, 2, 1_000_000_000)
    assert not shuffle_of(rows, block, 5_000_000_000, free).on_disk
    assert shuffle_of(rows, block, 5_000_000_000, small).on_disk
    assert not shuffle_of(rows // 10, block, 5_000_000_000, small).on_disk


def test_totals_and_times() -> None:
    rates = Rates({"count": 100.0}, "here")
    a = Step("a", rows=3, tasks=2, memory=5, moved=7, disk=1, work={"count": 1000.0})
    b = Step("b", rows=9, tasks=1, memory=4, moved=1, disk=1, work={"count": 500.0}, parallel=1)
    plan = Plan("x", (a, b), ONE, rates=rates)
    total = plan.total
    assert (total.rows, total.tasks, total.memory, total.moved, total.disk) == (9, 3, 5, 8, 2)
    assert plan.seconds == pytest.approx(1000 / 200 + 500 / 100, abs=0.2)
    assert [row[0] for row in plan.rows()] == ["a", "b", "all"]
    assert json.loads(json.dumps(plan.to_dict()))["total"]["tasks"] == 3


def test_rates_of_this_machine_come_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shipped = plans.load_rates()
    assert all(rate > 0 for rate in shipped.values.values())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = write_rates({"count": 12345.0}, "by hand")
    found = plans.load_rates()
    assert (found["count"], found["pairs"], found.source) == (12345, shipped["pairs"], str(path))
    path.write_text("[rates]\ncount = -1\n")
    with pytest.raises(ConfigError, match=r"cannot be read as rates .* doctor --rates"):
        plans.load_rates()


def test_rows_are_estimated_from_lines(tmp_path: Path) -> None:
    file = tmp_path / "wide.csv"
    file.write_text("user_id,item_id,rating\n" + f"{'u' * 40},{'i' * 40},5\n" * 1000)
    assert line_bytes([SourceFile(str(file), size=file.stat().st_size)]) == 84


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    base = tmp_path_factory.mktemp("plan")
    with nd.open_client("sequential"), quiet():
        nd.synth(base / "raw", n_ratings=20_000, n_users=500, n_items=100, layout="netflix")
        store = nd.ingest(base / "raw", base / "store")
        nd.ALS(n_factors=4, epochs=1).fit(store).save(base / "als")
    (base / "new.csv").write_text("user_id,item_id,rating\n1,1,5\n")
    (base / "folds").mkdir()
    (base / "folds" / "u.item").write_text("1|A Film (1990)|||\n")
    for fold in range(1, 6):
        for part in ("base", "test"):
            (base / "folds" / f"u{fold}.{part}").write_text("1\t1\t3\t874965758\n" * 1000)
    return base


VERBS: dict[str, str] = {
    "ingest": "ingest {base}/raw {out}",
    "synth": "synth {out} --ratings 50000 --users 900 --items 200 --layout netflix",
    "synth store": "synth {out} --ratings 50000 --users 900 --items 200",
    "stats": "stats {base}/store {out}",
    "split": "split {base}/store {out} --set how=kfold",
    "similarity": "similarity {base}/store {out}",
    "residual": "similarity {base}/store {out} --measure residual",
    "occurring": "similarity {base}/store {out} --candidates occurring",
    "canopy": "canopy {base}/store {out}",
    "hadoop": "canopy {base}/store {out} --mode hadoop",
    "transpose": "transpose {base}/store {out}",
    "user-neighbors": "user-neighbors {base}/store --out {out}",
    **{f"fit {name}": f"fit {name} {{base}}/store {{out}}" for name in nd.models.MODELS},
    "fit folds": "fit als {base}/store {out} --folds 3",
    "fit joint": "fit item-knn {base}/store {out} --set weights=joint",
    "fit routed": "fit als {base}/store {out} --set exchange=routed",
    "fit ranged": "fit als {base}/store {out} --set exchange=ranged --set validation=0.1",
    "tune": "tune als {base}/store --out {out}",
    "evaluate": "evaluate {base}/als",
    "recommend": "recommend {base}/als --out {out}",
    "predict": "predict {base}/als --out {out}",
    "fold-in": "fold-in {base}/als {base}/new.csv {out}",
    "update": "update {base}/als {base}/store {out} --epochs 1",
    "run": "run quickstart --workdir {out}",
    "run canopies": "run canopy_lab --workdir {out}",
    "run canopies of a store": "run canopy_lab --workdir {out} --set store={base}/store",
    "run neighbours": "run neighbors_lab --workdir {out}",
    "run neighbours of a file": "run neighbors_lab --workdir {out} --set source={base}/new.csv",
    "run neighbours of folds": "run neighbors_lab --workdir {out} --set source={base}/folds",
    "run prize": "run netflix_prize --workdir {out} --set source={base}/raw",
}


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_plans_and_starts_nothing(
    verb: str,
    made: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def started(*_: Any, **__: Any) -> None:
        raise AssertionError("a client was started")

    monkeypatch.setattr(distributed, "Client", type("NoClient", (), {"__init__": started}))
    before = sorted(made.rglob("*"))
    words = VERBS[verb].format(base=made, out=tmp_path / "out").split()
    assert run([*words, "--plan", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert sorted(made.rglob("*")) == before
    assert list(tmp_path.iterdir()) == []
    assert shown["problems"] == []
    assert shown["steps"]
    total = shown["total"]
    assert total["seconds"] > 0
    assert total["rows"] > 0
    assert total["memory_bytes"] > 0
    assert total["tasks"] > 0 or verb == "fold-in"
    assert total["disk_bytes"] > 0
    assert run([*words, "--plan"]) == 0
    assert "nothing was started" in capsys.readouterr().out


def test_a_plan_that_does_not_fit_says_so(
    made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small: Callable[[Any], Machines] = lambda _: Machines("laptop", 1, 2, 1_000)  # noqa: E731
    monkeypatch.setattr("netflixdask.cli.plan.machines_of", small)
    assert run(["stats", f"{made}/store", f"{tmp_path}/out", "--plan"]) == 1
    shown = capsys.readouterr()
    assert "plan of stats" in shown.out
    assert "error: stats: needs about" in shown.err


def test_a_flow_takes_what_is_there(made: Path, tmp_path: Path) -> None:
    (tmp_path / ".steps").mkdir()
    (tmp_path / ".steps" / "store.json").write_text("{}")
    shutil.copytree(made / "store", tmp_path / "store")
    found = plan_flow("quickstart", tmp_path, ONE)
    assert found.notes == ("taken for complete: store",)
    n = nd.open_store(made / "store").n_ratings
    assert next(step.rows for step in found.steps if step.name == "stats") == n


def test_a_flow_without_a_plan_says_what_is_missing(tmp_path: Path) -> None:
    mine = tmp_path / "mine.py"
    mine.write_text(
        "from netflixdask.config import Config\nfrom netflixdask.flow import Flow\n\n\n"
        "class MineConfig(Config):\n    pass\n\n\n"
        "def main(flow: Flow, config: MineConfig) -> None:\n    pass\n"
    )
    with pytest.raises(InputError, match=r"has no plan\(flow: FlowPlan, config\)"):
        plan_flow(str(mine), tmp_path, ONE)


@pytest.mark.parametrize(
    ("n_workers", "seconds", "size", "expected"),
    [
        (1, 100.0, 10**6, 0),  # nobody else is there
        (4, 100.0, 10**6, 3),  # a moment's sending before seconds of work
        (4, 0.01, 10**9, 0),  # seconds of sending before a moment's work
        (2, 0.0, 0, 0),
    ],
)
def test_a_side_is_sent_to_workers_that_have_time_for_it(
    n_workers: int, seconds: float, size: int, expected: int
) -> None:
    on = Machines("laptop", n_workers, n_workers, 0)
    assert takers(8, seconds, size, on) == expected


def test_between_the_two_some_take_part() -> None:
    on = Machines("laptop", 4, 4, 0)
    assert 0 < takers(8, 1.0, 60_000_000, on) < 3
