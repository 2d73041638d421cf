"""What a run left behind: its record, and the stores and artifacts of its steps."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netflixdask.errors import NetflixDaskError
from netflixdask.store import Artifact, RatingsStore, open_artifact, open_store
from netflixdask.store.manifest import MANIFEST


@dataclass(frozen=True)
class Gathered:
    """A run's record and outputs, by step and in order."""

    record: dict[str, Any]
    """What ``run.json`` says."""
    stores: dict[str, RatingsStore]
    artifacts: dict[str, Artifact]
    lost: tuple[str, ...] = ()
    """Steps whose output is gone or damaged, and what is wrong: a sentence each."""

    def of_kind(self, kind: str) -> dict[str, Artifact]:
        """Return the artifacts of one kind by step."""
        return {name: one for name, one in self.artifacts.items() if one.kind == kind}

    def main_store(self) -> tuple[str, RatingsStore] | None:
        """Return the first of the stores with the most ratings."""
        if not self.stores:
            return None
        name = max(self.stores, key=lambda name: self.stores[name].n_ratings)
        return name, self.stores[name]

    def store_like(self, told: Any) -> RatingsStore | None:
        """Return the store that an artifact was made from.

        Args:
            told: what the artifact's ``inputs`` say of it: ``path`` and ``fingerprint``.
        """
        if not isinstance(told, dict) or "fingerprint" not in told:
            return None
        for store in self.stores.values():
            if store.fingerprint == told["fingerprint"]:
                return store
        with contextlib.suppress(NetflixDaskError, OSError):
            store = open_store(str(told.get("path")))
            if store.fingerprint == told["fingerprint"]:
                return store
        return None


def gather(record: dict[str, Any], workdir: Path) -> Gathered:
    """Open what the steps of a run have left in ``workdir``; what cannot be opened is named."""
    stores: dict[str, RatingsStore] = {}
    artifacts: dict[str, Artifact] = {}
    lost = []
    for step in record["steps"]:
        name = step["step"]
        path = workdir / name
        if not path.exists() and step["status"] in ("done", "skipped"):
            lost.append(f"{name}: its output is gone")
        if not path.is_dir():  # a step may leave a plain file
            continue
        try:
            artifacts[name] = open_artifact(path)
        except (NetflixDaskError, OSError) as error:
            with contextlib.suppress(NetflixDaskError, OSError):
                stores[name] = open_store(path)
            if name not in stores and (path / MANIFEST).exists():
                lost.append(f"{name}: {error}")
    return Gathered(record, stores, artifacts, tuple(lost))
