from __future__ import annotations

import datetime as dt
import pickle
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from netflixdask.cluster import open_client
from netflixdask.errors import ConfigError, StoreError
from netflixdask.kernels import synth_text as kernel
from netflixdask.mapreduce import Engine, use_engine
from netflixdask.stages.ingest import ingest
from netflixdask.stages.synth import SynthConfig, synth, synth_source, tables, text, weights
from netflixdask.stages.synth.plan import Generated, plan_of
from netflixdask.stages.synth.source import movie_order
from netflixdask.stages.synth.spill import day_bits, movie_runs, read_run, spill_users
from netflixdask.stages.synth.titles import titles
from netflixdask.store.artifacts import open_artifact
from netflixdask.store.parquet import checksum
from netflixdask.store.ratings import RatingsStore

SMALL = SynthConfig(n_ratings=30_000, n_users=900, n_items=260, seed=5)


@pytest.fixture
def engine() -> Iterator[Engine]:
    with open_client("sequential"), use_engine() as engine:
        yield engine


def generate(config: SynthConfig, target: int = 10**9) -> Generated:
    plan = plan_of(config)
    parts = [plan.generate(a, b) for a, b in plan.ranges(target)]
    return Generated(*(np.concatenate(column) for column in zip(*parts, strict=True)))


def gini(values: np.ndarray) -> float:
    v, n = np.sort(values.astype(float)), len(values)
    return float(2 * np.sum(np.arange(1, n + 1) * v) / (n * v.sum()) - (n + 1) / n)


def test_tables_have_the_marginals_of_the_prize() -> None:
    size = (tables.PRIZE_RATINGS, tables.PRIZE_USERS, tables.PRIZE_ITEMS)
    users, items = tables.user_degrees(*size), tables.item_counts(*size)
    assert users.sum(dtype=np.int64) == items.sum() == tables.PRIZE_RATINGS
    near = {
        "users with one": ((users == 1).sum(), 1_269),
        "users below ten": ((users < 10).sum(), 16_419),
        "sum of squares": ((users.astype(float) ** 2).sum(), 6.4e10),
        "first quartile": (np.quantile(items, 0.25), 192),
        "median": (np.quantile(items, 0.50), 561),
        "third quartile": (np.quantile(items, 0.75), 2_668),
        "gini": (gini(np.concatenate([users, items])), 0.792),
        "heaviest user": (users.max(), 17_653),
        "largest movie": (items.max(), 232_944),
    }
    for name, (found, published) in near.items():
        assert abs(found / published - 1) < 0.02, name
    assert items.min() == 3
    # The weights bring every item to its count although heavy users hold all popular ones.
    found = weights.solve(np.sort(users), np.sort(users), items)
    expected = found.users.size @ weights.held(found.rate, found.item)
    assert np.abs(expected / items - 1).max() < 0.01


def test_days_grow_as_the_prize_did() -> None:
    ends = tables.day_ends(2_243)
    assert np.all(np.diff(ends) > 0)
    assert 0 < ends[0]
    assert ends[-1] < 1
    start = tables.PRIZE_FIRST_DAY
    year_end = (dt.date(2004, 12, 31) - start).days
    assert abs(1 - ends[year_end] - 53_250_395 / 100_480_507) < 1e-12
    assert ends[(dt.date(2001, 12, 31) - start).days] < 0.03


def test_a_twentieth_of_the_prize_has_its_shape() -> None:
    n_users = tables.PRIZE_USERS // 20
    n_ratings = round(tables.PRIZE_RATINGS * n_users / tables.PRIZE_USERS)
    config = SynthConfig(n_ratings=n_ratings, n_users=n_users, n_items=tables.PRIZE_ITEMS, seed=2)
    plan = plan_of(config)
    made = generate(config)
    train = made.label <= 1
    assert train.sum() == n_ratings
    counts = np.bincount(made.item_num[train], minlength=config.n_items)
    assert counts.min() == plan.wanted.min() == 1
    rare = plan.wanted < 16
    assert np.array_equal(counts[rare], plan.wanted[rare])
    deviation = ((counts - plan.wanted) / np.sqrt(plan.wanted))[~rare]
    assert abs(deviation.mean()) < 0.05
    assert 0.8 < deviation.std() < 1.1
    largest = np.argsort(-plan.wanted)[:10]
    assert np.abs(counts[largest] / plan.wanted[largest] - 1).max() < 0.05
    stars = np.bincount(made.rating[train], minlength=6)[1:] / n_ratings
    assert np.abs(stars / np.array(tables.PRIZE_STARS) - 1).max() < 0.02
    labels = np.bincount(made.label, minlength=4)
    assert np.abs(labels[1:] / n_ratings / (1_408_395 / 100_480_507) - 1).max() < 0.02
    days = made.day.astype("M8[D]")
    assert days.min() >= np.datetime64(tables.PRIZE_FIRST_DAY)
    assert days.max() == np.datetime64(tables.PRIZE_LAST_DAY)
    assert abs((days >= np.datetime64("2005-01-01")).mean() - 0.53) < 0.02
    assert made.user_id.max() < tables.PRIZE_LAST_ID / 20 + 6


