"""Records from what ranks send and from torch's own dumps, which may hold anything."""

from __future__ import annotations

import json
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from distrun.diagnose.hang.dump_file import parsed
from distrun.diagnose.hang.evidence import Call, Group, Record
from distrun.diagnose.hang.read import counts_of, record_of
from distrun.diagnose.places import Frame
from tests.unit.diagnose.hang.jobs import answer, done_up_to, entry

DUMPS = """
import os, sys
import torch
import torch.distributed as dist
from torch._C._distributed_c10d import _dump_fr_trace, _dump_fr_trace_json
store = dist.FileStore(sys.argv[1] + "/store", 1)
dist.init_process_group("gloo", store=store, rank=0, world_size=1)
group = dist.new_group([0], group_desc="dp")
for _ in range(3):
    dist.all_reduce(torch.ones(4, 5))
dist.broadcast(torch.ones(3, dtype=torch.int64), 0, group=group)
dist.barrier()
def text():
    found = _dump_fr_trace_json(True, False)
    return found if isinstance(found, str) else found.decode()
while '"retired":false' in text():  # a thread of gloo notes the end
    pass
open(sys.argv[1] + "/rank0.json", "w").write(text())
open(sys.argv[1] + "/nccl_trace_rank_0", "wb").write(_dump_fr_trace())
os._exit(0)
"""


