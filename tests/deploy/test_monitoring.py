"""What ``deploy/monitoring`` asks of Prometheus and shows in Grafana: it is there, and it moves."""

from __future__ import annotations

import itertools
import json
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from netflixdask.cluster import open_client
from netflixdask.errors import InputError
from netflixdask.flow import run_flow
from netflixdask.progress import quiet
from netflixdask.watch import targets
from tests import places

MONITORING = Path(__file__).resolve().parents[2] / "deploy/monitoring"
PAGE = "127.0.0.1:8787"  # of the scheduler, in the scrape configuration
DASHBOARD = json.loads((MONITORING / "grafana/dashboards/netflixdask.json").read_text())
RULES = yaml.safe_load((MONITORING / "alerts.yml").read_text())["groups"][0]["rules"]
needs_promtool = pytest.mark.skipif(
    shutil.which("promtool") is None, reason="no promtool (Debian: prometheus)"
)

FLOW = """
import netflixdask as nd
from netflixdask.config import Config
from netflixdask.errors import InputError
from netflixdask.flow import Flow

class WatchedConfig(Config):
    fail: bool = False

def fails(out):
    raise InputError("on purpose")

def main(flow: Flow, config: WatchedConfig) -> None:
    shape = {"n_ratings": 300_000, "n_users": 3_000, "n_items": 400}
    store = flow.step(
        "store", lambda out: nd.synth(out, **shape, layout="store", overwrite=True),
        load=nd.open_store,
    )
    if config.fail:
        flow.step("bad", fails)
    model = nd.ALS(n_factors=64, epochs=50, reg=0.1, validation=0.05, patience=50)
    flow.fit("als", model, store, rng=0)
"""

# What does not move while all is well, and the same work is done every epoch; the best RMSE moves
# only while it falls.
STILL = {
    "netflixdask_run_rmse",
    "up", "netflixdask_epoch_limit", "netflixdask_epoch_bytes_moved", "netflixdask_loss_rises",
    "netflixdask_run_failed", "netflixdask_run_steps", "netflixdask_warnings_total",
    "netflixdask_checkpoint_bytes", "netflixdask_stage_rows",
    "netflixdask_worker_memory_limit_bytes",
    "netflixdask_worker_paused", "netflixdask_worker_spilled_bytes", "netflixdask_worker_threads",
    "dask_scheduler_tasks_suspicious_total",
}  # fmt: skip


# --- PromQL ---------------------------------------------------------------------------------------

_LISTS = ("by", "without", "on", "ignoring", "group_left", "group_right")
_KEYWORDS = {*_LISTS, "and", "or", "unless", "bool", "offset", "Inf", "NaN"}
_TOKENS = re.compile(
    r"""(?P<text>"(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|`[^`]*`)
    | (?P<comment>\#[^\n]*) | (?P<matchers>\{) | (?P<range>\[[^\]]*\])
    | (?P<number>(?:\d+(?:ms|[smhdwy]))+ | 0x[0-9a-fA-F]+ | \d*\.?\d+(?:[eE][-+]?\d+)?)
    | (?P<name>[a-zA-Z_:][a-zA-Z0-9_:]*) | (?P<space>\s+) | (?P<other>.)""",
    re.VERBOSE | re.DOTALL,
)


def metrics_of(expression: str) -> set[str]:
    """Return the names of the metrics in a PromQL expression.

    Names before "(" are of functions and aggregations, those in lists and matchers of labels.
    """
    tokens = [
        (str(found.lastgroup), found.group())
        for found in _TOKENS.finditer(expression)
        if found.lastgroup not in ("space", "comment")
    ]
    names: set[str] = set()
    at = 0
    while at < len(tokens):
        kind, text = tokens[at]
        following = tokens[at + 1][1] if at + 1 < len(tokens) else ""
        at += 1
        if kind == "matchers" or (kind == "name" and text in _LISTS and following == "("):
            closing = "}" if kind == "matchers" else ")"
            while tokens[at][1] != closing:
                at += 1
            at += 1
        elif kind == "name" and following not in ("(", "by", "without"):
            names |= {text} - _KEYWORDS
    return names


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ("up", {"up"}),
        (
            'sum by (state) (a{x="b", y=~"c{d}\\"e"}) / on (x) group_left (z) b:c > 1e6',
            {"a", "b:c"},
        ),
        ("rate(a_total[5m] offset 1h) and ignoring (b) -c == Inf unless d", {"a_total", "c", "d"}),
        ("topk(10, sum(f{}) without (g)) # and h", {"f"}),
        ("max_over_time(deriv(a[10m])[1h:5m]) or vector(0x1F)", {"a"}),
    ],
)
def test_names_of_metrics_are_found(expression: str, names: set[str]) -> None:
    assert metrics_of(expression) == names


