"""A run that compiles says so; one that finds its kernels is silent."""

from __future__ import annotations

from pathlib import Path

import pytest

from netflixdask.flow.compiled import announce_compilation, remember_compilation


def test_a_flow_is_announced_until_it_has_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(flow: str) -> bool:
        announce_compilation(flow)
        return "first run of this flow here" in capsys.readouterr().err

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert said("quickstart")
    remember_compilation("quickstart")
    assert not said("quickstart")
    assert said("netflix_prize")
    remember_compilation(str(tmp_path / "mine.py"))
    assert not said("mine.py")


def test_a_cache_that_cannot_be_written_is_no_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "netflixdask").write_text("a file where the folder should be")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    remember_compilation("quickstart")
    announce_compilation("quickstart")
