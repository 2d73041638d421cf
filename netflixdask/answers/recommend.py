"""The best items of users: as a table, or as an artifact for everybody."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np
import pandas as pd
import pyarrow as pa
from numpy.typing import NDArray

from netflixdask.answers.scoring import opened_model, rank_users, ranking_of, runs
from netflixdask.errors import InputError
from netflixdask.mapreduce import use_engine
from netflixdask.models import Estimator
from netflixdask.models.ranking import Ranking
from netflixdask.plan import refuse
from netflixdask.store import Artifact, FileEntry, new_artifact, write_parquet
from netflixdask.urls import as_path

USERS_PER_PART = 4_096
"""Users of one file: the same files whatever the cluster."""
USERS_PER_TASK = 4_096
"""Users of one task: so many that few ratings are read by two tasks."""

Ranked = tuple[NDArray[np.int32], NDArray[np.float32]]


class Shared(NamedTuple):
    """What the tasks need; sent to the workers once."""

    ranking: Ranking
    item_id: pa.Array
    title: pa.Array
    n: int
    folder: str
    """The artifact's staging folder."""


@overload
def recommend(
    model: Estimator | str | Path,
    users: Any = None,
    n: int = 10,
    *,
    out: None = None,
    exclude_seen: bool = True,
    overwrite: bool = False,
) -> pd.DataFrame: ...
@overload
def recommend(
    model: Estimator | str | Path,
    users: Any = None,
    n: int = 10,
    *,
    out: str | Path,
    exclude_seen: bool = True,
    overwrite: bool = False,
) -> Artifact: ...
def recommend(
    model: Estimator | str | Path,
    users: Any = None,
    n: int = 10,
    *,
    out: str | Path | None = None,
    exclude_seen: bool = True,
    overwrite: bool = False,
) -> pd.DataFrame | Artifact:
    """Recommend ``n`` items to users: as a dataframe, or with ``out`` as an artifact.

    Args:
        model: a fitted model, or the folder of a saved one.
        users: raw user ids, or one; None = all users with a training rating.
        n: items a user; fewer where no more are left.
        out: folder of the artifact, of kind ``recommendations``: ``recommendations/part-*.parquet``
            with ``user_num`` (null for a user unknown to training)``, user_id, rank`` (from 1)``,
            item_num, item_id, title, score`` (stars, not clipped), each user once, in the order
            given or by number. Tasks take 4,096 users at a time, so memory does not grow with
            their number (``models.ranking.block_bytes`` has what a task holds).
        exclude_seen: leave out what the user rated in training.
        overwrite: replace an artifact that is there.

    Returns:
        Without ``out``: ``user_id, rank, item_id, title, score`` as ``model.recommend`` has it.

    Raises:
        InputError: if ``n`` is below 1, or users without a training rating are asked for and the
            model's ``cold_start`` is ``"nan"``.
        StoreError: if the path holds no model, or ``out`` exists.
    """
    opened = opened_model(model)
    if out is not None:
        return _write(opened, users, n, as_path(out), exclude_seen, overwrite)
    if users is None:
        catalogue = opened.catalogue_
        users = catalogue.users.column("user_id").filter(pa.array(catalogue.user_rated))
    return opened.recommend(users, n, exclude_seen=exclude_seen)


def _write(
    model: Estimator, users: Any, n: int, out: Path, exclude_seen: bool, overwrite: bool
) -> Artifact:
    from netflixdask.answers.plan import plan_recommend, shape_of  # it knows all answers

    if n < 1:
        raise InputError(f"n = {n}: expected at least 1 item a user")
    catalogue = model.catalogue_
    if users is None:
        numbers = np.flatnonzero(catalogue.user_rated).astype(np.int32)
        ids = catalogue.users.column("user_id").combine_chunks().take(pa.array(numbers))
    else:
        ids, numbers = _listed(model, users)
    with use_engine() as engine, new_artifact(out, "recommendations", overwrite=overwrite) as to:
        shape, asked = shape_of(model), len(numbers)
        refuse("recommend", lambda on: plan_recommend(model, shape, n, on, asked), engine, out)
        with engine.stage("recommend"):
            shared = Shared(
                ranking=ranking_of(model, exclude_seen=exclude_seen),
                item_id=catalogue.items.column("item_id").combine_chunks(),
                title=catalogue.items.column("title").combine_chunks(),
                n=n,
                folder=str(to.dir),
            )
            held = engine.put(shared, name="recommend-model")
            parts = []
            for number, (a, b) in enumerate(runs(len(numbers), USERS_PER_PART)):
                ranked = [
                    engine.submit(
                        _rank, held, numbers[a + c : a + d], name="recommend", index=(number, c)
                    )
                    for c, d in runs(b - a, USERS_PER_TASK)
                ]
                # A slice of an Arrow array would travel with all of its parent.
                some = ids.take(pa.array(np.arange(a, b))), numbers[a:b]
                parts.append(
                    engine.submit(
                        _write_part,
                        held,
                        *some,
                        ranked,
                        number,
                        name="recommend-write",
                        index=number,
                    )
                )
            entries = engine.gather(parts)
        for entry in entries:
            to.add(entry)
        return to.commit(
            config={"n": n, "exclude_seen": exclude_seen, "model": repr(model)},
            inputs={"model": model.store_},
            stats={
                "n_users": len(numbers),
                "n_recommendations": sum(entry.rows for entry in entries),
            },
        )


def _listed(model: Estimator, users: Any) -> tuple[pa.Array, NDArray[np.int32]]:
    """Return the distinct ids, in order, and their numbers; refuse unknown ones as told."""
    if isinstance(users, str) or not isinstance(users, Iterable):
        users = [users]
    if isinstance(users, pa.Array | pa.ChunkedArray):
        users = users.to_pandas()
    listed = pd.Series(list(users)).drop_duplicates()
    if listed.empty:
        raise InputError("users: found none; give raw user ids, or leave users out for all")
    numbers = model.catalogue_.user_nums(listed)
    unknown = listed[numbers < 0].tolist()
    if unknown and model.config.cold_start == "nan":
        more = f" and {len(unknown) - 5:,} more" if len(unknown) > 5 else ""
        raise InputError(
            f"users: {', '.join(map(repr, unknown[:5]))}{more} have no training rating in this "
            "model; leave them out, or fit with cold_start='baseline'"
        )
    return pa.array(listed), numbers


def _rank(shared: Shared, users: NDArray[np.int32]) -> Ranked:
    return rank_users(shared.ranking, users, shared.n)


def _write_part(
    shared: Shared, ids: pa.Array, users: NDArray[np.int32], ranked: list[Ranked], number: int
) -> FileEntry:
    items = np.concatenate([items for items, _ in ranked])
    scores = np.concatenate([scores for _, scores in ranked])
    row, place = np.nonzero(items >= 0)
    chosen = items[row, place]
    user = users[row]
    table = pa.table(
        {
            "user_num": pa.array(user, pa.int32(), mask=user < 0),
            "user_id": ids.take(pa.array(row)),
            "rank": (place + 1).astype(np.int32),
            "item_num": chosen,
            "item_id": shared.item_id.take(pa.array(chosen)),
            "title": shared.title.take(pa.array(chosen)),
            "score": scores[row, place],
        }
    )
    folder = as_path(shared.folder)
    path = folder / "recommendations" / f"part-{number:05d}.parquet"
    return write_parquet(table, path, base=folder)
