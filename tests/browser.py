"""A real browser that opens our pages, without a window and without a network."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)


def browse(page: Path, tmp_path: Path, *options: str, fragment: str = "") -> str:
    """Open a page; return what the browser prints."""
    done = subprocess.run(
        [
            CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
            "--no-first-run", "--disable-background-networking", "--disable-component-update",
            "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars",
            "--window-size=1500,1180", "--virtual-time-budget=20000",
            f"--user-data-dir={tmp_path / 'profile'}", *options, page.as_uri() + fragment,
        ],
        capture_output=True, encoding="utf-8", timeout=120, check=True,
    )  # fmt: skip
    return done.stdout


def said(page: str, name: str) -> int:
    """Return a number that the page's script left on its body."""
    found = re.search(rf'<body[^>]*data-{name}="(\d+)"', page)
    assert found is not None, page[-2000:]
    return int(found[1])
