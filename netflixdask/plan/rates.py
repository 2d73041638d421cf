"""The work that one core does in a second: what time estimates rest on.

``rates.toml`` beside this file has them, and says on which machine and how they were measured.
``netflixdask doctor --rates`` measures those of this machine, on made-up ratings and with the
stages themselves, and keeps them beside the compiled kernels (:func:`own_path`), one file a CPU
type; plans take that file if it is there.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from netflixdask.errors import ConfigError
from netflixdask.kernels import cache_dir

SHIPPED = Path(__file__).with_name("rates.toml")


@dataclass(frozen=True)
class Rates:
    """Units of work a second and core, by name."""

    values: Mapping[str, float]
    source: str
    """Where they come from."""

    def __getitem__(self, name: str) -> float:
        return self.values[name]


def own_path() -> Path:
    """Return the file of the rates that were measured on CPUs of this type."""
    # Beside the folder of kernels, whose name changes with the code.
    folder = cache_dir()
    return folder.parent.parent / "rates" / f"{folder.name.split('-numba')[0]}.toml"


def load_rates() -> Rates:
    """Return the rates of this machine if they were measured, else those of the package.

    Raises:
        ConfigError: if the file cannot be read.
    """
    own = own_path()
    shipped = _read(SHIPPED, SHIPPED.stat().st_mtime_ns)
    if not own.is_file():
        return shipped
    mine = _read(own, own.stat().st_mtime_ns)
    return Rates({**shipped.values, **mine.values}, mine.source)


def write_rates(values: Mapping[str, float], how: str) -> Path:
    """Keep the rates of this machine, and say how they were measured."""
    path = own_path()
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = [f"how = {how!r}", "", "[rates]"]
    lines += [f"{name} = {value:.6g}" for name, value in values.items()]
    temporary = path.with_suffix(".tmp")
    temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    temporary.replace(path)
    return path


@functools.lru_cache(maxsize=4)
def _read(path: Path, _: int) -> Rates:
    try:
        found = tomllib.loads(path.read_text(encoding="utf-8"))
        values = {str(name): float(value) for name, value in found["rates"].items()}
        if not all(value > 0 for value in values.values()):
            raise ValueError("a rate is not above 0")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(
            f"{path}: cannot be read as rates ({error}); remove it, or measure again with "
            "netflixdask doctor --rates"
        ) from None
    return Rates(values, str(path))