# --- The files ------------------------------------------------------------------------------------


def panels() -> list[dict[str, Any]]:
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def asked() -> Iterator[tuple[str, str, bool]]:
    """Yield what panels and alerts ask: where it stands, the expression, whether of a moment."""
    for panel in panels():
        for target in panel["targets"]:
            expression = target["expr"].replace("$scheduler", ".*")
            expression = expression.replace("$__rate_interval", "30s")
            yield f"panel {panel['title']}", expression, target["instant"]
    for rule in RULES:
        yield f"alert {rule['alert']}", rule["expr"], True


@needs_promtool
@pytest.mark.parametrize(
    "words",
    [
        ("check", "config", "prometheus.yml"),
        ("check", "rules", "alerts.yml"),
        ("test", "rules", "alerts_test.yml"),
    ],
)
def test_promtool_has_no_complaint(words: tuple[str, ...]) -> None:
    done = subprocess.run(
        ["promtool", *words],
        cwd=MONITORING,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tested_and_explained() -> None:
    tests = (MONITORING / "alerts_test.yml").read_text()
    for rule in RULES:
        assert re.search(rf'alertname(="|: ){rule["alert"]}\b', tests), rule["alert"]
        assert rule["labels"]["severity"] in ("critical", "warning", "info")
        assert rule["annotations"]["summary"].endswith(".")
        assert len(rule["annotations"]["description"]) > 40


def test_the_dashboard_is_whole() -> None:
    source = yaml.safe_load(
        (MONITORING / "grafana/provisioning/datasources/netflixdask.yml").read_text()
    )
    known = {(one["type"], one["uid"]) for one in source["datasources"]}
    assert {one["url"] for one in source["datasources"]} == {"http://127.0.0.1:9090"}
    providers = yaml.safe_load(
        (MONITORING / "grafana/provisioning/dashboards/netflixdask.yml").read_text()
    )
    assert providers["providers"][0]["type"] == "file"
    variable = DASHBOARD["templating"]["list"][0]
    for used in (variable, *DASHBOARD["annotations"]["list"]):
        assert (used["datasource"]["type"], used["datasource"]["uid"]) in known
    ids, titles = [panel["id"] for panel in DASHBOARD["panels"]], [p["title"] for p in panels()]
    assert len(set(ids)) == len(ids)
    assert len(set(titles)) == len(titles)
    taken: dict[tuple[int, int], str] = {}
    for panel in DASHBOARD["panels"]:
        place, title = panel["gridPos"], panel["title"]
        assert 0 <= place["x"] < place["x"] + place["w"] <= 24, title
        for cell in itertools.product(
            range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])
        ):
            assert cell not in taken, f"{title} lies over {taken[cell]}"
            taken[cell] = title
    for panel in panels():
        title = panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], title
        assert len(panel["description"]) > 30, title
        assert panel["targets"], title
        refs = [target["refId"] for target in panel["targets"]]
        assert len(set(refs)) == len(refs), title
        for part in (panel, *panel["targets"]):
            assert (part["datasource"]["type"], part["datasource"]["uid"]) in known, title
    alerts = set(re.findall(r"\b[Aa]lerts?: (.+?)\.", " ".join(p["description"] for p in panels())))
    named = {name for names in alerts for name in re.findall(r"[A-Z]\w+", names)}
    assert named <= {rule["alert"] for rule in RULES}


