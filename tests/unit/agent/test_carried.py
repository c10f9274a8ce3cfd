"""The error that counts is the original one, whatever has carried it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from distrun.agent.told_traceback import told_in
from tests.unit.agent.test_error_report import report_of

CARRIED: dict[str, tuple[str, str, int, list[str]]] = {
    "raise from": (
        "def load():\n    return {}['label']\ntry:\n    load()\n"
        "except KeyError as error:\n    raise RuntimeError('no data') from error",
        "KeyError: 'label'",
        2,
        ["carried by RuntimeError: no data"],
    ),
    "raise from, twice": (
        "try:\n    try:\n        1 / 0\n    except Exception as e:\n        raise OSError from e\n"
        "except OSError as e:\n    raise ValueError('b') from e",
        "ZeroDivisionError: division by zero",
        3,
        ["carried by ValueError: b", "OSError"],
    ),
    "a cause that was never raised": (
        "raise ValueError('mine') from KeyError('a')",
        "ValueError: mine",
        1,
        [],
    ),
    "a cause of a library's own": (
        "import json\n\ntry:\n    pass\nfinally:\n    json.JSONDecoder().decode('{')",
        "JSONDecodeError: Expecting property name enclosed in double quotes: line 1 column 2"
        " (char 1)",
        6,
        [],
    ),
    "raised in an except": (
        "try:\n    1 / 0\nexcept ZeroDivisionError:\n    raise ValueError('mine')",
        "ValueError: mine",
        4,
        [],
    ),
    "raise from None": (
        "try:\n    1 / 0\nexcept ZeroDivisionError:\n    raise ValueError('mine') from None",
        "ValueError: mine",
        4,
        [],
    ),
    "a cause that is its own": (
        "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    a, b = ValueError(1), ValueError(2)\n"
        "    a.__cause__, b.__cause__ = b, a\n    raise a",
        "ValueError: 1",
        6,
        [],
    ),
    "Ctrl-C as a cause": (
        "try:\n    raise KeyboardInterrupt\nexcept BaseException as e:\n"
        "    raise RuntimeError('stopped') from e",
        "RuntimeError: stopped",
        4,
        [],
    ),
    "a carrier whose __str__ exits": (
        "class E(Exception):\n    def __str__(self): raise SystemExit\ntry:\n    1 / 0\n"
        "except ZeroDivisionError as e:\n    raise E from e",
        "ZeroDivisionError: division by zero",
        4,
        ["E"],
    ),
    "ProcessPoolExecutor": (
        "import concurrent.futures, multiprocessing\ndef work(i):\n    return 1 / i\n"
        "context = multiprocessing.get_context('fork')\n"
        "with concurrent.futures.ProcessPoolExecutor(1, context) as pool:\n"
        "    pool.submit(work, 0).result()",
        "ZeroDivisionError: division by zero",
        3,
        ["in a worker of ProcessPoolExecutor"],
    ),
    "multiprocessing.Pool": (
        "import multiprocessing\ndef work(i):\n    return {}[i]\n"
        "with multiprocessing.get_context('fork').Pool(1) as pool:\n    pool.map(work, ['a'])",
        "KeyError: 'a'",
        3,
        ["in a worker of multiprocessing.Pool"],
    ),
    "raise from, in a pool": (
        "import multiprocessing\ndef work(i):\n    try:\n        1 / i\n    except OSError:\n"
        "        pass\n    except Exception as e:\n"
        "        raise ValueError('of a worker') from e\n"
        "with multiprocessing.get_context('fork').Pool(1) as pool:\n    pool.map(work, [0])",
        "ZeroDivisionError: division by zero",
        4,
        ["in a worker of multiprocessing.Pool"],
    ),
    "raised in an except, in a pool": (
        "import multiprocessing\ndef work(i):\n    try:\n        1 / i\n    except OSError:\n"
        "        pass\n    except Exception as e:\n"
        "        raise ValueError('of\\na worker')\n"
        "with multiprocessing.get_context('fork').Pool(1) as pool:\n    pool.map(work, [0])",
        "ValueError: of\na worker",
        8,
        ["in a worker of multiprocessing.Pool"],
    ),
    "a library in a pool": (
        "import json, multiprocessing\n"
        "with multiprocessing.get_context('fork').Pool(1) as pool:\n"
        "    pool.map(json.loads, ['{'])",
        "JSONDecodeError: Expecting property name enclosed in double quotes: line 1 column 2"
        " (char 1)",
        3,
        ["in a worker of multiprocessing.Pool"],
    ),
    "another program": (
        "import subprocess, sys\n"
        "done = subprocess.run([sys.executable, '-c', '{}[5]'], capture_output=True, text=True)\n"
        "raise RuntimeError('the child failed:\\n' + done.stderr)",
        "KeyError: 5",
        3,
        ["carried by RuntimeError: the child failed:"],
    ),
    "a traceback that is none": (
        "raise RuntimeError('Traceback (most recent call last):\\n or so')",
        "RuntimeError: Traceback (most recent call last):\n or so",
        1,
        [],
    ),
}
GROUPS: dict[str, tuple[str, str, int, list[str]]] = {
    "ExceptionGroup": (
        "errors = []\nfor value in ('a', 'b'):\n    try:\n        int(value)\n"
        "    except ValueError as error:\n        errors.append(error)\n"
        "raise ExceptionGroup('two', errors)",
        "ValueError: invalid literal for int() with base 10: 'a'",
        4,
        ["carried by ExceptionGroup: two (2 sub-exceptions)"],
    ),
    "TaskGroup": (
        "import asyncio\nasync def work():\n    raise KeyError('x')\nasync def main():\n"
        "    async with asyncio.TaskGroup() as group:\n        group.create_task(work())\n"
        "asyncio.run(main())",
        "KeyError: 'x'",
        3,
        ["carried by ExceptionGroup: unhandled errors in a TaskGroup (1 sub-exception)"],
    ),
    "a group in a pool": (
        "import multiprocessing\ndef work(i):\n    errors = []\n    for value in (i, 0):\n"
        "        try:\n            5 / value\n        except ArithmeticError as error:\n"
        "            errors.append(error)\n    errors.append(KeyError())\n"
        "    raise ExceptionGroup('all', errors)\n"
        "with multiprocessing.get_context('fork').Pool(1) as pool:\n    pool.map(work, [0])",
        "ZeroDivisionError: division by zero",
        6,
        ["in a worker of multiprocessing.Pool"],
    ),
}
if sys.version_info >= (3, 11):
    CARRIED |= GROUPS


@pytest.mark.parametrize("kind", CARRIED)
def test_the_original_error_is_reported_with_its_place_and_what_carried_it(
    tmp_path: Path, kind: str
) -> None:
    source, error, line, carriers = CARRIED[kind]
    report = report_of(tmp_path, source)
    assert f"{report['type']}: {report['message']}" == error
    assert (report["file"], report["line"]) == (str(tmp_path / "train.py"), line)
    assert report["source"] == source.splitlines()[line - 1].strip()
    assert report["carriers"] == carriers


TORCH = """
import torch, os, sys
import torch.multiprocessing as mp
from torch.utils.data import DataLoader
class Rows:
    def __len__(self): return 4
    def __getitem__(self, i):
        try:
            return {}['label']
        except KeyError as error:
            raise CUSTOM('row', i) from error
