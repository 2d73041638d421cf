"""Flows: complete steps are skipped, changed ones done again and said, every run recorded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from netflixdask.cli.app import run as command
from netflixdask.config import Config
from netflixdask.errors import ConfigError, InputError
from netflixdask.flow import Flow, find_flows, load_flow, run_flow
from netflixdask.flow.catalogue import nested, read_options
from netflixdask.store import Artifact, new_artifact, open_artifact


class Options(Config):
    """Options of a test flow."""

    n: int = 3
    """Rows."""


def make(path: Path, n: int) -> Artifact:
    with new_artifact(path, "stats", overwrite=True) as writer:
        writer.write("nums.parquet", pa.table({"num": list(range(n))}))
        return writer.commit(config={}, inputs={})


def run(workdir: Path, n: int = 3, force: tuple[str, ...] = ()) -> tuple[list[str], dict[str, Any]]:
    made: list[str] = []
    flow = Flow("test", workdir, Options(n=n), force=force)

    def first(out: Path) -> None:
        made.append("first")
        make(out, n)

    def second(out: Path) -> None:
        made.append("second")
        make(out, a.table("nums").num_rows * 2)

    a = flow.step("first", first, config={"n": n})
    b = flow.step("second", second, reads={"first": a})
    flow.result("rows", b.table("nums").num_rows)
    return made, flow.finish()


def test_a_second_run_skips_what_is_complete(tmp_path: Path) -> None:
    made, record = run(tmp_path)
    assert made == ["first", "second"]
    assert [s["status"] for s in record["steps"]] == ["done", "done"]
    assert record["steps"][1]["counts"] == {"nums": 6}
    made, record = run(tmp_path)
    assert made == []
    assert [s["status"] for s in record["steps"]] == ["skipped", "skipped"]
    assert record["results"] == {"rows": 6}
    on_disk = json.loads((tmp_path / "run.json").read_text())
    assert on_disk == json.loads(json.dumps(record))
    assert {"netflixdask", "python", "dask", "numpy", "numba"} <= set(on_disk["versions"])
    assert on_disk["config"] == {"n": 3}


def test_a_changed_option_redoes_the_step_and_those_that_read_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path)
    made, record = run(tmp_path, n=4)
    assert made == ["first", "second"]
    assert record["results"] == {"rows": 8}
    said = capsys.readouterr().err
    assert "changed (config n): done again" in said
    assert "changed (inputs first): done again" in said


def test_force_redoes_one_step_and_no_other_if_its_output_is_the_same(tmp_path: Path) -> None:
    run(tmp_path)
    assert run(tmp_path, force=("first",))[0] == ["first"]
    with pytest.raises(ConfigError, match="no stage 'third' to force; it has first, second"):
        run(tmp_path, force=("third",))


def test_an_output_that_is_gone_or_changed_is_done_again(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path)
    (tmp_path / "second" / "manifest.json").unlink()
    (tmp_path / "second" / "nums.parquet").unlink()
    (tmp_path / "second").rmdir()
    assert run(tmp_path)[0] == ["second"]
    assert "output is gone or incomplete" in capsys.readouterr().err
    make(tmp_path / "first", 17)
    assert run(tmp_path)[0] == ["first"]
    assert "output was changed by hand" in capsys.readouterr().err


def test_a_failure_is_recorded_and_the_next_run_goes_on_from_there(tmp_path: Path) -> None:
    flow = Flow("test", tmp_path, Options())
    flow.step("first", lambda out: make(out, 3), config={"n": 3})
    with pytest.raises(ZeroDivisionError):
        flow.step("second", lambda out: 1 / 0)
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["status"] == "failed"
    assert record["error"] == "ZeroDivisionError: division by zero"
    assert [s["status"] for s in record["steps"]] == ["done", "failed"]
    assert run(tmp_path)[0] == ["second"]


def test_flows_that_come_with_the_package() -> None:
    assert set(find_flows()) == {
        "canopy_lab",
        "movielens",
        "neighbors_lab",
        "netflix_prize",
        "quickstart",
    }
    for name in find_flows():
        file = load_flow(name)
        assert file.title.endswith(".")
        assert all(field.description for field in file.config.model_fields.values()), name


FLOW = '''"""Rows, as many as told."""
from pathlib import Path
import pyarrow as pa
from netflixdask.config import Config
from netflixdask.flow import Flow
from netflixdask.store import new_artifact

class Inner(Config):
    n: int = 2

class Mine(Config):
    inner: Inner = Inner()
    name: str = "x"

def rows(out: Path, n: int) -> None:
    with new_artifact(out, "stats", overwrite=True) as writer:
        writer.write("nums.parquet", pa.table({"num": list(range(n))}))
        writer.commit(config={}, inputs={})

def main(flow: Flow, config: Mine) -> None:
    flow.step("rows", lambda out: rows(out, config.inner.n), config=config)
'''


def test_a_file_of_ones_own_is_a_flow(tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(FLOW)
    options = read_options(None, {"inner.n": "5", "name": "y"})
    record = run_flow(str(path), tmp_path / "w", options=options)
    assert record["config"] == {"inner": {"n": 5}, "name": "y"}
    assert open_artifact(tmp_path / "w" / "rows").table("nums").num_rows == 5
    with pytest.raises(ConfigError, match=r"Mine: unknown option 'inner\.m'|'m'"):
        run_flow(str(path), tmp_path / "w", options={"inner.m": 1})


@pytest.mark.parametrize(
    ("wrong", "status"), [("RuntimeError('boom')", "failed"), ("KeyboardInterrupt", "interrupted")]
)
def test_a_failure_between_steps_is_recorded(tmp_path: Path, wrong: str, status: str) -> None:
    path = tmp_path / "mine.py"
    path.write_text(FLOW)
    before = run_flow(str(path), tmp_path / "w")
    path.write_text(f"{FLOW}    raise {wrong}\n")
    with pytest.raises(BaseException, match=r"boom|^$"):
        run_flow(str(path), tmp_path / "w")
    record = json.loads((tmp_path / "w" / "run.json").read_text())
    assert (before["status"], record["status"]) == ("done", status)
    assert record["id"] != before["id"]
    assert record["error"] == ("RuntimeError: boom" if status == "failed" else None)
    assert [step["status"] for step in record["steps"]] == ["skipped"]


def test_rows_of_a_result_may_have_different_columns(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.py"
    rows = [{"kind": "a", "power": 2}, {"kind": "b", "beta": 0.5}]
    path.write_text(f"{FLOW}    flow.result('chosen', {rows})\n")
    told = ["run", str(path), "--workdir", str(tmp_path / "w"), "--cluster", "sequential"]
    assert command(told) == 0
    said = capsys.readouterr().out
    for word in ("power", "beta", "0.5000", f"the report, for a browser: {tmp_path / 'w'}"):
        assert word in said


def test_what_is_no_flow_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no flow 'nope'; there are canopy_lab, .*quickstart"):
        load_flow("nope")
    with pytest.raises(InputError, match=r"gone\.py: there is no such file"):
        load_flow(str(tmp_path / "gone.py"))
    (tmp_path / "empty.py").write_text('"""Nothing."""\n')
    with pytest.raises(InputError, match=r"empty\.py: is not a flow; expected main\(flow"):
        load_flow(str(tmp_path / "empty.py"))


def test_options_from_toml_and_settings(tmp_path: Path) -> None:
    file = tmp_path / "run.toml"
    file.write_text('seed = 3\n[als]\nreg = 0.1\n"x.y" = 1\n')
    found = read_options(file, {"als.reg": "0.2", "name": "z"})
    assert found == {"seed": 3, "als": {"reg": "0.2", "x": {"y": 1}}, "name": "z"}
    with pytest.raises(ConfigError, match="cannot be read"):
        read_options(tmp_path / "none.toml", {})
    file.write_text("seed = = 3")
    with pytest.raises(ConfigError, match=r"run\.toml: is not TOML"):
        read_options(file, {})
    with pytest.raises(ConfigError, match="has a value of its own already"):
        nested({"a": 1, "a.b": 2})
