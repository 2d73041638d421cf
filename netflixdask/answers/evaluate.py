"""How well a fitted model predicts the pairs of a holdout, and how good its lists are."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from netflixdask.answers.evaluation import Evaluation, Split
from netflixdask.answers.lists import rank_holdout
from netflixdask.answers.metrics import ErrorSums, fixed_point_bits, support_bucket
from netflixdask.answers.prize import cinematch
from netflixdask.answers.ranking import default_threshold, relevant
from netflixdask.answers.scoring import (
    opened_model,
    pair_frame,
    predict_all,
    runs,
    store_of_model,
)
from netflixdask.answers.training import find_seen, item_average
from netflixdask.errors import InputError
from netflixdask.mapreduce import Engine, use_engine
from netflixdask.models import Estimator
from netflixdask.store import RatingsStore, new_artifact
from netflixdask.words import counted

PREFERRED = ("probe", "test", "quiz")
"""The holdout that is taken when none is named: the first of these that has ratings."""
PAIRS_AT_ONCE = 2**20


def evaluate(
    model: Estimator | str | Path,
    store: RatingsStore | str | Path | None = None,
    on: str | None = None,
    *,
    n: int = 10,
    ranking: bool = True,
    threshold: float | None = None,
    max_ranking_users: int | None = None,
    out: str | Path | None = None,
    overwrite: bool = False,
) -> Evaluation:
    """Compare a model's predictions and lists with held-out ratings.

    Predictions are clipped to the scale of the ratings. A held-out pair that is among the ratings
    the model was fitted on is refused, since its error would say nothing.

    Args:
        model: a fitted model, or the folder of a saved one.
        store: the store that has the holdout; by default the one that the model was fitted on.
        on: name of the holdout: probe, quiz, test, ...; by default the first of probe, test and
            quiz that has ratings.
        n: length of the lists.
        ranking: compare lists as well (it scores every item for every user of the holdout).
        threshold: stars from which on a held-out item is relevant to its user; by default three
            quarters up the scale, which is 4 on 1..5.
        max_ranking_users: compare the lists of so many users only, chosen by their hashed ids.
        out: folder in which to keep the figures, ``metrics.parquet``.
        overwrite: replace an artifact that is there.

    Returns:
        The figures; the errors are exact sums, the same for any number of workers and tasks.

    Raises:
        InputError: if there is no such holdout, it has no ratings, or a pair of it was trained on.
        NotFittedError: if the model was not fitted.
        StoreError: if a path holds no model or store, or ``out`` exists.
    """
    opened = opened_model(model)
    source = store_of_model(opened, store)
    name, table = _holdout(source, on)
    with contextlib.ExitStack() as stack:
        writer = out and stack.enter_context(new_artifact(out, "metrics", overwrite=overwrite))
        engine = stack.enter_context(use_engine())
        with engine.stage(f"evaluate {name}", rows=table.num_rows):
            pairs = _pairs(opened, source, table)
            _refuse_seen(opened, pairs, name, source, engine)
            sums, average = _errors(opened, source, pairs, engine)
        result = None
        if ranking:
            threshold = _threshold(threshold, source)
            truth = relevant(pairs.user_num, pairs.item_num, pa.array(pairs.rating), threshold)
            with engine.stage(f"rank {name}", rows=len(pairs.rating)):
                result = rank_holdout(
                    opened,
                    source,
                    truth,
                    engine,
                    n=n,
                    threshold=threshold,
                    max_users=max_ranking_users,
                )
        n_unrated = table.num_rows - len(pairs.rating)
        found = Evaluation(
            model=repr(opened),
            split=_split(opened, source, name, len(pairs.rating), n_unrated),
            clipped_to=(source.rating_low, source.rating_high),
            errors=sums.total(),
            coverage=sums.coverage,
            item_average=average.total(),
            by_user=tuple(sums.by("user")),
            by_item=tuple(sums.by("item")),
            ranking=result,
            reference=cinematch(opened.catalogue_, source.manifest.layout, name, len(pairs.rating)),
            notes=tuple(
                _notes(opened, source, sums, n_unrated, None if result is None else result.n_users)
            ),
        )
        if writer:
            writer.write("metrics.parquet", found.table())
            writer.commit(
                config={"on": name, "n": n, "ranking": ranking, "threshold": threshold},
                inputs={"model": opened.store_, "holdout": _where(source, name)},
                stats=found.to_dict(),
            )
    return found


class Pairs(NamedTuple):
    """The rated pairs of a holdout."""

    user_num: NDArray[np.int32]
    """int32[n], numbers of the holdout's store."""
    item_num: NDArray[np.int32]
    user_id: Any
    """Raw ids, a pandas series."""
    item_id: Any
    time: Any
    rating: NDArray[np.float32]
    model_user: NDArray[np.int32]
    """int32[n], numbers of the model, -1 = without a training rating."""
    model_item: NDArray[np.int32]