class CUSTOM(Exception):
    def __init__(self, a, b): super().__init__(a, b)
class Nested(Rows):
    def __getitem__(self, i):
        return list(DataLoader(Rows(), num_workers=0))
def work(i):
    next(iter(DataLoader(Rows())))
def load():
    list(DataLoader(Rows(), num_workers=1))
def spawn():
    mp.start_processes(work, nprocs=1, start_method="fork")
def save():
    import torch.distributed.checkpoint as dcp
    class Bad:
        def __reduce__(self): raise OSError('quota')
    dcp.save({'x': Bad()}, checkpoint_id=sys.argv[1] + '.d', no_dist=True)
"""


def line_of(words: str) -> int:
    return next(i for i, line in enumerate(TORCH.splitlines(), 1) if words in line)


@pytest.mark.timeout(90)
@pytest.mark.parametrize(
    ("call", "error", "words", "carrier"),
    [
        ("load()", "KeyError: 'label'", "return {}", "in DataLoader worker 0"),
        ("spawn()", "KeyError: 'label'", "return {}", "in process 0 of mp.spawn"),
        ("save()", "OSError: quota", "raise OSError", "on rank 0 of a checkpoint"),
    ],
)
def test_what_torch_carries_is_reported_as_it_was_raised(
    tmp_path: Path, call: str, error: str, words: str, carrier: str
) -> None:
    report: dict[str, Any] = report_of(tmp_path, TORCH + call)
    assert f"{report['type']}: {report['message']}" == error
    assert (report["line"], report["carriers"]) == (line_of(words), [carrier])


def test_an_error_of_a_rank_of_rpc_is_told_with_the_worker() -> None:
    told = told_in(
        "On WorkerInfo(id=1, name=trainer1):\nValueError('no')\n"
        "Traceback (most recent call last):\n"
        '  File "/venv/lib/python3.11/site-packages/torch/distributed/rpc/internal.py", line 206,'
        ' in _run_function\n    result = f()\n  File "/home/a b/train.py", line 7, in work\n'
        "    raise ValueError('no')\nValueError: no\n"
    )
    assert told is not None
    assert told.frame == ("/home/a b/train.py", 7, "work", "raise ValueError('no')")
    assert (told.type, told.message, told.carrier) == ("ValueError", "no", "in RPC worker trainer1")


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    "message", ["x" * 5_000_000, "Caught a in b. " * 400_000, "+" * 5_000_000, "a\n" * 2_000_000]
)
def test_a_message_of_megabytes_costs_neither_type_nor_line(message: str) -> None:
    told = told_in(
        "Caught ValueError in DataLoader worker process 3.\n"
        'Original Traceback (most recent call last):\n  File "/home/me/train.py", line 7, in f\n'
        f"    raise ValueError(x)\nValueError: {message}\n"
    )
    assert told is not None
    assert (told.type, told.frame[1], told.carrier) == ("ValueError", 7, "in DataLoader worker 3")
    assert told.message.startswith(message[:9])
