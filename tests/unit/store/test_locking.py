"""One writer a folder: of two processes one is refused, and what a dead one left is cleaned."""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from netflixdask.errors import StoreError
from netflixdask.store import locking, new_artifact, open_artifact
from netflixdask.store.artifacts import check_output
from netflixdask.store.build import check_store_output, new_store
from netflixdask.store.clean import clean_store
from netflixdask.store.locking import STAGING, Owner, label, owner_of, writing
from netflixdask.store.room import Filesystem

HOLD = """
import sys
import pyarrow as pa
from netflixdask.store import new_artifact
from netflixdask.store.build import new_store

path, what, overwrite = sys.argv[1], sys.argv[2], sys.argv[3] == "overwrite"
if what == "store":
    with new_store(path, overwrite=overwrite) as writer:
        writer.write("users.parquet", pa.table({"a": [1]}))
        print("ready", flush=True)
        sys.stdin.read()
with new_artifact(path, "stats", overwrite=overwrite) as writer:
    writer.write("one.parquet", pa.table({"a": [1]}))
    print("ready", flush=True)
    sys.stdin.read()
"""
# Dies like one that is killed when it has moved `n` names into place.
DIE = """
import os, sys, pathlib
import pyarrow as pa
from netflixdask.store import new_artifact

path, left = sys.argv[1], int(sys.argv[2])
rename = pathlib.Path.rename

def mortal(self, target):
    global left
    if left == 0:
        os._exit(9)
    left -= 1
    return rename(self, target)

with new_artifact(path, "stats", overwrite=True) as writer:
    for name in ("a.parquet", "b/part-00000.parquet"):
        writer.write(name, pa.table({"a": [2]}))
    pathlib.Path.rename = mortal
    writer.commit(config={}, inputs={})
"""


@pytest.fixture
def hold() -> Iterator[Callable[..., subprocess.Popen[str]]]:
    """Start a process that writes in a folder until it is killed or its input is closed."""
    started: list[subprocess.Popen[str]] = []

    def start(path: Path, what: str, overwrite: str = "") -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(path), what, overwrite],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            encoding="utf-8",
        )
        started.append(process)
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


def make(path: Path, *, overwrite: bool = False, value: int = 1) -> None:
    with new_artifact(path, "stats", overwrite=overwrite) as writer:
        writer.write("one.parquet", pa.table({"a": [value]}))
        writer.commit(config={}, inputs={})


def everything(path: Path) -> dict[str, bytes]:
    return {str(p.relative_to(path)): p.read_bytes() for p in path.rglob("*") if p.is_file()}


