"""The contract on the sequential engine: the oracle that the Dask engine is compared with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from netflixdask.mapreduce import Key, MapReduce, SequentialEngine, run, split_evenly


@dataclass(frozen=True)
class WordCount(MapReduce[Sequence[str], dict[str, int]]):
    """Count words by their first letter: one key a letter, updated in place."""

    name: ClassVar[str] = "word-count"
    split_every: ClassVar[int] = 2
    letters: tuple[str, ...] = ("a", "b", "c")

    def keys(self) -> list[Key]:
        return [(letter,) for letter in self.letters]

    def map_partition(self, blocks: Iterable[Sequence[str]]) -> dict[Key, dict[str, int]]:
        out: dict[Key, dict[str, int]] = {}
        for words in blocks:
            for word in words:
                if word[0] in self.letters:
                    counts = out.setdefault((word[0],), {})
                    counts[word] = counts.get(word, 0) + 1
        return out

    def combine(self, a: dict[str, int], b: dict[str, int]) -> dict[str, int]:
        for word, n in b.items():
            a[word] = a.get(word, 0) + n
        return a

    def finalize(self, key: Key, acc: dict[str, int]) -> list[tuple[str, int]]:
        return sorted(acc.items())

    def for_keys(self, keys: Sequence[Key]) -> WordCount:
        return replace(self, letters=tuple(str(key[0]) for key in keys))


WORDS = st.lists(st.lists(st.sampled_from(["ab", "ac", "b", "bb", "ca", "x"]), max_size=6))


@given(
    blocks=WORDS.filter(bool),
    n_maps=st.integers(1, 12),
    key_groups=st.sampled_from([None, 1, 2, 5]),
)
def test_result_ignores_the_grouping_of_blocks_and_keys(
    blocks: list[list[str]], n_maps: int, key_groups: int | None
) -> None:
    words = [word for block in blocks for word in block]
    expected = {
        (letter,): sorted(Counter(w for w in words if w[0] == letter).items())
        for letter in "abc"
        if any(w[0] == letter for w in words)
    }
    engine = SequentialEngine()
    found = run(WordCount(), blocks, engine=engine, n_maps=n_maps, key_groups=key_groups)
    assert found == expected


def test_partitions_may_be_loaders_and_each_is_loaded_once_a_key_group() -> None:
    loaded: list[int] = []

    def loader(number: int) -> list[str]:
        loaded.append(number)
        return ["a", "b"]

    partitions = [lambda n=n: loader(n) for n in range(3)]
    found = run(WordCount(), partitions, engine=SequentialEngine(), n_maps=2)
    assert loaded == [0, 1, 2]
    assert found == {("a",): [("a", 3)], ("b",): [("b", 3)]}


def test_combining_leaves_the_parts_as_they_were() -> None:
    # A map's result belongs to its task: Dask may hand it out again.
    kept: list[dict[Key, dict[str, int]]] = []

    @dataclass(frozen=True)
    class Watched(WordCount):
        def map_partition(self, blocks: Iterable[Sequence[str]]) -> dict[Key, dict[str, int]]:
            kept.append(super().map_partition(blocks))
            return kept[-1]

    run(Watched(), [["a"]] * 5, engine=SequentialEngine())
    assert kept == [{("a",): {"a": 1}}] * 5


def test_sink_gets_key_and_result_and_its_value_comes_back() -> None:
    found = run(
        WordCount(),
        [["a", "b"]],
        engine=SequentialEngine(),
        sink=lambda key, table: f"{key[0]}:{len(table)}",
    )
    assert found == {("a",): "a:1", ("b",): "b:1"}


def test_a_stage_that_cannot_restrict_its_keys_says_so() -> None:
    class Whole(WordCount):
        def for_keys(self, keys: Sequence[Key]) -> WordCount:
            return MapReduce.for_keys(self, keys)  # type: ignore[return-value]

    with pytest.raises(NotImplementedError, match="word-count"):
        run(Whole(), [["a"]], engine=SequentialEngine(), key_groups=2)


@given(st.lists(st.integers(), max_size=40), st.integers(1, 60))
def test_split_evenly_keeps_order_and_balance(items: list[int], n: int) -> None:
    runs = split_evenly(items, n)
    assert [x for some in runs for x in some] == items
    sizes = [len(some) for some in runs]
    assert all(sizes)
    assert not sizes or max(sizes) - min(sizes) <= 1
    assert len(runs) <= max(1, min(n, len(items)))
