"""Verbs of ``netflixdask store``: info, check, clean."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Annotated, Any

import typer

from netflixdask.cli.common import (
    Cluster,
    Json,
    Quiet,
    artifact_rows,
    make_table,
    session,
    store_dict,
    store_table,
)
from netflixdask.store.artifacts import Artifact
from netflixdask.store.check import check as run_check
from netflixdask.store.check import open_any
from netflixdask.store.clean import clean_store, old_generations
from netflixdask.store.manifest import DamagedManifest
from netflixdask.store.parquet import FileEntry
from netflixdask.store.ratings import RatingsStore
from netflixdask.store.room import files_below, size_text
from netflixdask.words import counted

HELP = "Look after stores and artifacts: what is in one, is it sound, remove what is old."
DAMAGED = 1

AnyPath = Annotated[Path, typer.Argument(metavar="PATH", help="A ratings store or an artifact.")]


def info(path: AnyPath, as_json: Json = False, quiet: Quiet = False) -> None:
    """Tell what a store or an artifact holds, and how much room it takes."""
    found = open_any(path)
    with session("sequential", as_json, quiet, client=False) as out:
        if isinstance(found, RatingsStore):
            value = store_info(found)
            out.show(value, store_table(found), *_info_tables(found, value))
        else:
            value = artifact_info(found)
            rows = [(key, _cell(item)) for key, item in value.items() if key != "rows"]
            named = make_table(f"{found.kind}: {found.path}", ["", ""], rows)
            out.show(value, named, make_table("tables", ["table", "rows"], artifact_rows(found)))


def check(
    path: AnyPath, cluster: Cluster = "laptop", as_json: Json = False, quiet: Quiet = False
) -> None:
    """Read every file and say what is damaged; exit code 1 if anything is."""
    with contextlib.suppress(DamagedManifest):  # reported like other damage
        open_any(path)  # refused before a cluster is started
    with session(cluster, as_json, quiet) as out:
        report = run_check(path)
        rows: list[tuple[str, Any]] = [
            ("files", report.n_files),
            ("rows", report.n_rows),
            ("bytes", report.n_bytes),
            ("problems", len(report.problems)),
        ]
        title = f"{report.kind}: {report.path}: {'sound' if report.sound else 'DAMAGED'}"
        tables = [make_table(title, ["", "count"], rows)]
        if report.problems:
            # A line each, to be read by people and by grep.
            tables[0].caption = "\n".join(report.problems)
        out.show(report.to_dict(), *tables)
        if not report.sound:
            raise typer.Exit(DAMAGED)


def clean(path: AnyPath, as_json: Json = False, quiet: Quiet = False) -> None:
    """Remove old generations, and what interrupted runs left."""
    with session("sequential", as_json, quiet, client=False) as out:
        report = clean_store(path)
        rows = [(one.name, one.what, one.bytes) for one in report.removed]
        table = make_table(f"cleaned: {report.path}", ["removed", "what", "bytes"], rows)
        table.caption = (
            f"{size_text(report.freed)} freed (files that are shared stay)"
            if rows
            else "nothing to remove"
        )
        out.show(report.to_dict(), table)


def store_info(store: RatingsStore) -> dict[str, Any]:
    """Return what ``--json`` prints of a store: its figures, files, generations and sources."""
    manifest = store.manifest
    others = [entry for entry in (manifest.duplicates, manifest.rejects) if entry is not None]
    files = {
        "by_user": _room(manifest.by_user, store.n_ratings),
        "by_item": _room(manifest.by_item, store.n_ratings),
        "ids": _room([manifest.users, manifest.items]),
        "holdouts": _room(list(manifest.holdout.values())),
        "set aside": _room(others),
    }
    return {
        **store_dict(store),
        "created": manifest.created,
        "package_version": manifest.package_version,
        "schema_version": manifest.schema_version,
        "ids": {"user": manifest.user_id_kind, "item": manifest.item_id_kind},
        "id_generations": manifest.id_generations,
        "config": manifest.config,
        "bytes": sum(part["bytes"] for part in files.values()),
        "files": files,
        "generations": _generations(store),
        "sources": [source.model_dump() for source in manifest.sources],
    }


def artifact_info(artifact: Artifact) -> dict[str, Any]:
    """Return what ``--json`` prints of an artifact."""
    manifest = artifact.manifest
    return {
        "path": str(artifact.path),
        "kind": manifest.kind,
        "created": manifest.created,
        "package_version": manifest.package_version,
        "fingerprint": artifact.fingerprint,
        "files": len(manifest.files),
        "bytes": sum(entry.bytes for entry in manifest.files),
        "rows": dict(artifact_rows(artifact)),
        "config": manifest.config,
        "inputs": manifest.inputs,
        "stats": manifest.stats,
    }


def _room(entries: list[Any], n_ratings: int = 0) -> dict[str, Any]:
    files: list[FileEntry] = entries
    n_bytes = sum(entry.bytes for entry in files)
    room: dict[str, Any] = {
        "files": len(files),
        "rows": sum(entry.rows for entry in files),
        "bytes": n_bytes,
    }
    if n_ratings:
        room["bytes_a_rating"] = round(n_bytes / n_ratings, 3)
    return room


def _generations(store: RatingsStore) -> list[dict[str, Any]]:
    """Return the generations on the disk, the newest last, with the bytes that are theirs alone."""
    folders = [*old_generations(store), store.folder]
    found = []
    for folder in folders:
        inodes = files_below(folder).values()
        found.append(
            {
                "name": folder.name,
                "newest": folder == store.folder,
                "files": len(inodes),
                "bytes": sum(inode.bytes for inode in inodes),
                "not_shared": sum(i.bytes for i in inodes if i.names == i.links),
            }
        )
    return found


def _info_tables(store: RatingsStore, value: dict[str, Any]) -> list[Any]:
    manifest = store.manifest
    scale = manifest.rating
    facts = [
        ("layout", manifest.layout),
        ("ratings", f"{scale.low:g} to {scale.high:g}" + _steps(scale.scale)),
        ("time", manifest.time_kind),
        ("ids", f"users {manifest.user_id_kind}, items {manifest.item_id_kind}"),
        ("written", f"{manifest.created} by netflixdask {manifest.package_version}"),
        ("fingerprint", store.fingerprint),
        *[(f"option {key}", _cell(option)) for key, option in manifest.config.items()],
    ]
    files = [
        (name, part["files"], part["bytes"], part.get("bytes_a_rating"))
        for name, part in value["files"].items()
        if part["files"]
    ]
    files.append(("all", sum(row[1] for row in files), value["bytes"], None))
    old = [
        (one["name"], "newest" if one["newest"] else "old", one["bytes"], one["not_shared"])
        for one in value["generations"]
    ]
    sources = [(s.file, s.role, s.size, s.rows, s.md5) for s in manifest.sources]
    stars = [
        (stars, count, f"{100 * count / max(1, store.n_ratings):.2f}")
        for stars, count in manifest.stars.items()
    ]
    generations = make_table(
        "generations", ["generation", "state", "bytes", "of its own alone"], old
    )
    if len(old) > 1:
        generations.caption = f"netflixdask store clean {store.path} removes the old ones"
    return [
        make_table("facts", ["", ""], facts),
        make_table("files", ["part", "files", "bytes", "bytes a rating"], files),
        generations,
        make_table("sources", ["file", "role", "bytes", "rows", "md5"], sources),
        make_table("stars", ["stars", "ratings", "percent"], stars),
    ]


def _steps(scale: int | None) -> str:
    if scale is None:
        return ", any value"
    return f", {counted(scale, 'step')} a star"


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_cell(one)}" for key, one in value.items())
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)


VERBS = (info, check, clean)
