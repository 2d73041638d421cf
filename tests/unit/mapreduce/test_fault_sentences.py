"""What is said when a cluster fails."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from netflixdask.cli import app
from netflixdask.errors import ClusterError, NoSchedulerError
from netflixdask.mapreduce import faults


def killed(nanny: str | None = None) -> Any:
    worker = SimpleNamespace(address="tcp://10.0.0.3:4", nanny=nanny, memory_limit=2_500_000_000)
    key = ("similarity-map-3f9a12x7", 0, 12)
    return SimpleNamespace(task=key, last_worker=worker, allowed_failures=3)


def test_tasks_are_named_as_on_the_dashboard() -> None:
    assert faults.task_name(("similarity-map-3f9a12x7", 0, 12)) == "similarity-map 0, 12"
    assert faults.task_name("something-else") == "something-else"


def test_workers_that_died_without_a_word() -> None:
    said = str(faults.workers_died("similarity", killed(), (), "list_bytes="))
    assert said.startswith(
        "similarity: task similarity-map 0, 12: 4 workers died on it one after the other, the last "
        "one at tcp://10.0.0.3:4, and none said why: look into its log"
    )
    assert "list_bytes" not in said


@pytest.mark.parametrize("told", ["tcp://10.0.0.3:4", "tcp://10.0.0.3:5"])
def test_workers_over_their_limit(told: str) -> None:
    events = [(0.0, {"worker": told, "pid": 1, "rss": 1})]
    error = killed(nanny="tcp://10.0.0.3:5")
    said = str(faults.workers_died("similarity", error, events, "list_bytes="))
    assert "took more than their memory limit of 2.5 GB; give each worker more memory" in said
    assert "or lower what a task needs: list_bytes=; then run the same command again" in said
    assert "lower what" not in str(faults.workers_died("similarity", error, events, ""))


def test_paused_workers() -> None:
    said = str(faults.no_workers("als", "tcp://10.0.0.2:8786", 3, 500_000_000))
    assert "the memory of all 3 workers has been full for 300 s" in said
    assert "limit of one: 500 MB" in said


def test_the_command_to_run_again_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def end(error: Exception) -> Any:
        def fail(*_: Any, **__: Any) -> None:
            raise error

        return fail

    arguments = ["stats", "my store", "out", "--cluster", "tcp://10.0.0.2:8786"]
    gone = faults.scheduler_gone("stats", "tcp://10.0.0.2:8786", "the connection is closed")
    monkeypatch.setattr(app, "app", end(gone))
    assert app.run(arguments) == 1
    err = capsys.readouterr().err
    assert "error: stats: the scheduler at tcp://10.0.0.2:8786 is gone" in err
    again = "again: netflixdask stats 'my store' out --cluster tcp://10.0.0.2:8786"
    assert again in err.splitlines()
    for other in (NoSchedulerError("no scheduler"), ValueError("odd")):
        monkeypatch.setattr(app, "app", end(other))
        assert app.run(arguments) != 0
        assert "again:" not in capsys.readouterr().err
    assert issubclass(NoSchedulerError, ClusterError)