def test_any_cut_of_the_users_gives_the_same_ratings() -> None:
    whole = generate(SMALL)
    for target in (1, 700, 9_000):
        for a, b in zip(whole, generate(SMALL, target), strict=True):
            assert np.array_equal(a, b)
    plan = plan_of(SMALL)
    held = plan.generate(0, SMALL.n_users, held_only=True)
    for a, b in zip(whole.take(_holdout(whole, plan.n_held)), held, strict=True):
        assert np.array_equal(a, b)
    other = generate(SMALL.model_copy(update={"seed": 6}))
    assert not np.array_equal(other.item_num[:1000], whole.item_num[:1000])


def _holdout(made: Generated, n_held: np.ndarray) -> np.ndarray:
    sizes = np.bincount(made.user_num)
    place = np.arange(len(made.rating)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return place >= np.repeat(sizes - n_held, sizes)


def test_the_last_ratings_of_every_user_are_held_out() -> None:
    plan, made = plan_of(SMALL), generate(SMALL)
    assert np.array_equal(np.bincount(made.user_num), plan.n_total)
    assert np.array_equal(np.bincount(made.user_num[made.label <= 1]), plan.n_train)
    same_user = np.diff(made.user_num) == 0
    assert np.all(np.diff(made.day)[same_user] >= 0)
    held = _holdout(made, plan.n_held)
    assert np.all((made.label > 0) == held)
    pairs = made.user_num.astype(np.int64) * SMALL.n_items + made.item_num
    assert len(np.unique(pairs)) == len(pairs)
    assert set(np.unique(made.label)) == {0, 1, 2, 3}


def test_there_is_something_to_learn() -> None:
    made = generate(SynthConfig(n_ratings=200_000, n_users=2_000, n_items=1_000, seed=1))
    train, probe = made.label == 0, made.label == 1
    stars = made.rating.astype(float)
    mean = stars[train].mean()

    def effect(ids: np.ndarray, rest: np.ndarray, damping: float) -> np.ndarray:
        total = np.bincount(ids[train], rest[train], minlength=ids.max() + 1)
        return (total / (np.bincount(ids[train], minlength=ids.max() + 1) + damping))[ids]

    item = effect(made.item_num, stars - mean, 5.0)
    user = effect(made.user_num, stars - mean - item, 5.0)

    def rmse(prediction: np.ndarray) -> float:
        return float(np.sqrt(np.mean((stars - prediction)[probe] ** 2)))

    alone, movies, both = (
        rmse(np.full(len(stars), mean)),
        rmse(mean + item),
        rmse(mean + item + user),
    )
    assert 1.04 < alone < 1.14
    assert movies < alone - 0.04
    assert 0.85 < both < movies - 0.04


@settings(max_examples=25)
@given(
    n_users=st.integers(10, 200),
    n_items=st.integers(20, 150),
    share=st.floats(0.0, 1.0),
    seed=st.integers(0, 2**63 - 1),
)
def test_every_possible_size_is_met_exactly(
    n_users: int, n_items: int, share: float, seed: int
) -> None:
    low, high = max(n_users, n_items), n_users * n_items // 2
    n_ratings = int(low + share * (high - low))
    config = SynthConfig(n_ratings=n_ratings, n_users=n_users, n_items=n_items, seed=seed)
    made, plan = generate(config, 500), plan_of(config)
    train = made.label <= 1
    assert train.sum() == n_ratings
    assert np.all(np.bincount(made.user_num[made.label == 0], minlength=n_users) >= 1)
    pairs = made.user_num.astype(np.int64) * n_items + made.item_num
    assert len(np.unique(pairs)) == len(pairs)
    assert np.all(np.diff(plan.user_id) > 0)
    assert made.rating.min() >= 1
    assert made.rating.max() <= 5


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"n_items": 5}, "at least 20 items"),
        ({"n_users": 3}, "at least 10 users"),
        ({"n_ratings": 800}, "at least 900, one for each"),
        ({"n_ratings": 200_000}, r"half of the 234,000 pairs"),
        ({"seed": -1}, "expected an integer from 0"),
        ({"last_day": dt.date(1999, 11, 12)}, "at least 30 days"),
        ({"last_day": dt.date(2100, 1, 1)}, "expected days from"),
        ({"n_items": 10_000_000, "n_ratings": 10**9}, "at most 9,999,999"),
    ],
)
def test_impossible_sizes_are_refused(
    change: dict[str, Any], match: str, tmp_path: Path, engine: Engine
) -> None:
    config = SMALL.model_copy(update=change)
    with pytest.raises(ConfigError, match=match):
        synth(tmp_path / "out", config, engine=engine)
    assert not (tmp_path / "out").exists()


