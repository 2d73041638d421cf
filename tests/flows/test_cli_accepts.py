"""Everything that ingest accepts, from files on disk through the command line to the store."""

from __future__ import annotations

import datetime as dt
import gzip
import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from netflixdask.cli.app import run
from netflixdask.store import RatingsStore, open_store

Row = tuple[Any, Any, float, str | None]
"""Raw user id, raw item id, stars, ISO time."""

# One set of ratings, written in many layouts. Movie 30 has one rating; its title is missing.
PRIZE: list[Row] = [
    (7, 1, 3.0, "2005-09-06"),
    (7, 2, 5.0, "2004-02-29"),
    (2649429, 1, 4.0, "1999-11-11"),
    (885013, 1, 1.0, "2005-12-31"),
    (885013, 2, 2.0, "2005-10-19"),
    (885013, 30, 5.0, "2003-12-26"),
]
TITLES = "1,2003,Dinosaur Planet\n2,NULL,Crouching Tiger, Hidden Dragon\n"
PARSED_TITLES = {
    1: ("Dinosaur Planet", 2003),
    2: ("Crouching Tiger, Hidden Dragon", None),
    30: (None, None),
}
# The same people and movies as MovieLens writes them: seconds since 1970.
LENS: list[Row] = [
    (196, 242, 3.0, "1997-12-04T15:55:49"),
    (186, 302, 3.0, "1998-04-04T19:22:22"),
    (22, 377, 1.0, None),
    (196, 302, 5.0, "1997-11-13T05:18:00"),
]


@pytest.fixture
def ingest(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[RatingsStore, dict[str, Any]]]:
    """``ingest(source, "--user", "u")``, in this process: the store and what ``--json`` said."""

    def run_ingest(source: Path, *options: str) -> tuple[RatingsStore, dict[str, Any]]:
        path = tmp_path / "store"
        always = ["--cluster", "sequential", "--json"]
        code = run(["ingest", str(source), str(path), *always, *options])
        said = capsys.readouterr()
        assert code == 0, said.err
        return open_store(path), json.loads(said.out)

    return run_ingest


def contents(store: RatingsStore) -> list[Row]:
    """All training ratings under their raw ids, sorted."""
    frame = store.ratings().compute()
    by_item = store.ratings(by="item").compute().sort_values(["user_num", "item_num"])
    columns = ["user_num", "item_num", "rating"]
    assert by_item[columns].to_numpy().tolist() == frame[columns].to_numpy().tolist()
    users, items = store.users["user_id"].to_pylist(), store.items["item_id"].to_pylist()
    times: list[str | None] = [None] * len(frame)
    if "time" in frame:
        style = "%Y-%m-%d" if store.time_kind == "date" else "%Y-%m-%dT%H:%M:%S"
        times = [None if pd.isna(t) else t.strftime(style) for t in frame["time"]]
    rows = zip(frame["user_num"], frame["item_num"], frame["rating"], times, strict=True)
    return sorted((users[u], items[i], float(r), t) for u, i, r, t in rows)


def titles(store: RatingsStore) -> dict[Any, tuple[str | None, int | None]]:
    """Title and year by raw item id."""
    return {row["item_id"]: (row["title"], row["year"]) for row in store.items.to_pylist()}


def pairs(store: RatingsStore, holdout: str) -> list[tuple[Any, Any, float | None, str | None]]:
    """The rows of a holdout under their raw ids, in their order."""
    users, items = store.users["user_id"].to_pylist(), store.items["item_id"].to_pylist()
    return [
        (users[r["user_num"]], items[r["item_num"]], r["rating"], r["time"] and str(r["time"]))
        for r in store.holdout(holdout).to_pylist()
    ]


def movie_texts(rows: list[Row] = PRIZE) -> dict[int, str]:
    """The text of each movie as the prize's files have it."""
    texts: dict[int, str] = {}
    for user, item, stars, day in rows:
        texts[item] = texts.get(item, f"{item}:\n") + f"{user},{stars:.0f},{day}\n"
    return texts