def test_every_metric_is_in_the_table() -> None:
    pytest.importorskip("prometheus_client")
    from netflixdask.watch.metrics import COUNTERS, GAUGES

    rows = re.findall(
        r"^\| `(netflixdask_\w+)` \| (.*?) \| (.*?) \|$",
        (MONITORING / "README.md").read_text(),
        re.M,
    )
    told = {name: (labels.replace("`", ""), said) for name, labels, said in rows}
    assert len(told) == len(rows)
    assert told == {
        name: (", ".join(labels), said)
        for labels, gauges in GAUGES.items()
        for name, said in gauges.items()
    } | {f"{name}_total": ("", said) for name, said in COUNTERS.items()}


# --- A real Prometheus ----------------------------------------------------------------------------


def scrape_config(folder: Path, page: str) -> Path:
    """Copy the configuration, for a scheduler on another port and a test's patience."""
    text = (MONITORING / "prometheus.yml").read_text()
    assert text.count(PAGE) == 2
    assert f"http://{PAGE}{targets.ROUTE}" in text
    text = re.sub(r"(_interval:) \d+s", r"\1 1s", text.replace(PAGE, page))
    shutil.copy(MONITORING / "alerts.yml", folder)
    config = folder / "prometheus.yml"
    config.write_text(text)
    return config


def wait_until(prometheus: places.Prometheus, query: str, looks: int = 240) -> None:
    """Wait until an expression has a value."""
    for _ in range(looks):
        if prometheus.ask(query):
            return
        time.sleep(0.25)
    raise AssertionError(f"nothing for {query}")


@pytest.mark.slow
@pytest.mark.distributed
def test_all_that_is_asked_for_is_there_and_moves(tmp_path: Path) -> None:
    flow = tmp_path / "watched.py"
    flow.write_text(FLOW)
    try:
        with (
            places.dask_commands(tmp_path) as dask,
            places.prometheus(tmp_path, scrape_config(tmp_path, dask.page)) as prometheus,
        ):
            # Its own discovery finds both workers, whose ports nobody chose. The scheduler may be
            # asked later than they, and has to be once before a client comes.
            wait_until(prometheus, 'count(up{job="netflixdask-workers"} == 1) == 2')
            wait_until(prometheus, "dask_scheduler_clients == 0")
            with open_client(dask.address, quiet=True), quiet():
                run_flow(str(flow), tmp_path / "out")
                check_a_run(prometheus)
                with pytest.raises(InputError, match="on purpose"):
                    run_flow(str(flow), tmp_path / "out", options={"fail": True})
                # Two of the alerts that need no time to pass, of a run that failed.
                for name in ("RunFailed", "WarningsRising"):
                    wait_until(prometheus, f'ALERTS{{alertname="{name}", alertstate="firing"}}')
    except places.NotHere as reason:
        pytest.skip(str(reason))


def check_a_run(prometheus: places.Prometheus) -> None:
    """Ask for all metrics, what moved, and all panels and alerts."""
    wait_until(prometheus, "netflixdask_run_running == 0")
    names = set().union(*(metrics_of(expression) for _, expression, _ in asked()))
    assert len(names) > 30
    assert names <= set(prometheus.get("label/__name__/values")), "named and not there"
    still = {
        name for name in names if not prometheus.ask(f"changes({name}[10m]) > 0") and name != "up"
    }
    assert not still - STILL, "they should have moved"
    assert not prometheus.ask("ALERTS"), "all was well"
    # What panels show while the fit is at work.
    during = 'timestamp(netflixdask_epoch) and netflixdask_stage_running{stage="als"} == 1'
    now = time.time()
    found = prometheus.get("query_range", query=during, start=now - 600, end=now, step=1)["result"]
    moment = float(found[0]["values"][-1][0])
    for where, expression, instant in asked():
        seen = prometheus.ask(expression, moment)
        if not instant:
            span = {"start": moment - 20, "end": moment, "step": 5}
            prometheus.get("query_range", query=expression, **span)
        if where.startswith("panel") and where != "panel Tasks whose worker died":
            assert seen, where
        elif where.startswith("alert"):
            assert not seen, where
    assert len(prometheus.ask("netflixdask_worker_memory_bytes", moment)) == 2
    (_, epochs), (_, limit) = (
        prometheus.ask(f"max(netflixdask_{name})", now)[0] for name in ("epoch", "epoch_limit")
    )
    assert epochs == limit == 50