def _holdout(store: RatingsStore, on: str | None) -> tuple[str, pa.Table]:
    if on is not None:
        table = store.holdout(on)
        if table.column("rating").null_count == table.num_rows:
            if on == "probe" and store.manifest.config.get("scrub_probe") is False:
                raise InputError(
                    f"{store.path}: the probe's ratings are among the training ratings, as ingest "
                    "was told (scrub_probe = False); ingest again without that"
                )
            raise InputError(
                f"{store.path}: the holdout {on!r} has no ratings to compare with; evaluate on one "
                f"that has ({_names(store)}), or write predictions of it"
            )
        return on, table
    for name in PREFERRED:
        if name in store.holdouts:
            table = store.holdout(name)
            if table.column("rating").null_count < table.num_rows:
                return name, table
    raise InputError(
        f"{store.path}: found no rated holdout among {_names(store)}; expected one of "
        f"{', '.join(PREFERRED)}; name another, or split the store first"
    )


def _names(store: RatingsStore) -> str:
    return ", ".join(store.holdouts) or "none"


def _pairs(model: Estimator, store: RatingsStore, table: pa.Table) -> Pairs:
    table = table.filter(pc.is_valid(table.column("rating")))
    # By user: a task then reads the training ratings of few users.
    table = table.sort_by([("user_num", "ascending"), ("item_num", "ascending")])
    users, items = (table.column(f"{side}_num").combine_chunks() for side in ("user", "item"))
    user_id = store.users.column("user_id").take(users).to_pandas()
    item_id = store.items.column("item_id").take(items).to_pandas()
    time = table.column("time")
    return Pairs(
        user_num=users.to_numpy(),
        item_num=items.to_numpy(),
        user_id=user_id,
        item_id=item_id,
        time=None if time.null_count == len(time) else time.to_pandas(),
        rating=table.column("rating").to_numpy(),
        model_user=model.catalogue_.user_nums(user_id),
        model_item=model.catalogue_.item_nums(item_id),
    )


def _refuse_seen(
    model: Estimator, pairs: Pairs, name: str, store: RatingsStore, engine: Engine
) -> None:
    seen = find_seen(model, pairs.model_user, pairs.model_item, engine)
    if len(seen):
        at = int(seen[0])
        raise InputError(
            f"{store.path}: {len(seen):,} of {len(pairs.rating):,} pairs of the holdout {name!r} "
            f"are among the ratings that the model was fitted on, the first: user "
            f"{pairs.user_id[at]}, item {pairs.item_id[at]}; expected none. "
            f"{_instead(model, store)}"
        )


def _instead(model: Estimator, store: RatingsStore) -> str:
    """Say where a model got held-out pairs from, and what to do."""
    if model.store_.get("fingerprint") == store.fingerprint:
        return (
            "The store holds them in training, which ingest never writes: look at it with "
            "netflixdask store check, ingest it anew and fit again"
        )
    path = model.store_.get("path") or "another table"
    return f"The model was fitted on the ratings that {path} had then; fit it on this store"


