"""The base of all configuration: constructor, TOML file and ``--set`` build the same object."""

from __future__ import annotations

import difflib
import tomllib
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import pydantic

from netflixdask.errors import ConfigError


class Config(pydantic.BaseModel):
    """A frozen, typed set of options that forbids unknown names."""

    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)

    @pydantic.model_validator(mode="before")
    @classmethod
    def _split_lists(cls, data: Any) -> Any:
        """Let ``--set models=bias,als`` give a field that is a tuple."""
        if not isinstance(data, Mapping):
            return data
        found = dict(data)
        for name, field in cls.model_fields.items():
            if typing.get_origin(field.annotation) is tuple and isinstance(found.get(name), str):
                found[name] = [part.strip() for part in found[name].split(",") if part.strip()]
        return found

    @classmethod
    def build(cls, config: Self | None = None, /, **options: Any) -> Self:
        """Take a finished ``config`` or its options by name, never both.

        Raises:
            ConfigError: if an option is unknown or out of range, with what is known or allowed.
        """
        if config is not None:
            if options:
                names = ", ".join(sorted(options))
                raise ConfigError(
                    f"{cls.__name__}: found a configuration object and also {names}; "
                    "give one or the other"
                )
            return config
        try:
            return cls(**options)
        except pydantic.ValidationError as error:
            raise ConfigError(_explain(cls, error)) from None

    @classmethod
    def from_strings(cls, pairs: Mapping[str, str]) -> Self:
        """Build from ``--set key=value`` texts; pydantic turns each text into its field's type."""
        return cls.build(**pairs)


def _explain(cls: type[Config], error: pydantic.ValidationError) -> str:
    lines = []
    for item in error.errors():
        name = ".".join(str(part) for part in item["loc"]) or "options"
        if item["type"] == "extra_forbidden":
            known = _options_at(cls, item["loc"][:-1])
            line = f"{cls.__name__}: unknown option {name!r}; known are: {', '.join(known)}"
            near = difflib.get_close_matches(str(item["loc"][-1]), known, n=1)
            lines.append(line + (f"; did you mean {near[0]!r}?" if near else ""))
        elif item["type"] == "value_error":
            lines.append(f"{cls.__name__}: {item['ctx']['error']}")
        else:
            lines.append(f"{cls.__name__}: {name} = {item['input']!r}: {item['msg'].lower()}")
    return "; ".join(lines)


def _options_at(cls: type[Config], place: tuple[int | str, ...]) -> list[str]:
    """Return the options of the group at ``place`` in a configuration."""
    for part in place:
        field = cls.model_fields.get(str(part))
        inner = [] if field is None else [field.annotation, *typing.get_args(field.annotation)]
        cls = next((a for a in inner if isinstance(a, type) and issubclass(a, Config)), cls)
    return list(cls.model_fields)


def flat(options: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Turn nested options into those of ``--set``, in order.

    >>> flat({"als": {"reg": 0.1, "epochs": 9}, "seed": 0})
    {'als.reg': 0.1, 'als.epochs': 9, 'seed': 0}
    """
    found: dict[str, Any] = {}
    for name, value in options.items():
        if isinstance(value, Mapping):
            found |= flat(value, f"{before}{name}.")
        else:
            found[f"{before}{name}"] = value
    return found


def read_toml(path: Path, what: str = "") -> dict[str, Any]:
    """Read a file of options.

    Args:
        path: the file.
        what: it is, for the error: ``the cluster file``.

    Raises:
        ConfigError: if it cannot be read, or is not TOML.
    """
    said = f"{path}: {what} cannot" if what else f"{path}: cannot"
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{said} be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path}: is not TOML ({error})") from None