def test_titles_are_unique_and_fit_their_file() -> None:
    table = titles(0, (np.arange(60_000) % 12).astype(np.int32), 2005)
    names = table.column("title").to_pylist()
    assert len(set(names)) == 60_000
    assert any("," in name for name in names)
    assert any(not name.isascii() for name in names)
    assert all(name.encode("latin-1") and "\n" not in name for name in names)
    years = table.column("year")
    assert years.null_count == 24
    assert 1890 <= min(y for y in years.to_pylist() if y is not None)
    assert max(y for y in years.to_pylist() if y is not None) == 2005
    assert table.schema.field("year").type == pa.int16()
    assert titles(1, np.zeros(30, np.int32), 1999).column("year").null_count == 1


def test_source_is_small_to_send() -> None:
    source = synth_source(SMALL)
    chunks = source.chunks(40_000)
    assert len(chunks) > 5
    assert max(len(pickle.dumps(chunk)) for chunk in chunks) < 2_000
    rows = [chunk.read().ratings for chunk in chunks]
    assert sum(map(len, rows)) == SMALL.n_ratings
    assert all(r.user_id.dtype == r.item_id.dtype == r.time.dtype == np.int32 for r in rows)
    assert all(r.rating.dtype == np.uint8 for r in rows)


@pytest.fixture(scope="module")
def made_store(tmp_path_factory: pytest.TempPathFactory) -> RatingsStore:
    with open_client("sequential"), use_engine() as engine:
        made = synth(tmp_path_factory.mktemp("synth") / "store", SMALL, engine=engine)
    assert isinstance(made, RatingsStore)
    return made


def test_store_has_holdouts_with_their_ratings(made_store: RatingsStore) -> None:
    assert made_store.holdouts == ["probe", "qualifying", "quiz", "test"]
    probe, qualifying = made_store.holdout("probe"), made_store.holdout("qualifying")
    assert made_store.n_ratings + probe.num_rows == SMALL.n_ratings
    assert probe.column("rating").null_count == 0
    assert qualifying.column("rating").null_count == qualifying.num_rows
    quiz, test = made_store.holdout("quiz"), made_store.holdout("test")
    assert quiz.num_rows + test.num_rows == qualifying.num_rows

    def pairs(table: pa.Table) -> set[tuple[int, int]]:
        return set(
            zip(*(table.column(c).to_pylist() for c in ("user_num", "item_num")), strict=True)
        )

    assert pairs(quiz) | pairs(test) == pairs(qualifying)
    assert not pairs(quiz) & pairs(test)
    assert made_store.n_users == SMALL.n_users
    assert made_store.n_items == SMALL.n_items
    assert made_store.items.column("title").null_count == 0


def judged(store: RatingsStore) -> dict[tuple[int, int], float]:
    """Return the ratings of quiz and test by (user_num, item_num)."""
    known = {}
    for name in ("quiz", "test"):
        columns = (store.holdout(name).column(c) for c in ("user_num", "item_num", "rating"))
        for user, item, stars in zip(*(column.to_pylist() for column in columns), strict=True):
            known[user, item] = stars
    return known