@pytest.mark.parametrize("what", ["store", "artifact"])
def test_a_second_writer_is_refused_at_once_and_a_dead_one_is_cleaned_up_after(
    what: str, tmp_path: Path, hold: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    process = hold(out, what)
    staged = everything(out)
    assert len(staged) == 1
    said = rf"out: process {process.pid} on {socket.gethostname()} is writing there now; wait"
    attempts: list[Callable[[], Any]] = [
        lambda: make(out),
        lambda: make(out, overwrite=True),
        lambda: new_store(out).__enter__(),
        lambda: new_store(out, overwrite=True).__enter__(),
        lambda: check_output(out, overwrite=True),
        lambda: check_store_output(out, overwrite=False),
        lambda: clean_store(out),
    ]
    for attempt in attempts:
        start = time.monotonic()
        with pytest.raises(StoreError, match=said):
            attempt()
        assert time.monotonic() - start < 5
        assert everything(out) == staged, "a refused run changed something"
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    make(out)
    assert open_artifact(out).table("one").to_pydict() == {"a": [1]}
    assert sorted(p.name for p in out.iterdir()) == ["manifest.json", "one.parquet"]
    assert "cleaned what an interrupted run left" in capsys.readouterr().err


def test_an_artifact_that_is_being_replaced_is_read_meanwhile(tmp_path: Path, hold: Any) -> None:
    make(tmp_path / "out")
    process = hold(tmp_path / "out", "artifact", "overwrite")
    assert open_artifact(tmp_path / "out").table("one").to_pydict() == {"a": [1]}
    with pytest.raises(StoreError, match=f"process {process.pid} on"):
        make(tmp_path / "out", overwrite=True)
    process.kill()
    process.communicate()
    make(tmp_path / "out", overwrite=True, value=5)
    assert open_artifact(tmp_path / "out").table("one").to_pydict() == {"a": [5]}
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["manifest.json", "one.parquet"]


@pytest.mark.parametrize("moved", [0, 1, 2])
def test_killed_while_it_moves_files_into_place(moved: int, tmp_path: Path) -> None:
    """Then there is no artifact, and the next run removes what was moved, and nothing else."""
    out = tmp_path / "out"
    make(out)
    (out / "notes.txt").write_text("mine")
    done = subprocess.run([sys.executable, "-c", DIE, str(out), str(moved)], check=False)
    assert done.returncode == 9
    with pytest.raises(StoreError, match=r"it has no manifest\.json"):
        open_artifact(out)
    assert len([p for p in out.iterdir() if p.suffix == ".parquet" or p.name == "b"]) == moved
    with pytest.raises(StoreError, match=r"no manifest\.json, but notes\.txt"):
        make(out)
    (out / "notes.txt").rename(tmp_path / "notes.txt")
    make(out, value=7)
    assert sorted(p.name for p in out.iterdir()) == ["manifest.json", "one.parquet"]
    assert open_artifact(out).table("one").to_pydict() == {"a": [7]}


def test_what_is_not_ours_is_neither_removed_nor_written_beside(tmp_path: Path) -> None:
    make(tmp_path / "out")
    (tmp_path / "out" / "notes.txt").write_text("mine")
    make(tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "notes.txt").read_text() == "mine"
    foreign = tmp_path / "foreign"
    for name in (f"{STAGING}x/part.parquet", "letters/a.txt", "gen-1/b.txt"):
        (foreign / name).parent.mkdir(parents=True)
        (foreign / name).write_text("dear")
    before = everything(foreign)
    for attempt in (lambda: make(foreign), lambda: new_store(foreign, overwrite=True).__enter__()):
        with pytest.raises(StoreError, match=r"holds other files \(no manifest\.json, but gen-1\)"):
            attempt()
    with pytest.raises(StoreError, match="no store to append to"):
        new_store(foreign, append=True).__enter__()
    assert everything(foreign) == before


def test_two_threads_of_one_process(tmp_path: Path) -> None:
    entered, go_on = threading.Event(), threading.Event()
    found: list[str] = []

    def first() -> None:
        with new_artifact(tmp_path / "out", "stats") as writer:
            writer.write("one.parquet", pa.table({"a": [1]}))
            entered.set()
            go_on.wait(20)
            writer.commit(config={}, inputs={})

    thread = threading.Thread(target=first)
    thread.start()
    assert entered.wait(20)
    with pytest.raises(StoreError, match="is writing there now") as refused:
        make(tmp_path / "out")
    found.append(str(refused.value))
    go_on.set()
    thread.join()
    assert str(os.getpid()) in found[0]
    with pytest.raises(StoreError, match="exists already"):
        make(tmp_path / "out")


def test_a_look_does_not_refuse_a_writer(tmp_path: Path) -> None:
    """Long work looks whether the folder is free, for a moment; whoever comes then waits."""
    handle = os.open(tmp_path, os.O_RDONLY)
    fcntl.flock(handle, fcntl.LOCK_EX)
    timer = threading.Timer(0.1, os.close, (handle,))
    timer.start()
    with writing(tmp_path) as made:
        assert not made
    timer.join()


def test_the_lock_is_on_the_folder_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that fails removes the folder it had made, which another may just have opened."""
    out = tmp_path / "out"
    flock, n_calls = fcntl.flock, 0

    def replaced_before_the_lock(handle: int, what: int) -> None:
        nonlocal n_calls
        n_calls += 1
        if n_calls == 1:
            out.rmdir()
        flock(handle, what)

    monkeypatch.setattr(fcntl, "flock", replaced_before_the_lock)
    make(out)
    assert n_calls > 2
    assert open_artifact(out).kind == "stats"


def ended() -> int:
    """The number of a process that has ended."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def left(path: Path, pid: int, host: str) -> Path:
    """What a run of that process left in a folder."""
    folder = path / f"{STAGING}{pid}-0a1b2c3d-{host}"
    (folder / "nums").mkdir(parents=True)
    (folder / "nums" / "part.parquet").write_text("half")
    return folder


@pytest.mark.parametrize("code", [errno.ENOLCK, errno.EOPNOTSUPP, errno.EBADF])
def test_without_locks_the_names_of_the_staging_folders_tell(
    code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def no_locks(handle: int, what: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    host = socket.gethostname()
    dead = left(tmp_path / "a", ended(), host)
    make(tmp_path / "a")
    assert not dead.exists()
    err = capsys.readouterr().err
    assert "cleaned what an interrupted run left" in err
    assert "keeps no locks; take care that no other run writes there meanwhile" in err
    check_output(tmp_path / "a", overwrite=True)
    assert capsys.readouterr().err == "", "a look warns nobody"
    for pid, where in ((os.getpid(), host), (ended(), "elsewhere")):
        living = left(tmp_path / where, pid, where)
        said = f"process {pid} on {where} is writing there, or was killed there .* remove "
        with pytest.raises(StoreError, match=said + str(living)):
            make(tmp_path / where)
        with pytest.raises(StoreError, match=said):
            clean_store(tmp_path / where)
        assert (living / "nums" / "part.parquet").exists()
        shutil.rmtree(living)
        make(tmp_path / where)


@pytest.mark.parametrize(
    ("kind", "cleaned"), [("ext4", True), ("nfs4", False), ("fuse.sshfs", False)]
)
def test_a_lock_reaches_other_hosts_only_where_the_disk_is_one_machines(
    kind: str, cleaned: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locking, "filesystem", lambda path: Filesystem("/d", kind, 9, 9))
    own = left(tmp_path / "own", os.getpid(), socket.gethostname())
    make(tmp_path / "own")  # this process writes nothing: the number was used again
    assert not own.exists()
    other = left(tmp_path / "other", ended(), "elsewhere")
    if cleaned:
        make(tmp_path / "other")
        assert not other.exists()
        return
    with pytest.raises(StoreError, match=r"process \d+ on elsewhere is writing there, or was"):
        make(tmp_path / "other")
    assert other.exists()


def test_names_tell_their_process() -> None:
    owner = owner_of(label())
    assert owner == Owner(os.getpid(), socket.gethostname())
    assert not owner.has_ended
    assert Owner(ended(), socket.gethostname()).has_ended
    assert not Owner(ended(), "elsewhere").has_ended
    assert not Owner(10**30, socket.gethostname()).has_ended
    assert [owner_of(text) for text in ("", "x", "12-zz-host", "12-0a1b2c3d-")] == [None] * 4
    assert label() != label()
