"""The page of a run: whole, self-contained, the same each time, without secrets."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from distrun.report.facts import read_facts
from distrun.report.page import run_page, write_report
from tests.unit.report.made import T0, Record, attempt, made_run, sample, step

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(1)>&\"'\u2028\x00\udcff"


class Page(HTMLParser):
    """The elements of a page, its text, and the block of JSON."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.block = ""
        self.text = ""
        self._inside = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self._inside = tag

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "script":
            self.block += data
        elif self._inside != "style":
            self.text += data

    def headings(self) -> list[str]:
        return [tag for tag, _ in self.tags if tag == "h2"]


def page_of(tmp_path: Path, **fields: Any) -> Page:
    return Page(run_page(read_facts(made_run(tmp_path, **fields))))


FAILED: Record = {
    "outcome": "failed",
    "exit_code": 1,
    "summary": "rank 1 on node0 failed first: ValueError: no",
    "hint": "the cure",
    "verdict": {
        "rank": 1,
        "node": 0,
        "file": "/home/alice/train.py",
        "line": 3,
        "source": "x = 1",
        "traceback": "Traceback: ValueError",
        "last_words": "",
        "note": "",
        "others": 3,
    },
}


def test_the_verdict_comes_first_then_the_cure_and_the_next_step(tmp_path: Path) -> None:
    text = page_of(tmp_path, **FAILED).text
    parts = ["failed first: ValueError", "~/train.py:3", "3 other ranks", "the cure", "--rank 1"]
    parts += ["Traceback: ValueError", "What was run"]
    assert [text.index(part) for part in parts] == sorted(text.index(part) for part in parts)


def test_nothing_is_loaded_and_nothing_runs(tmp_path: Path) -> None:
    html = run_page(read_facts(made_run(tmp_path, **FAILED, metrics=[step(1, 1, loss=1.0)])))
    page = Page(html)
    loading = {"src", "href", "action", "data", "poster", "srcset"}
    assert not [tag for tag, attrs in page.tags if loading & attrs.keys()]
    assert not [attrs for _, attrs in page.tags if any(name.startswith("on") for name in attrs)]
    scripts = [attrs.get("type") for tag, attrs in page.tags if tag == "script"]
    assert scripts == ["application/json"]
    assert not re.search(r"url\(|@import|https?:", html)
    assert "default-src 'none'" in html


def test_hostile_names_are_text_everywhere(tmp_path: Path) -> None:
    events = [
        attempt(0.0),
        {"event": "node_joined", "time": T0, "node": 0, "host": HOSTILE},
        {"event": "notice", "time": T0, "message": HOSTILE},
        {"event": "node_lost", "time": T0, "node": 0, "host": "a", "why": HOSTILE},
    ]
    page = page_of(
        tmp_path,
        recipe=HOSTILE,
        command=["distrun", "launch", HOSTILE],
        summary=HOSTILE,
        hint=HOSTILE,
        git=HOSTILE,
        versions={HOSTILE: HOSTILE},
        plan={"settings": [{"name": HOSTILE, "value": HOSTILE}], "notes": [f"warning: {HOSTILE}"],
              "nodes": [{"host": HOSTILE, "environ": {"NCCL_X": HOSTILE}}]},
        verdict={"file": HOSTILE, "traceback": HOSTILE, "last_words": HOSTILE, "note": HOSTILE,
                 "hang": {"sentence": HOSTILE}},
        metrics=[step(n, n, rank=rank, **{HOSTILE: n + rank}) for n in (1, 2) for rank in (0, 1)],
        events=events,
    )  # fmt: skip
    names = {tag for tag, _ in page.tags}
    assert "img" not in names and [tag for tag, _ in page.tags].count("script") == 1
    assert page.text.count("alert(1)") > 10
    block = json.loads(page.block)
    assert block["schema"] == "distrun.report/1"
    assert "alert(1)" in block["series"][0]["name"]


