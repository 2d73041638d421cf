"""One peer's ALS on one .npz, in the peer's own environment; prints one JSON line.

    /path/to/peers/bin/python tests/benchmarks/als_peers.py cmfrec ratings.npz --k 50 --epochs 2

The file holds ``u i r`` (training ratings) and ``tu ti tr`` (held out); only fits are timed. RMSE
is of predictions clipped to 1..5 on the held-out pairs.
"""

from __future__ import annotations

import argparse
import json
import resource
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

Figures = dict[str, Any]


def rmse(found: Any, truth: Any) -> float:
    """Return the root mean squared error of clipped predictions."""
    return float(np.sqrt(np.mean((np.clip(found, 1, 5) - truth) ** 2)))


def cmfrec(data: Any, args: argparse.Namespace) -> Figures:
    """Fit explicit ALS with biases, exact solves, penalty by the number of ratings."""
    import scipy.sparse as sp
    from cmfrec import CMF

    ratings = sp.coo_matrix((data["r"].astype(np.float32), (data["u"], data["i"])))
    model = CMF(
        k=args.k, lambda_=args.reg, scale_lam=True, use_cg=False, niter=args.epochs,
        use_float=True, nthreads=args.threads, method="als", center=True, user_bias=True,
        item_bias=True, verbose=False, precompute_for_predictions=False,
        add_implicit_features=args.implicit_features,
    )  # fmt: skip
    start = time.perf_counter()
    model.fit(ratings)
    seconds = time.perf_counter() - start
    return {"seconds": seconds, "rmse": rmse(model.predict(data["tu"], data["ti"]), data["tr"])}


def spark(data: Any, args: argparse.Namespace) -> Figures:
    """Fit Spark MLlib's ALS; block set-up is part of its fit."""
    import pandas as pd
    from pyspark.ml.recommendation import ALS
    from pyspark.sql import SparkSession

    session = (
        SparkSession.builder.master(f"local[{args.threads}]")
        .config("spark.driver.memory", "18g")
        .config("spark.ui.enabled", "false")
        .config("spark.sql.shuffle.partitions", "8")
        .getOrCreate()
    )
    session.sparkContext.setLogLevel("ERROR")
    frames = []
    for name, keys in (("train", "uir"), ("test", ("tu", "ti", "tr"))):
        path = Path(args.data).with_suffix(f".{name}.parquet")
        if not path.exists():
            columns = dict(zip(("user", "item", "rating"), (data[k] for k in keys), strict=True))
            pd.DataFrame(columns).astype({"rating": "float32"}).to_parquet(
                path, row_group_size=5_000_000
            )
        frames.append(session.read.parquet(str(path)))
    frames[0].count()
    als = ALS(
        rank=args.k, maxIter=args.epochs, regParam=args.reg, userCol="user", itemCol="item",
        ratingCol="rating", numUserBlocks=8, numItemBlocks=8, seed=1,
    )  # fmt: skip
    start = time.perf_counter()
    model = als.fit(frames[0])
    model.itemFactors.count()
    seconds = time.perf_counter() - start
    found = model.transform(frames[1]).select("prediction", "rating").na.drop().toPandas()
    return {"seconds": seconds, "rmse": rmse(found["prediction"], found["rating"])}


def implicit(data: Any, args: argparse.Namespace) -> Figures:
    """Fit the CPU ALS of ``implicit`` on confidences; the loss is that of the paper."""
    import scipy.sparse as sp
    from implicit.cpu.als import AlternatingLeastSquares

    shape = int(data["u"].max()) + 1, int(data["i"].max()) + 1
    # This package takes confidences less one where there is nothing: 1 + alpha r otherwise.
    weights = (1.0 + args.alpha * data["r"]).astype(np.float32)
    ratings = sp.csr_matrix((weights, (data["u"], data["i"])), shape=shape)
    model = AlternatingLeastSquares(
        factors=args.k, regularization=args.reg, iterations=args.epochs, num_threads=args.threads,
        use_native=True, use_cg=args.cg, random_state=0,
    )  # fmt: skip
    start = time.perf_counter()
    model.fit(ratings, show_progress=False)
    seconds = time.perf_counter() - start
    x, y = model.user_factors.astype(np.float64), model.item_factors.astype(np.float64)
    loss = float(np.sum((x.T @ x) * (y.T @ y)) + args.reg * (np.sum(x**2) + np.sum(y**2)))
    for at in range(0, len(data["u"]), 1_000_000):
        part = slice(at, at + 1_000_000)
        guess = np.einsum("rk,rk->r", x[data["u"][part]], y[data["i"][part]])
        c = weights[part].astype(np.float64)
        loss += float(np.sum(c * (1 - guess) ** 2 - guess**2))
    return {"seconds": seconds, "loss": loss}


PEERS = {"cmfrec": cmfrec, "spark": spark, "implicit": implicit}


def main() -> None:
    """Run one peer."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("data")
    parser.add_argument("--k", type=int, default=50)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--reg", type=float, default=0.05)
    parser.add_argument("--alpha", type=float, default=1.0)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--cg", action="store_true")
    parser.add_argument("--implicit-features", action="store_true")
    args = parser.parse_args()
    found = PEERS[args.peer](dict(np.load(args.data)), args)
    found["peak_gb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    sys.stdout.write(json.dumps(found) + "\n")


if __name__ == "__main__":
    main()
