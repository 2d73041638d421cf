"""Made-up movie titles: unique, recognisable by genre, some with commas and accents."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from netflixdask import random as nr
from netflixdask.kernels import philox
from netflixdask.kernels.synth_items import N_GENRES

# All words fit latin-1, the encoding of the prize's title file.
_ADJECTIVES = (
    "Amber", "Broken", "Café", "Crimson", "Distant", "Éternal", "Fading", "Gentle", "Golden",
    "Hidden", "Hollow", "Iron", "Jagged", "Last", "Lonely", "Lucky", "Marble", "Midnight", "Naïve",
    "Northern", "Open", "Paper", "Patient", "Quiet", "Restless", "Rusty", "Secret", "Señor's",
    "Silver", "Sleepless", "Slow", "Stolen", "Sudden", "Über", "Velvet", "Violet", "Wandering",
    "Western", "Wicked", "Winter",
)  # fmt: skip
_NOUNS = (
    ("Verdict", "Detective", "Alibi", "Informant", "Fingerprint", "Heist", "Witness", "Safe",
     "Ransom", "Precinct", "Clue", "Forger"),
    ("Starship", "Orbit", "Android", "Nebula", "Signal", "Colony", "Comet", "Airlock", "Galaxy",
     "Probe", "Moonbase", "Meteor"),
    ("Wedding", "Kiss", "Valentine", "Sweetheart", "Bouquet", "Honeymoon", "Waltz", "Promise",
     "Letter", "Proposal", "Flirt", "Anniversary"),
    ("Graveyard", "Séance", "Cellar", "Vampire", "Scream", "Coffin", "Curse", "Asylum", "Ghoul",
     "Mirror", "Attic", "Banshee"),
    ("Saddle", "Sheriff", "Canyon", "Stagecoach", "Outlaw", "Saloon", "Lasso", "Prairie", "Gunman",
     "Posse", "Ranch", "Coyote"),
    ("Regiment", "Trench", "Bunker", "Convoy", "Medal", "Sergeant", "Barracks", "Armistice",
     "Bugle", "Parachute", "Periscope", "Rampart"),
    ("Chorus", "Piano", "Encore", "Ballad", "Tenor", "Overture", "Tambourine", "Cabaret", "Fiddle",
     "Rhapsody", "Soprano", "Jukebox"),
    ("Puppy", "Hedgehog", "Snowman", "Kite", "Penguin", "Treehouse", "Puddle", "Teddy", "Kitten",
     "Balloon", "Duckling", "Sandcastle"),
    ("Glacier", "Coral", "Savanna", "Migration", "Volcano", "Rainforest", "Tundra", "Reef",
     "Monsoon", "Beehive", "Dune", "Estuary"),
    ("Knockout", "Marathon", "Goalkeeper", "Pitcher", "Regatta", "Slalom", "Referee", "Overtime",
     "Dugout", "Relay", "Underdog", "Podium"),
    ("Uncle", "Neighbour", "Banana", "Prank", "Mother-in-Law", "Waiter", "Holiday", "Mix-Up",
     "Landlord", "Plumber", "Cousin", "Disguise"),
    ("Sword", "Dragon", "Wizard", "Throne", "Griffin", "Amulet", "Sorcerer", "Citadel", "Goblin",
     "Prophecy", "Unicorn", "Labyrinth"),
)  # fmt: skip
_PATTERNS = (
    "The {a} {n}",
    "{a} {n} Nights",
    "{n} of the {a} Sea",
    "{n}, {a} and Alone",
    "My {a} {n}",
    "Return to the {a} {n}",
    "{a} {n}: The Series",
    "Déjà Vu, {a} {n}",
)
_PER_GENRE = len(_ADJECTIVES) * len(_NOUNS[0]) * len(_PATTERNS)

_FIRST_YEAR = 1890
_YEARLESS_SHARE = 7 / 17_770  # the prize's: seven movies without a year


def titles(seed: int, genre: NDArray[np.int32], last_year: int) -> pa.Table:
    """Name the items 1 .. n.

    Args:
        seed: of the data set.
        genre: int32[n], 0 .. 11.
        last_year: latest year of release.

    Returns:
        ``item_id`` int64, ``title`` string (unique, latin-1), ``year`` int16 (null for at least
        one item), one row an item in the order of the ids.
    """
    n = len(genre)
    words = np.empty(n, np.uint64)
    philox.keyed_words(seed, nr.STREAM_SYNTH_TITLE, nr.hash_ids(np.arange(1, n + 1)), words)
    names: list[str] = []
    count = [0] * N_GENRES
    for g in genre.tolist():
        names.append(_name(seed, g, count[g]))
        count[g] += 1
    # Most movies are recent, as in the prize: the cube root of the age is uniform.
    share = (words >> np.uint64(32)).astype(np.float64) / 2.0**32
    age = np.minimum(share**3, 0.999) * max(1, last_year - _FIRST_YEAR)
    year = (last_year - age.astype(np.int64)).astype(np.int16)
    unknown = np.zeros(n, bool)
    unknown[np.argsort(words & np.uint64(0xFFFFFFFF), kind="stable")[: _n_yearless(n)]] = True
    columns: dict[str, Any] = {
        "item_id": pa.array(np.arange(1, n + 1), pa.int64()),
        "title": pa.array(names, pa.string()),
        "year": pa.array(year, pa.int16(), mask=unknown),
    }
    return pa.table(columns)


def _n_yearless(n: int) -> int:
    return max(1, round(n * _YEARLESS_SHARE))


def _name(seed: int, genre: int, k: int) -> str:
    # The k-th combination in a fixed scattered order: the step has no factor in common with the
    # number of combinations, so none comes twice before all came once; then volumes follow.
    volume, k = divmod(k, _PER_GENRE)
    at = (k * 1_789 + genre * 317 + seed % _PER_GENRE) % _PER_GENRE
    at, adjective = divmod(at, len(_ADJECTIVES))
    noun, pattern = divmod(at, len(_PATTERNS))
    name = _PATTERNS[pattern].format(a=_ADJECTIVES[adjective], n=_NOUNS[genre][noun])
    return name if volume == 0 else f"{name}, Vol. {volume + 1}"
