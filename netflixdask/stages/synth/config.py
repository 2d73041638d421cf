"""Options of the generator, and what it refuses."""

from __future__ import annotations

import datetime as dt
from typing import Literal

from netflixdask.config import Config
from netflixdask.errors import ConfigError
from netflixdask.random import seed_of
from netflixdask.stages.synth.tables import PRIZE_FIRST_DAY, PRIZE_LAST_DAY

MIN_ITEMS = 20
MIN_DAYS = 30
MAX_DENSITY = 0.5

SynthLayout = Literal["store", "netflix", "tar", "combined"]


class SynthConfig(Config):
    """Options of :func:`netflixdask.stages.synth.synth`."""

    n_ratings: int = 100_000
    """Training ratings, those of the probe included; quiz and test (2.8 % at the prize's shape)
    come on top."""
    n_users: int = 1_000
    """Users; every one has at least one training rating."""
    n_items: int = 500
    """Movies."""
    seed: int = 0
    """Another seed gives other ratings of the same shape."""
    layout: SynthLayout = "store"
    """``store``, or the prize's own text: ``netflix`` (a folder of mv files), ``tar``
    (training_set.tar) or ``combined`` (four combined_data files)."""
    first_day: dt.date = PRIZE_FIRST_DAY
    """Day of the first ratings."""
    last_day: dt.date = PRIZE_LAST_DAY
    """Day of the last ratings; most ratings are in the last fifth of the time."""

    def check(self) -> None:
        """Refuse sizes that no data of this shape can have.

        Raises:
            ConfigError: with what was found and what is possible.
        """
        seed_of(self.seed)
        if self.n_items < MIN_ITEMS:
            raise ConfigError(f"n_items = {self.n_items:,}: expected at least {MIN_ITEMS} items")
        if self.n_items > 9_999_999:
            raise ConfigError(
                f"n_items = {self.n_items:,}: expected at most 9,999,999, the last movie number "
                "that a file name mv_0000000.txt has room for"
            )
        if self.n_users < 10:
            raise ConfigError(f"n_users = {self.n_users:,}: expected at least 10 users")
        if self.n_users > 300_000_000:
            raise ConfigError(
                f"n_users = {self.n_users:,}: expected at most 300,000,000, so that user ids fit "
                "31 bits"
            )
        need = max(self.n_users, self.n_items)
        if self.n_ratings < need:
            raise ConfigError(
                f"n_ratings = {self.n_ratings:,}: expected at least {need:,}, one for each of "
                f"{self.n_users:,} users and {self.n_items:,} items; ask for more ratings, or for "
                "fewer users or items"
            )
        cells = self.n_users * self.n_items
        if self.n_ratings > MAX_DENSITY * cells:
            raise ConfigError(
                f"n_ratings = {self.n_ratings:,}: expected at most {int(MAX_DENSITY * cells):,}, "
                f"half of the {cells:,} pairs of {self.n_users:,} users and {self.n_items:,} "
                "items (the prize's density is 1.2 %); ask for fewer ratings, or for more users "
                "or items"
            )
        if (self.last_day - self.first_day).days + 1 < MIN_DAYS:
            raise ConfigError(
                f"first_day = {self.first_day}, last_day = {self.last_day}: expected at least "
                f"{MIN_DAYS} days from the first to the last"
            )
        limit = dt.date(1970, 1, 1) + dt.timedelta(days=32_767)
        if self.first_day < dt.date(1881, 1, 1) or self.last_day > limit:
            raise ConfigError(
                f"first_day = {self.first_day}, last_day = {self.last_day}: expected days from "
                f"1881-01-01 to {limit}"
            )