@pytest.fixture(scope="module")
def dumps(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory with torch's dumps of one rank, as JSON and as a pickle."""
    path = tmp_path_factory.mktemp("dumps")
    (path / "dumps.py").write_text(DUMPS)
    environment = {"TORCH_FR_BUFFER_SIZE": "200", "PATH": "/usr/bin:/bin"}
    command = [sys.executable, str(path / "dumps.py"), str(path)]
    subprocess.run(command, env=environment, check=True, timeout=60)
    return path


@pytest.mark.parametrize("name", ["rank0.json", "nccl_trace_rank_0"])
def test_the_dumps_that_torch_writes_with_gloo_are_read(dumps: Path, name: str) -> None:
    record = record_of(parsed((dumps / name).read_bytes(), name))
    assert record.groups["0"] == Group("0", "default_pg", (), enqueued=4, completed=4)
    assert record.groups["1"].desc == "dp"
    ops = [(call.group, call.seq, call.op, call.done) for call in record.collectives]
    reduces = [("0", seq, "all_reduce", True) for seq in (1, 2, 3)]
    assert ops == [*reduces, ("1", 1, "broadcast", True), ("0", 4, "barrier", True)]
    first = record.collectives[0]
    assert (first.input_sizes, first.input_dtypes) == (((4, 5),), ("Float",))
    assert first.created_ns > 1_600_000_000 * 10**9
    assert first.timeout_ms == 1_800_000


def test_the_pickle_tells_the_calls_that_led_to_a_collective(dumps: Path) -> None:
    record = record_of(parsed((dumps / "nccl_trace_rank_0").read_bytes(), "it"))
    frames = record.collectives[0].frames
    assert frames[0].function == "all_reduce"
    assert Path(frames[-1].file).name == "dumps.py"


def test_an_answer_of_a_rank_is_read() -> None:
    call = {"function": "broadcast", "group": "1", "arguments": {"src": 1, "op": "SUM", "x": None}}
    told = answer(
        [*done_up_to(2), entry(3)],
        groups={"0": ("default_pg", [0, 1]), "1": ("dp", [1])},
        frames=[("/me/a.py", 3, "f")],
        call=call,
    )
    record = record_of(told)
    assert record.groups["0"] == Group("0", "default_pg", (0, 1), enqueued=3, completed=2)
    assert record.groups["1"] == Group("1", "dp", (1,), enqueued=0, completed=0)
    assert record.call == Call("broadcast", "1", {"src": 1, "op": "SUM"})
    assert (record.frames, record.opcode) == ((Frame("/me/a.py", 3, "f"),), "CALL")
    assert [each.seq for each in record.collectives] == [1, 2, 3]


def test_without_collectives_the_counts_are_torchs_own() -> None:
    told = answer()
    told["trace"]["pg_status"] = {
        "0": {
            "last_completed_collective": "6",
            "last_enqueued_collective": "7",
            "last_started_collective": "-1",
        }
    }
    assert record_of(told).groups["0"] == Group("0", "default_pg", (0, 1, 2, 3), 7, 6)


def test_torch_counts_by_a_number_that_is_not_the_name_of_the_group() -> None:
    """Rank 2 of four, with groups of neighbours: its second group is the third of the job."""
    groups = {"0": ("default_pg", range(4)), "2": ("pair1", (1, 2)), "3": ("pair2", (2, 3))}
    told = answer(groups=groups)
    told["trace"]["pg_status"] = {
        "0": {"last_completed_collective": "12", "last_enqueued_collective": "12"},
        "2": {"last_completed_collective": "-1", "last_enqueued_collective": "1"},
    }
    for entries in ([], [entry(1, process_group=["3", "pair2"], pg_id=2)]):
        told["trace"]["entries"] = entries
        found = record_of(told).groups
        assert {name: each.enqueued for name, each in found.items()} == {"0": 12, "2": 0, "3": 1}


def test_sends_do_not_shift_the_numbers_of_collectives() -> None:
    """With gloo torch's counts of a group go up with a send, which has no entry."""
    told = answer([entry(1, done=True), entry(2, op_id=3)])
    told["trace"]["pg_status"] = {"0": {"last_enqueued_collective": "3"}}
    assert record_of(told).groups["0"].enqueued == 2


@pytest.mark.parametrize(
    ("entries", "enqueued", "torchs", "completed"),
    [
        ([entry(1, done=True), entry(2, done=True)], 2, 1, 2),
        ([entry(2, done=True)], 2, 1, 2),
        ([entry(1), entry(2, done=True)], 2, 2, 1),
        ([entry(2)], 2, 1, 1),
        ([entry(2, done=True)], 3, 1, 1),
        ([entry(1, done=True)], 1, -1, 1),
        ([], 2, 1, 1),
    ],
    ids=[
        "overtaken",
        "others_are_dropped",
        "waits_for_the_first",
        "waits",
        "then_a_send",
        "the_first",
        "none",
    ],
)
def test_a_look_tells_whether_a_call_is_pending_though_torch_counts_the_one_that_ended_last(
    entries: list[dict[str, Any]], enqueued: int, torchs: int, completed: int
) -> None:
    told = answer(entries)
    told["trace"]["pg_status"] = {
        "0": {"last_completed_collective": str(torchs), "last_enqueued_collective": str(enqueued)}
    }
    found = counts_of(told)
    assert (found.groups["0"].enqueued, found.groups["0"].completed) == (enqueued, completed)
    assert not found.collectives


def nccl_dump() -> dict[str, Any]:
    """Return a dump as NCCL's, made by hand from the fields of torch's own analyser."""
    common = {
        "process_group": ("0", "default_pg"),
        "time_created_ns": 10,
        "timeout_ms": 600_000,
        "input_dtypes": ["BFloat16"],
        "output_dtypes": ["BFloat16"],
        "frames": [{"name": "step", "filename": "/me/train.py", "line": 88}],
    }
    return {
        "version": "2.10",
        "pg_config": {"0": {"name": "0", "desc": "default_pg", "ranks": "[4, 5, 6]"}},
        "pg_status": {"0": {"last_enqueued_collective": 2, "last_completed_collective": 1}},
        "entries": [
            {
                **common,
                "profiling_name": "nccl:_all_gather_base",
                "collective_seq_id": 1,
                "is_p2p": False,
                "state": "completed",
                "retired": False,
                "input_sizes": [[8]],
                "output_sizes": [[24]],
                "time_discovered_completed_ns": 17,
            },
            {
                **common,
                "profiling_name": "nccl:recv 1<-2",
                "collective_seq_id": 1,
                "p2p_seq_id": 1,
                "is_p2p": True,
                "state": "started",
                "retired": False,
                "input_sizes": [[8]],
                "output_sizes": [[8]],
            },
        ],
    }


@pytest.mark.parametrize("form", ["json", 2, 4, 5])
def test_a_dump_of_nccl_is_read_from_every_form(form: str | int) -> None:
    made = nccl_dump()
    data = json.dumps(made).encode() if isinstance(form, str) else pickle.dumps(made, form)
    record = record_of(parsed(data, "nccl_trace_rank_5"))
    gather, receive = record.collectives
    assert (gather.op, gather.done, gather.completed_ns) == ("all_gather_into_tensor", True, 17)
    assert (receive.op, receive.is_p2p, receive.peer, receive.done) == ("recv", True, 6, False)
    assert gather.frames == (Frame("/me/train.py", 88, "step"),)
    assert record.groups["0"] == Group("0", "default_pg", (4, 5, 6), enqueued=1, completed=1)


HOSTILE: list[Any] = [None, True, -1, 2**80, 1.5, float("nan"), "x" * 10**5, [], {}, [[]], [None]]
HOSTILE += [{"a": 1}, "\ud800\x00", [[[[[]]]]], {"0": {"0": {"0": 1}}}, ["x", "y"], [1, 2, 3]]


@pytest.mark.parametrize("value", HOSTILE, ids=lambda v: repr(v)[:20])
def test_a_value_of_another_type_in_any_field_is_dropped(value: Any) -> None:
    def replaced(found: Any) -> Any:
        """Yield the data with each of its values replaced in turn, at any depth."""
        yield value
        for key, below in found.items() if isinstance(found, dict) else enumerate(found):
            if isinstance(below, (dict, list)):
                for each in replaced(below):
                    yield with_one(found, key, each)
            else:
                yield with_one(found, key, value)

    def with_one(found: Any, key: Any, new: Any) -> Any:
        copy = dict(found) if isinstance(found, dict) else list(found)
        copy[key] = new
        return copy

    call = {"function": "recv", "group": "0", "arguments": {"src": 1}}
    whole = answer([entry(1)], frames=[("/a.py", 1, "f")], call=call)
    whole["trace"]["pg_status"] = {"0": {"last_enqueued_collective": "3"}}
    whole["trace"]["pg_config"] = {"0": {"desc": "x", "ranks": "[0]"}}
    tried = [record_of(told) for told in replaced(whole)]
    assert len(tried) > 50
    assert all(type(record) is Record for record in tried)
    assert all(type(counts_of(told)) is Record for told in replaced(whole))
    for record in tried:
        for call_ in record.collectives:
            assert all(type(n) is int and n >= 0 for n in (call_.seq, call_.created_ns))
            assert all(type(text) is str for text in (call_.op, call_.group, call_.state))


@pytest.mark.parametrize("value", [None, 3, "text", [], {}, [{}], {"trace": 3}, {"entries": [3]}])
def test_what_is_no_answer_is_an_empty_record(value: object) -> None:
    assert record_of(value) == Record()


def test_a_record_that_is_longer_than_any_real_one_is_cut_to_its_end() -> None:
    record = record_of({"entries": [entry(n) for n in range(1, 20_001)]})
    assert record.collectives[-1].seq == 20_000
    assert len(record.collectives) == 4096
    wide = record_of(
        {"entries": [entry(1, sizes=range(10**5)) | {"frames": [["a", 1, "f"]] * 999}]}
    )
    assert len(wide.collectives[0].input_sizes[0]) == 16
    assert len(wide.collectives[0].frames) == 64