@pytest.mark.parametrize("layout", ["netflix", "tar", "combined"])
def test_text_read_back_is_the_same_store(
    layout: Any, made_store: RatingsStore, tmp_path: Path, engine: Engine
) -> None:
    out = tmp_path / layout
    config = SMALL.model_copy(update={"layout": layout})
    rows = synth(out, config, engine=engine)
    assert isinstance(rows, dict)
    assert rows["training"] == SMALL.n_ratings
    assert rows["probe"] == made_store.holdout("probe").num_rows
    back = ingest(out, tmp_path / "store")
    for by in ("by_user", "by_item"):
        ours = [e.checksum for e in getattr(back.manifest, by)]
        assert ours == [e.checksum for e in getattr(made_store.manifest, by)]
    assert back.items.equals(made_store.items)
    assert back.users.equals(made_store.users)
    assert back.holdout("probe").equals(made_store.holdout("probe"))
    held, asked = back.holdout("qualifying"), made_store.holdout("qualifying")
    assert held.drop_columns("rating").equals(asked.drop_columns("rating"))
    known = judged(made_store)  # which judging.txt holds as well
    pairs = zip(*(asked.column(c).to_pylist() for c in ("user_num", "item_num")), strict=True)
    assert held.column("rating").to_pylist() == [known[pair] for pair in pairs]
    with pytest.raises(StoreError, match="exists already"):
        synth(out, config, engine=engine)
    assert synth(out, config, engine=engine, overwrite=True) == rows


def test_judging_answers_qualifying_line_by_line(
    made_store: RatingsStore, tmp_path: Path, engine: Engine
) -> None:
    out = tmp_path / "text"
    synth(out, SMALL.model_copy(update={"layout": "combined"}), engine=engine)
    asked = (out / "qualifying.txt").read_text().splitlines()
    answers = (out / "judging.txt").read_text().splitlines()
    assert len(asked) == len(answers)
    known = judged(made_store)
    user_num = {u: n for n, u in enumerate(made_store.users.column("user_id").to_pylist())}
    movie = ""
    for question, answer in zip(asked, answers, strict=True):
        if question.endswith(":"):
            movie = question
            assert answer == movie
        else:
            user, day = question.split(",")
            stars, same_day = answer.split(",")
            assert day == same_day
            assert known.pop((user_num[int(user)], int(movie[:-1]) - 1)) == int(stars)
    assert not known


