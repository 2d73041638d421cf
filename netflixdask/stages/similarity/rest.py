"""Arrays at rest below an artifact's staging folder until its stage is done.

Plain .npy files, one an array: tasks of any process of a shared folder reach them.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from netflixdask.store.cache import copy_of
from netflixdask.urls import UrlPath, as_path, written


class Arrays(Protocol):
    """What :class:`ListFile` keeps: some arrays that make a whole again."""

    ARRAYS: ClassVar[tuple[str, ...]]
    """Names of the arrays that it is made of, in order."""

    @property
    def nbytes(self) -> int:
        """Bytes held."""


Held = TypeVar("Held", bound=Arrays)


def write_arrays(stem: str, arrays: Mapping[str, NDArray[Any]]) -> None:
    """Write a file for each array, each in one step."""
    unique = f"{os.getpid()}-{threading.get_ident()}"
    for name, array in arrays.items():
        path = as_path(f"{stem}-{name}.npy")
        if isinstance(path, UrlPath):
            with written(path) as local:
                np.save(local, array, allow_pickle=False)
            continue
        path.parent.mkdir(exist_ok=True)  # the staging folder itself is not made again
        temporary = path.with_name(f".{unique}-{path.name}")
        np.save(temporary, array, allow_pickle=False)
        temporary.replace(path)


def read_arrays(stem: str, names: Iterable[str], *, mapped: bool) -> list[NDArray[Any]]:
    """Read arrays that were written, or map them into memory."""
    return [
        np.load(_local(f"{stem}-{name}.npy"), mmap_mode="r" if mapped else None, allow_pickle=False)
        for name in names
    ]


def _local(name: str) -> Path:
    path = as_path(name)
    return copy_of(path) if isinstance(path, UrlPath) else path


@dataclass(frozen=True)
class ListFile:
    """Some users' lists at rest; called, it reads them."""

    stem: str
    kind: type[Any]
    """Of the lists; made of its ``ARRAYS``."""

    def write(self, lists: Arrays) -> None:
        """Write them."""
        write_arrays(self.stem, {name: getattr(lists, name) for name in lists.ARRAYS})

    def __call__(self) -> Any:
        """Read them."""
        return self.kind(*read_arrays(self.stem, self.kind.ARRAYS, mapped=False))


def in_groups(lists: Iterable[Held], most: int) -> Iterator[list[Held]]:
    """Yield lists that take at most ``most`` bytes together, one at least.

    What was yielded is emptied before the next is read: two groups are never held.
    """
    group: list[Held] = []
    held = 0
    for one in lists:
        group.append(one)
        held += one.nbytes
        if held + one.nbytes > most:  # the next is about as large
            del one
            yield group
            group.clear()
            held = 0
    if group:
        yield group
