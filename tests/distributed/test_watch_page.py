"""The page on the scheduler's dashboard, opened by a browser while a flow runs."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

import netflixdask as nd
from netflixdask.flow import run_flow
from netflixdask.progress import quiet
from tests.browser import CHROMIUM, PATIENCE, Tab, keep, tab
from tests.small import SIZE

pytestmark = [
    pytest.mark.distributed,
    pytest.mark.skipif(not CHROMIUM, reason="no Chromium"),
]


def seen(page: Tab) -> dict[str, Any]:
    """Return the numbers that the browser shows now."""
    epochs = page.each(".key .epoch")
    return {
        "status": (page.each(".head .pill") or [""])[0],
        "steps": int((page.each("#steps") or ["0"])[0]),
        "epochs": sum(map(int, epochs)),
        "points": sum(page.each("polyline.curve", "e.points.length")),
        "moved": (page.each("#moved") or [""])[0],
        "rates": [text for text in page.each(".below") if "rows/s" in text],
        "workers": len(page.each(".worker")),
        "lines": len(page.each("#events tr, .grid.two .panel:first-child tr")),
    }


@pytest.mark.slow
def test_a_browser_sees_a_flow_move_and_end(tmp_path: Path) -> None:
    failed: list[BaseException] = []

    def flow() -> None:
        options = {**SIZE, "n_ratings": 60_000, "n_users": 1_200}
        try:
            with quiet():
                run_flow("quickstart", tmp_path / "demo", options=options)
        except BaseException as error:
            failed.append(error)

    with nd.open_client(quiet=True, workers=2, threads=1) as client, tab(tmp_path) as page:
        where = client.dashboard_link.replace("/status", "/netflixdask")
        page.send("Page.navigate", url=where)
        thread = threading.Thread(target=flow)
        thread.start()
        shown: list[dict[str, Any]] = []
        end = time.monotonic() + PATIENCE
        shot = False
        try:
            while time.monotonic() < end:
                now = seen(page)
                if not shown or now != shown[-1]:
                    shown.append(now)
                if not shot and now["epochs"] > 12:
                    keep(page, tmp_path, "running")
                    shot = True
                if now["status"] in ("done", "failed"):
                    break
                time.sleep(0.2)
        finally:
            thread.join()
        assert not failed, failed
        # What an operator looks at moved while the flow ran.
        running = [now for now in shown if now["status"] == "running"]
        assert len({now["steps"] for now in running}) >= 3
        assert len({now["epochs"] for now in running}) >= 2
        assert len({rate for now in running for rate in now["rates"]}) >= 2
        assert len({now["moved"] for now in shown}) >= 2
        assert running[-1]["lines"] > running[0]["lines"]
        # It stays when the run has ended, and says what it was.
        last = shown[-1]
        assert (last["status"], last["workers"]) == ("done", 2)
        assert last["points"] >= 40  # two fits of ten epochs at least, against seconds and epochs
        # One more box: the submission, which is written between the steps.
        assert last["steps"] + 1 == len(page.each(".step")) == len(page.each(".step.done"))
        assert {"raw", "store", "neighbors", "model-als"} <= set(page.each(".step .name"))
        edges, names = page.each(".edge"), page.each(".grid.two td a")
        assert len(edges) >= last["steps"] - 2  # all but the first step and the submission
        assert names == ["quickstart"]
        assert page.run("document.documentElement.scrollWidth <= window.innerWidth")
        assert page.each(".navbar a[href='netflixdask']") == ["Netflixdask"]
        grounds = []
        for name, dark in (("light", False), ("dark", True)):
            page.dark(dark)
            grounds.append(
                (
                    page.run("getComputedStyle(document.body).backgroundColor"),
                    page.each(".panel", "getComputedStyle(e).backgroundColor")[0],
                )
            )
            keep(page, tmp_path, name)
        assert grounds[0] != grounds[1]
        assert grounds[1][0] == "rgb(21, 25, 29)"