def _errors(
    model: Estimator, store: RatingsStore, pairs: Pairs, engine: Engine
) -> tuple[ErrorSums, ErrorSums]:
    """Sum the errors of the model and, over the same pairs, of the item average."""
    frame = pair_frame(pairs.user_id, pairs.item_id, pairs.time)
    stars = predict_all(model, frame, engine)
    means = item_average(model, engine)
    average = np.where(pairs.model_item >= 0, means.item[pairs.model_item], means.overall)
    average[np.isnan(stars)] = np.nan
    counts = (
        _support(model.catalogue_.users, pairs.model_user),
        _support(model.catalogue_.items, pairs.model_item),
    )
    low, high = store.rating_low, store.rating_high
    bits = fixed_point_bits(high - low, len(pairs.rating))
    sums = (ErrorSums.zero(bits), ErrorSums.zero(bits))
    for a, b in runs(len(stars), PAIRS_AT_ONCE):
        users, items = (support_bucket(one[a:b]) for one in counts)
        for total, predicted in zip(sums, (stars, average), strict=True):
            total.add(predicted[a:b], pairs.rating[a:b], users, items, low, high)
    return sums


def _support(table: pa.Table, numbers: NDArray[np.int32]) -> NDArray[np.int64]:
    counts = table.column("n_ratings").to_numpy()
    return np.where(numbers >= 0, counts[numbers], 0)


def _threshold(threshold: float | None, store: RatingsStore) -> float:
    low, high = store.rating_low, store.rating_high
    if threshold is None:
        return default_threshold(low, high)
    if not low <= threshold <= high:
        raise InputError(
            f"threshold = {threshold:g}: expected stars on the scale {low:g}..{high:g}"
        )
    return threshold


def _split(model: Estimator, store: RatingsStore, name: str, n_pairs: int, n_unrated: int) -> Split:
    return Split(
        name=name,
        store=str(store.path),
        fingerprint=store.fingerprint,
        layout=store.manifest.layout,
        how=held_out_how(store, name),
        n_pairs=n_pairs,
        n_unrated=n_unrated,
        n_training=int(pc.sum(model.catalogue_.items.column("n_ratings")).as_py()),
    )


_SPLIT_OPTIONS = {
    "random": ("fraction", "seed"),
    "last": ("n",),
    "time": ("fraction",),
    "kfold": ("folds", "seed"),
}


def held_out_how(store: RatingsStore, name: str) -> str:
    """Say in words how the pairs of a holdout came to be held out."""
    split = store.manifest.config.get("split")
    if isinstance(split, dict) and name == "test":  # text names a published split
        shown = ("how", *_SPLIT_OPTIONS.get(str(split.get("how")), ()))
        options = ", ".join(f"{key} = {split[key]}" for key in shown if key in split)
        return f"split of {store.manifest.config.get('store', 'another store')} ({options})"
    for entry in store.manifest.sources:
        if entry.role == name:
            return f"published beside the ratings ({Path(entry.file).name})"
    return f"made with the ratings ({store.manifest.layout})"


def _where(store: RatingsStore, name: str) -> dict[str, Any]:
    return {"path": str(store.path), "fingerprint": store.fingerprint, "name": name}


def _notes(
    model: Estimator, store: RatingsStore, sums: ErrorSums, n_unrated: int, n_users: int | None
) -> list[str]:
    notes = []
    if model.store_.get("fingerprint") != store.fingerprint:
        notes.append(
            "the model was fitted on other ratings than this store's; that no held-out pair was "
            "among them is checked"
        )
    if n_unrated:
        notes.append(f"{counted(n_unrated, 'pair')} of the holdout without a rating: left out")
    missing = int(sums.missing.sum())
    if missing:
        notes.append(
            f"{counted(missing, 'pair')} got no prediction (cold_start='nan'); all errors are of "
            "the others"
        )
    if n_users == 0:
        notes.append("no user has a relevant held-out item, so the lists have no figures")
    return notes