def write(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def movie_folder(folder: Path, rows: list[Row] = PRIZE) -> Path:
    for movie, text in movie_texts(rows).items():
        write(folder / f"mv_{movie:07d}.txt", text)
    return folder


def training_tar(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as archive:
        for movie, text in movie_texts().items():
            member = tarfile.TarInfo(f"training_set/mv_{movie:07d}.txt")
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return path


def csv_text(rows: list[Row] = PRIZE, mark: str = ",") -> str:
    header = mark.join(["user", "movie", "rating", "date"])
    lines = [mark.join([str(u), str(i), f"{r:g}", t or ""]) for u, i, r, t in rows]
    return "\n".join([header, *lines, ""])


def seconds(time: str | None) -> int:
    when = dt.datetime.fromisoformat(time).replace(tzinfo=dt.UTC) if time else None
    return -1 if when is None else int(when.timestamp())


def lens_text(mark: str, rows: list[Row] = LENS) -> str:
    return "".join(f"{u}{mark}{i}{mark}{r:g}{mark}{seconds(t)}\n" for u, i, r, t in rows)


TABLE = ("--user", "user", "--item", "movie", "--rating", "rating", "--time", "date")


# --- layouts ---------------------------------------------------------------------------------


def prize_folder(base: Path) -> tuple[Path, str]:
    movie_folder(base / "training_set")
    return base, "netflix"


def prize_movies(base: Path) -> tuple[Path, str]:
    return movie_folder(base / "training_set"), "netflix"


def prize_tar(base: Path) -> tuple[Path, str]:
    return training_tar(base / "training_set.tar"), "netflix-tar"


def prize_tar_folder(base: Path) -> tuple[Path, str]:
    training_tar(base / "training_set.tar")
    return base, "netflix-tar"


def prize_combined(base: Path) -> tuple[Path, str]:
    first, *others = movie_texts().values()
    write(base / "combined_data_1.txt", first)
    write(base / "combined_data_2.txt", "".join(others))
    return base, "combined"


@pytest.mark.parametrize(
    "layout", [prize_folder, prize_movies, prize_tar, prize_tar_folder, prize_combined]
)
def test_the_prize_in_every_layout(
    layout: Callable[[Path], tuple[Path, str]], tmp_path: Path, ingest: Any
) -> None:
    source, name = layout(tmp_path / "prize")
    write(tmp_path / "prize" / "movie_titles.txt", TITLES)
    write(tmp_path / "prize" / "probe.txt", "1:\n885013\n2:\n7\n")
    write(tmp_path / "prize" / "qualifying.txt", "2:\n2649429,2005-11-30\n1:\n11,2005-12-05\n")
    store, said = ingest(source)
    assert said["layout"] == name
    probe = [(885013, 1, 1.0, "2005-12-31"), (7, 2, 5.0, "2004-02-29")]
    assert contents(store) == sorted(row for row in PRIZE if row not in probe)
    assert pairs(store, "probe") == probe
    assert pairs(store, "qualifying") == [
        (2649429, 2, None, "2005-11-30"),
        (11, 1, None, "2005-12-05"),
    ]
    assert titles(store) == PARSED_TITLES
    assert said["accounting"] == {
        "rows_read": 6,
        "ratings": 4,
        "scrubbed": 2,
        "duplicates": 0,
        "rejects": 0,
        "undated": 0,
        "held_out": 0,
    }
    assert said["holdouts"] == {"probe": 2, "qualifying": 2}
    assert said["scale"] == {"low": 1.0, "high": 5.0, "scale": 1, "whole": True}
    assert said["rejects"] is None


def test_the_prize_without_titles_probe_and_qualifying(tmp_path: Path, ingest: Any) -> None:
    store, said = ingest(movie_folder(tmp_path / "prize"))
    assert contents(store) == sorted(PRIZE)
    assert said["holdouts"] == {}
    assert set(titles(store).values()) == {(None, None)}


def test_the_probe_stays_in_training_when_asked(tmp_path: Path, ingest: Any) -> None:
    write(movie_folder(tmp_path / "prize") / "probe.txt", "1:\n885013\n")
    store, said = ingest(tmp_path / "prize", "--no-scrub-probe")
    assert contents(store) == sorted(PRIZE)
    assert said["accounting"]["scrubbed"] == 0


def test_movielens_100k(tmp_path: Path, ingest: Any) -> None:
    folder = tmp_path / "ml-100k"
    write(folder / "u.data", lens_text("\t"))
    item = (
        "242|Kolya (1996)|24-Jan-1997||x|0\n302|L.A. Confidential (1997)|01||y|1\n377|Misérables|"
    )
    write(folder / "u.item", f"{item}|\n".encode("latin-1"))
    store, said = ingest(folder)
    assert contents(store) == sorted(LENS, key=str_times)
    assert said["layout"] == "ml-100k"
    assert said["time"] == "timestamp"
    assert titles(store) == {
        242: ("Kolya (1996)", 1996),
        302: ("L.A. Confidential (1997)", 1997),
        377: ("Misérables", None),
    }


def test_movielens_100k_split(tmp_path: Path, ingest: Any) -> None:
    write(tmp_path / "ml-100k" / "u1.base", lens_text("\t", LENS[:3]))
    write(tmp_path / "ml-100k" / "u1.test", lens_text("\t", LENS[3:]))
    store, said = ingest(tmp_path / "ml-100k", "--split", "u1")
    assert contents(store) == sorted(LENS[:3], key=str_times)
    assert pairs(store, "test") == [(196, 302, 5.0, "1997-11-13 05:18:00")]
    assert said["holdouts"] == {"test": 1}


@pytest.mark.parametrize("name", ["ratings.dat", "ratings-part.dat.gz"])
def test_movielens_1m(name: str, tmp_path: Path, ingest: Any) -> None:
    text = lens_text("::").encode()
    write(tmp_path / "ml-1m" / name, gzip.compress(text) if name.endswith("gz") else text)
    films = "242::Kolya (1996)::Comedy\n302::Alien: The Cut::Noir (1997)::Crime|Noir\n"
    write(tmp_path / "ml-1m" / "movies.dat", films)
    store, said = ingest(tmp_path / "ml-1m")
    assert contents(store) == sorted(LENS, key=str_times)
    assert said["layout"] == "ml-1m"
    assert titles(store)[302] == ("Alien: The Cut::Noir (1997)", 1997)
    assert titles(store)[377] == (None, None)


def test_movielens_latest_with_half_stars(tmp_path: Path, ingest: Any) -> None:
    rows = [(u, i, r - 0.5 if r < 5 else r, t) for u, i, r, t in LENS]
    text = "userId,movieId,rating,timestamp\n" + lens_text(",", rows)
    write(tmp_path / "latest" / "ratings.csv", text)
    films = 'movieId,title,genres\n242,"Godfather, The (1972)",Crime\n302,"""Heat"" (1995)",X\n'
    write(tmp_path / "latest" / "movies.csv", films)
    store, said = ingest(tmp_path / "latest")
    assert contents(store) == sorted(rows, key=str_times)
    assert said["scale"] == {"low": 0.5, "high": 5.0, "scale": 2, "whole": False}
    assert titles(store)[242] == ("Godfather, The (1972)", 1972)
    assert titles(store)[302] == ('"Heat" (1995)', 1995)


def str_times(row: Row) -> tuple[Any, Any, float, str]:
    return (*row[:3], row[3] or "")


@pytest.mark.parametrize("layout", ["csv", "tsv", "txt", "parquet"])
def test_tables(layout: str, tmp_path: Path, ingest: Any) -> None:
    path = tmp_path / f"mine.{layout}"
    if layout == "parquet":
        frame = pd.DataFrame(PRIZE, columns=["user", "movie", "rating", "date"])
        frame["date"] = pd.to_datetime(frame["date"]).dt.date
        pq.write_table(pa.Table.from_pandas(frame), path)
    else:
        write(path, csv_text(mark={"csv": ",", "tsv": "\t", "txt": ";"}[layout]))
    store, said = ingest(path, *TABLE)
    assert contents(store) == sorted(PRIZE)
    assert said["layout"] == ("csv" if layout == "txt" else layout)
    assert said["time"] == "date"


def test_a_table_with_the_usual_names_needs_no_options(tmp_path: Path, ingest: Any) -> None:
    path = write(tmp_path / "mine.csv", "note,rating,item_id,user_id\nx,4,20,1\ny,2.5,10,1\n")
    store, said = ingest(path)
    assert contents(store) == [(1, 10, 2.5, None), (1, 20, 4.0, None)]
    assert said["time"] == "none"


@pytest.mark.parametrize("quoted", [False, True])
def test_string_ids(quoted: bool, tmp_path: Path, ingest: Any) -> None:
    rows = [("anna", "007", 4.0, None), ("Zoë", "tt-1", 2.0, None), ("anna", "tt-1", 3.0, None)]
    mark = '"' if quoted else ""
    lines = [f"{mark}{u}{mark},{mark}{i}{mark},{r:g}\n" for u, i, r, _ in rows]
    path = write(tmp_path / "mine.csv", "user,movie,rating\n" + "".join(lines))
    store, _ = ingest(path, *TABLE[:6])
    assert contents(store) == sorted(rows)
    assert store.user_nums(["Zoë", "nobody"]).tolist() == [0, -1]


def test_numbers_are_kept_as_text_when_asked(tmp_path: Path, ingest: Any) -> None:
    path = write(tmp_path / "mine.csv", csv_text())
    store, _ = ingest(path, *TABLE, "--ids", "string")
    assert contents(store) == sorted((str(u), str(i), r, t) for u, i, r, t in PRIZE)


# --- oddities of text ------------------------------------------------------------------------

BOM = b"\xef\xbb\xbf"
ODDITIES: dict[str, Callable[[bytes], bytes]] = {
    "BOM": lambda text: BOM + text,
    "CRLF": lambda text: text.replace(b"\n", b"\r\n"),
    "no final newline": lambda text: text.rstrip(b"\n"),
    "blank lines at the end": lambda text: text + b"\n \n\r\n\n",
    "gz": lambda text: gzip.compress(text),
    "all at once": lambda text: gzip.compress(BOM + text.replace(b"\n", b"\r\n") + b"\r\n\r\n"),
}


@pytest.mark.parametrize("oddity", ODDITIES)
@pytest.mark.parametrize("layout", ["netflix", "combined", "csv", "ml-100k", "ml-1m", "ml-latest"])
def test_oddities_of_text(layout: str, oddity: str, tmp_path: Path, ingest: Any) -> None:
    end = ".gz" if "gz" in oddity else ""
    base = tmp_path / "source"
    expected, options = PRIZE, ()
    texts: dict[str, str] = {}
    match layout:
        case "netflix":
            texts = {f"training_set/mv_{k:07d}.txt": v for k, v in movie_texts().items()}
            texts["probe.txt"], texts["movie_titles.txt"] = "30:\n885013\n", TITLES
            expected = [row for row in PRIZE if row[1] != 30]
        case "combined":
            texts = {"combined_data_1.txt": "".join(movie_texts().values())}
            texts["movie_titles.csv"] = TITLES
        case "csv":
            texts, options = {"mine.csv": csv_text()}, TABLE
        case "ml-100k":
            texts, expected = {"u.data": lens_text("\t"), "u.item": "242|K (1996)|x\n"}, LENS
        case "ml-1m":
            texts, expected = {"ratings.dat": lens_text("::")}, LENS
            texts["movies.dat"] = "242::K (1996)::x\n"
        case "ml-latest":
            header = "userId,movieId,rating,timestamp\n"
            texts, expected = {"ratings.csv": header + lens_text(",")}, LENS
            texts["movies.csv"] = "movieId,title\n242,K (1996)\n"
    for name, text in texts.items():
        write(base / f"{name}{end}", ODDITIES[oddity](text.encode()))
    store, said = ingest(base / f"mine.csv{end}" if layout == "csv" else base, *options)
    assert contents(store) == sorted(expected, key=str_times)
    assert said["rejects"] is None
    assert said["accounting"]["rows_read"] == len(LENS if expected is LENS else PRIZE)
    if layout in ("netflix", "combined"):
        assert titles(store) == PARSED_TITLES
    elif layout != "csv":
        assert titles(store)[242] == ("K (1996)", 1996)
    if layout == "netflix":
        assert pairs(store, "probe") == [(885013, 30, 5.0, "2003-12-26")]


def test_quoted_fields_and_headers(tmp_path: Path, ingest: Any) -> None:
    text = (
        '"user","movie","note","rating","date"\r\n'
        '"7","1","said ""fine, really""","3","2005-09-06"\r\n'
        '7,"2",plain,5,"2004-02-29"\r\n'
    )
    store, _ = ingest(write(tmp_path / "mine.csv", text), *TABLE)
    assert contents(store) == sorted(PRIZE[:2])


@pytest.mark.parametrize(("encoding", "title"), [("utf-8", "Léon, Ÿ – 新"), ("latin-1", "Léon, ÿ")])
def test_titles_in_either_encoding(encoding: str, title: str, tmp_path: Path, ingest: Any) -> None:
    movie_folder(tmp_path / "prize")
    text = f"1,1994,{title}\n2,1966,Ñu\n"
    write(tmp_path / "prize" / "movie_titles.txt", text.encode(encoding))
    store, _ = ingest(tmp_path / "prize")
    assert titles(store) == {1: (title, 1994), 2: ("Ñu", 1966), 30: (None, None)}


def test_the_last_of_repeated_pairs_counts(tmp_path: Path, ingest: Any) -> None:
    again = [(7, 1, 5.0, "2005-10-01"), (7, 1, 2.0, "2001-01-01")]
    store, said = ingest(write(tmp_path / "mine.csv", csv_text(PRIZE + again)), *TABLE)
    assert contents(store) == sorted([*PRIZE[1:], again[0]])
    assert said["accounting"]["duplicates"] == 2
    assert said["accounting"]["rows_read"] == 8


# --- in a process of its own -----------------------------------------------------------------


@pytest.mark.distributed
@pytest.mark.parametrize(
    ("layout", "cluster"),
    [(prize_folder, "laptop"), (prize_tar, "threads")],
)
def test_the_whole_way_in_a_process_of_its_own(
    layout: Callable[[Path], tuple[Path, str]], cluster: str, tmp_path: Path, run_cli: Any
) -> None:
    layout(tmp_path / "prize")
    source = Path("prize") / ("training_set.tar" if cluster == "threads" else "")
    write(tmp_path / "prize" / "movie_titles.txt", TITLES.encode("latin-1"))
    done = run_cli("ingest", source, "store", "--cluster", cluster, cwd=tmp_path)
    assert done.code == 0, done.stderr
    assert contents(open_store(tmp_path / "store")) == sorted(PRIZE)
    assert done.stdout.startswith(f"store: {tmp_path / 'store'}\n")
    assert [line.split() for line in done.stdout.splitlines() if "ratings" in line] == [
        ["│", "ratings", "│", "6", "│"]
    ]
    assert done.stderr.startswith("dashboard http://127.0.0.1:")
    assert "ingest " in done.stderr
