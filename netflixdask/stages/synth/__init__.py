"""Made-up ratings with the marginals of the Netflix Prize, at any size, from a seed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from netflixdask.mapreduce import Engine
from netflixdask.stages.synth.config import SynthConfig
from netflixdask.stages.synth.source import synth_source
from netflixdask.stages.synth.text import write_text
from netflixdask.store.build import build_from_source
from netflixdask.store.ratings import RatingsStore

__all__ = ["SynthConfig", "synth", "synth_source"]


def synth(
    out: Path, config: SynthConfig, *, engine: Engine, overwrite: bool = False
) -> RatingsStore | dict[str, Any]:
    """Write made-up ratings to ``out``.

    Every draw is keyed by (seed, stream, id), so the same configuration gives the same ratings
    for any number of partitions, workers and threads.

    Args:
        out: the folder.
        config: sizes, seed and layout.
        engine: where the tasks of a text layout run; a store is built by the engine in force.
        overwrite: replace what is there.

    Returns:
        The store, opened; for a text layout its path and the rows of its files.

    Raises:
        ConfigError: if no data of this shape can exist.
        StoreError: if ``out`` exists and ``overwrite`` is not set.
    """
    config.check()
    if config.layout != "store":
        return write_text(out, config, engine=engine, overwrite=overwrite)
    return build_from_source(
        synth_source(config),
        out,
        overwrite=overwrite,
        config=config.model_dump(mode="json", exclude_defaults=True),
    )