@pytest.mark.parametrize("layout", ["netflix", "tar", "combined"])
def test_the_cut_into_tasks_does_not_show_in_the_text(
    layout: Any, tmp_path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = SMALL.model_copy(update={"layout": layout})
    for name, task_ratings in (("one", 10**9), ("many", 1_500)):
        monkeypatch.setattr(text, "TASK_RATINGS", task_ratings)
        synth(tmp_path / name, config, engine=engine)
    one, many = (open_artifact(tmp_path / name).manifest for name in ("one", "many"))
    assert one.files == many.files
    on_disk = [p for p in (tmp_path / "many").rglob("*") if p.is_file()]
    assert len(on_disk) == len(many.files) + 1  # and the manifest: no piece, no spill file
    for entry in many.files:
        path = tmp_path / "many" / entry.file
        assert (entry.bytes, entry.checksum) == (path.stat().st_size, checksum(path))


def test_runs_of_movies_end_with_their_file() -> None:
    plan = plan_of(SMALL)
    edges, owner = movie_runs(plan, "combined", 10**6)
    assert edges[0] == 0
    assert edges[-1] == SMALL.n_items
    assert owner == [0, 1, 2, 3]
    assert movie_runs(plan, "netflix", 10**6)[0].tolist() == [0, SMALL.n_items]
    edges, owner = movie_runs(plan, "tar", 3_000)
    sizes = np.add.reduceat(plan.wanted, edges[:-1])
    assert len(sizes) == len(owner) == 10
    assert sizes.max() <= 3_000 + plan.wanted.max()


def test_a_run_has_no_more_movies_than_fit_a_word() -> None:
    config = SynthConfig(
        n_ratings=40_000, n_users=500, n_items=30_000, first_day=dt.date(1900, 1, 1)
    )
    assert day_bits(config) == 16
    edges, _ = movie_runs(plan_of(config), "tar", 10**6)
    assert np.diff(edges).max() == 2**11


def test_spilled_ratings_come_back_by_movie(tmp_path: Path) -> None:
    plan = plan_of(SMALL)
    edges, _ = movie_runs(plan, "tar", 4_000)
    starts = np.stack(
        [
            spill_users(SMALL, edges, tmp_path, i, *bounds)
            for i, bounds in enumerate(plan.ranges(5_000))
        ]
    )
    made = generate(SMALL)
    made = made.take(movie_order(made.item_num, made.user_num))
    low = kernel.LOW_BITS + day_bits(SMALL)
    seen = 0
    for j, first in enumerate(edges[:-1].tolist()):
        words = read_run(tmp_path, starts[:, j : j + 2])
        some = made.take(slice(seen, seen + len(words)))
        seen += len(words)
        assert np.array_equal(some.item_num - first, words >> np.uint64(low + kernel.USER_BITS))
        assert np.array_equal(some.label, words & np.uint64(3))
        assert np.array_equal(some.rating, words >> np.uint64(2) & np.uint64(7))
        days = words >> np.uint64(kernel.LOW_BITS) & np.uint64(2 ** day_bits(SMALL) - 1)
        assert np.array_equal(some.day, days.astype(np.int64) + some.day.min() - days.min())
    assert seen == len(made.rating)


def test_holdouts_may_be_generated_in_parts() -> None:
    source = synth_source(SMALL)
    parts = [plan_of(SMALL).generate(a, b, held_only=True) for a, b in plan_of(SMALL).ranges(999)]
    assert len(parts) > 20
    assert len(pickle.dumps(source.holdout_parts()[0])) < 2_000
    for whole, joined in zip(source.holdouts(), source.join_holdouts(parts), strict=True):
        assert (whole.name, whole.scrub) == (joined.name, joined.scrub)
        for name in ("user_id", "item_id", "rating", "time", "line"):
            a, b = getattr(whole.ratings, name), getattr(joined.ratings, name)
            assert np.array_equal(a, b)


@pytest.mark.slow
def test_the_whole_prize_has_its_marginals() -> None:
    """Every figure within 2 % of the published one, the largest counts within 10 %."""
    config = SynthConfig(
        n_ratings=tables.PRIZE_RATINGS, n_users=tables.PRIZE_USERS, n_items=tables.PRIZE_ITEMS
    )
    plan = plan_of(config)

    def count(bounds: tuple[int, int]) -> list[np.ndarray]:
        made = plan.generate(*bounds)
        train = made.label <= 1
        first = np.datetime64(tables.PRIZE_FIRST_DAY).astype(int)
        return [
            np.bincount(made.user_num[train], minlength=config.n_users),
            np.bincount(made.item_num[train], minlength=config.n_items),
            np.bincount(made.rating[train], minlength=6),
            np.bincount(made.label, minlength=4),
            np.bincount(made.day[train] - first),
        ]

    with ThreadPoolExecutor(2) as pool:
        users, items, stars, labels, days = [0] * 5
        for part in pool.map(count, plan.ranges(1_000_000)):
            users, items, stars, labels = (
                total + more
                for total, more in zip((users, items, stars, labels), part, strict=False)
            )
            days = np.add(days, np.pad(part[4], (0, 2_243 - len(part[4]))))
    near = {
        "ratings": (items.sum(), 100_480_507),
        "probe": (labels[1], 1_408_395),
        "quiz": (labels[2], 1_408_342),
        "test": (labels[3], 1_408_789),
        "qualifying": (labels[2] + labels[3], 2_817_131),
        "mean of a user": (users.mean(), 209.25),
        "users with one": ((users == 1).sum(), 1_269),
        "users below ten": ((users < 10).sum(), 16_419),
        "sum of squared degrees": ((users.astype(float) ** 2).sum(), 6.4e10),
        "mean of a movie": (items.mean(), 5_654.5),
        "first quartile": (np.quantile(items, 0.25), 192),
        "median": (np.quantile(items, 0.50), 561),
        "third quartile": (np.quantile(items, 0.75), 2_668),
        "gini": (gini(np.concatenate([users, items])), 0.792),
        **{
            f"{s} stars": (stars[s] / stars.sum(), share)
            for s, share in enumerate((0.0460, 0.1008, 0.2867, 0.3359, 0.2306), 1)
        },
    }
    for name, (found, published) in near.items():
        assert abs(found / published - 1) < 0.02, f"{name}: {found}, published {published}"
    for name, (found, published) in {
        "heaviest user": (users.max(), 17_653),
        "largest movie": (items.max(), 232_944),
    }.items():
        assert abs(found / published - 1) < 0.1, f"{name}: {found}, published {published}"
    assert users.sum() == tables.PRIZE_RATINGS
    assert users.min() == 1
    assert items.min() == 3
    assert days[0] > 0  # 1999-11-11
    assert days[-1] > 0  # 2005-12-31
