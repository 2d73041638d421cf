"""The page of clusters: what it says, that it stands alone, and what a browser makes of it."""

from __future__ import annotations

import html
import re
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pytest

from netflixdask.answers import draw_clusters
from netflixdask.answers.picture import bin_edges, overlap
from netflixdask.cluster import open_client
from netflixdask.errors import InputError, StoreError
from netflixdask.mapreduce import SequentialEngine
from netflixdask.stages.canopy import CanopyConfig, canopy
from netflixdask.stages.synth import SynthConfig, synth
from netflixdask.store import Artifact
from netflixdask.store.artifacts import new_artifact
from tests.browser import CHROMIUM, browse, said

EVIL = 'The </script><b>Bold & "Brave"</b> Été'
TABLES = ("canopies", "centers", "clusters", "seeds", "map", "items")


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    """Canopies of a synthetic catalogue; the most rated item has a title of HTML."""
    folder = tmp_path_factory.mktemp("canopies")
    config = SynthConfig.build(n_ratings=12_000, n_users=400, n_items=150)
    with open_client("sequential"):
        store = synth(folder / "store", config, engine=SequentialEngine())
    plain = canopy(store, folder / "plain", CanopyConfig(n_clusters=9), engine=SequentialEngine())
    items = plain.table("items")
    top = int(np.argmax(items.column("n_ratings").to_numpy()))
    titles = items.column("title").to_pylist()
    titles[top] = EVIL
    renamed = items.set_column(items.schema.get_field_index("title"), "title", pa.array(titles))
    with new_artifact(folder / "out", "canopy") as writer:
        for name in TABLES:
            writer.write(f"{name}.parquet", renamed if name == "items" else plain.table(name))
        return writer.commit(config={}, inputs={}, stats=plain.manifest.stats)


@pytest.fixture(scope="module")
def written(artifact: Artifact) -> Path:
    return draw_clusters(artifact, artifact.path.parent / "clusters.html")


def test_the_page_stands_alone(written: Path) -> None:
    text = written.read_text("utf-8")
    assert "150 items in " in text
    assert not re.search(r"<(script|link|img|iframe)[^>]+(src|href)=", text)
    assert "</script><b>Bold" not in text
    assert sorted(path.name for path in written.parent.glob("*.html*")) == ["clusters.html"]


def test_what_is_refused(artifact: Artifact, written: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"clusters\.html: exists already"):
        draw_clusters(artifact, written)
    with pytest.raises(InputError, match=r"is a folder; name the page"):
        draw_clusters(artifact, tmp_path)
    with pytest.raises(InputError, match="there is no folder"):
        draw_clusters(artifact, tmp_path / "none" / "a.html")
    with pytest.raises(StoreError, match="manifest"):
        draw_clusters(tmp_path, tmp_path / "a.html")
    with new_artifact(tmp_path / "old", "canopy") as writer:
        writer.write("items.parquet", artifact.table("items"))
        writer.commit(config={}, inputs={}, stats={})
    with pytest.raises(StoreError, match="holds no map"):
        draw_clusters(tmp_path / "old", tmp_path / "a.html")
    before = written.stat().st_mtime_ns
    assert draw_clusters(artifact, written, overwrite=True).stat().st_mtime_ns > before


def test_overlap_counts_members_of_both(artifact: Artifact) -> None:
    share, names = overlap(artifact)
    rows = artifact.table("canopies").to_pandas()
    members = {number: set(part["item_num"]) for number, part in rows.groupby("canopy_id")}
    largest = sorted(members, key=lambda c: (-len(members[c]), c))[: len(names)]
    assert len(set(names)) == len(names) == len(share) > 5
    for i, a in enumerate(largest):
        for j, b in enumerate(largest):
            both = len(members[a] & members[b])
            assert share[i, j] == both / min(len(members[a]), len(members[b]))


def test_bins_double() -> None:
    assert bin_edges(0) == [0, 1, 2, 3]
    assert bin_edges(9) == [0, 1, 2, 3, 5, 9, 17]


@pytest.mark.slow
@pytest.mark.skipif(not CHROMIUM, reason="no browser: there is no chromium or google-chrome")
def test_a_browser_draws_it(artifact: Artifact, written: Path, tmp_path: Path) -> None:
    """The browser's own numbers equal the artifact's; a screenshot is kept beside the page."""
    page = browse(written, tmp_path, "--dump-dom")
    clusters = artifact.table("clusters").to_pandas()
    assert said(page, "items") == artifact.table("items").num_rows == 150
    assert said(page, "clusters") == clusters["cluster_id"].nunique()
    assert 'data-selected="' not in page

    fragment = "#title=" + quote("the </SCRIPT><b>bold")
    page = browse(written, tmp_path, "--dump-dom", fragment=fragment)
    items = artifact.table("items").to_pandas()
    chosen = items.loc[items["title"] == EVIL, "item_num"].item()
    own = clusters.loc[clusters["item_num"] == chosen, "cluster_id"].item()
    members = clusters[clusters["cluster_id"] == own]
    assert said(page, "hits") == 1
    assert said(page, "selected") == len(members)
    listed = re.search(r'<ol id="members">(.*?)</ol>', page, re.DOTALL)
    assert listed is not None
    rows = [html.unescape(row) for row in re.findall(r"<li[^>]*><span>(.*?)</span>", listed[1])]
    assert len(rows) == len(members)
    year = items.loc[items["item_num"] == chosen, "year"].item()
    assert f"{EVIL} ({year:.0f})" in rows

    shot = tmp_path / "clusters.png"
    browse(written, tmp_path, f"--screenshot={shot}", fragment=fragment)
    assert shot.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert shot.stat().st_size > 40_000  # an empty page packs to a few kilobytes