def test_the_same_run_has_the_same_bytes(tmp_path: Path) -> None:
    metrics = [step(n, n, loss=1 / n) for n in range(1, 50)]
    run = made_run(tmp_path, metrics=metrics, ended_at=None, outcome="", exit_code=None, summary="")
    write_report(run)
    first = (run.path / "report.html").read_bytes()
    write_report(run)
    assert (run.path / "report.html").read_bytes() == first
    assert (run.path / "report.html").stat().st_mode & 0o777 == 0o600


def test_what_a_run_has_no_data_of_has_no_section(tmp_path: Path) -> None:
    bare = page_of(tmp_path / "a")
    assert len(bare.headings()) == 2, bare.text  # attempts, and what was run
    full = page_of(
        tmp_path / "b",
        metrics=[*(step(n, n, loss=1 / n) for n in (1, 2)), sample(0, 1, cpu_percent=3.0)],
        prediction={"peak_memory_nbytes": 3 << 30, "step_time_s": 0.5},
        plan={"notes": ["warning: few files (host.nofile)"]},
    )
    for word in ("Training", "Where the time went", "Machines", "Prediction", "few files"):
        assert word in full.text and word not in bare.text


def test_secrets_and_home_paths_are_not_in_it(tmp_path: Path) -> None:
    page = page_of(
        tmp_path,
        command=["distrun", "launch", "/home/alice/t.py", "--api-key", "hunter2"],
        plan={
            "secrets": ["NCCL_PRIVATE"],
            "nodes": [{"environ": {"NCCL_PRIVATE": "hunter3", "MY_VAR": "hunter4",
                                   "NCCL_DEBUG": "INFO"}}],
            "settings": [{"name": "workdir", "value": "/home/alice"}],
        },
        summary="it failed at https://u:hunter5@h/x in /home/alice/t.py",
    )  # fmt: skip
    whole = page.text + page.block
    assert "hunter" not in whole and "alice" not in whole
    assert "INFO" in page.text


def test_100_000_steps_take_less_than_2_mb_and_no_spike_is_lost(tmp_path: Path) -> None:
    def value(n: int) -> float:
        return 99.0 if n == 54_321 else 5.0 - n / 40_000

    def others(n: int) -> dict[str, float]:
        return {"lr": 0.1 + n % 7, "grad_norm": 1.0 + n % 13, "tokens_per_s": n % 1000,
                "memory_nbytes": 1e9 + n, "mfu": 0.4 + (n % 10) / 100}  # fmt: skip

    metrics = (step(n, n / 10, loss=value(n), **others(n)) for n in range(1, 100_001))
    run = made_run(tmp_path, metrics=metrics, ended_at=T0 + 10_001)
    html = run_page(read_facts(run))
    assert len(html.encode()) < 2_000_000
    series = {each["name"]: each for each in json.loads(Page(html).block)["series"]}
    assert 99 in series["loss"]["value"] and 54_321 in series["loss"]["step"]
    assert series["loss"]["count"] == 100_000
    assert "from 2.5 to 99" in Page(html).text


def test_many_ranks_and_names_stay_below_2_mb(tmp_path: Path) -> None:
    metrics = [
        step(n, n, rank=rank, **{f"value {i}": n * (rank + 1.5) + i for i in range(40)})
        for n in range(1, 60)
        for rank in range(16)
    ]
    html = run_page(read_facts(made_run(tmp_path, metrics=metrics)))
    assert len(html.encode()) < 2_000_000
    assert "Not drawn: value 2" in Page(html).text


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"outcome": "", "ended_at": None, "exit_code": None, "summary": ""}, "distrun.report"),
        ({"outcome": "hang", "exit_code": 124, "summary": "all_reduce waits"}, "all_reduce waits"),
        ({"attempts": 3}, "after 2 restarts"),
        ({"plan": {}, "command": [], "nproc_per_node": 0}, "What was run"),
        ({"plan": {"nodes": 3, "settings": {}, "notes": 1, "program": []}}, "What was run"),
        ({"verdict": {"hang": 3, "file": 7, "others": "x", "rank": None}}, "What was run"),
    ],
)
def test_a_run_in_any_state_has_a_report(tmp_path: Path, fields: Record, words: str) -> None:
    page = page_of(tmp_path, **fields)
    assert words in page.text + page.block
