"""A script with a process group comes out under distrun as under python: the recorder is unseen."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.process.fidelity import Case, Launch, difference, side_by_side

pytestmark = pytest.mark.timeout(170)
INIT = """
import os, signal, sys, tempfile, threading, time, warnings
import torch, torch.distributed as dist
def begin():
    where = tempfile.mkdtemp(dir=".")
    dist.init_process_group("gloo", f"file://{os.path.abspath(where)}/s", rank=0, world_size=1)
    x = torch.ones(3)
    dist.all_reduce(x)
    os.remove(f"{where}/s") if os.path.exists(f"{where}/s") else None
    os.rmdir(where)
    print("sum", x.sum().item(), [t.name for t in threading.enumerate()])
"""
IMPORT = """
import sys, threading
print(sys.meta_path, threading.active_count())
import torch.distributed.distributed_c10d as c10d
import importlib.machinery, inspect
print(c10d.__spec__, c10d.__loader__, type(c10d.__loader__), vars(c10d.__loader__))
print(len(inspect.getsource(c10d)), c10d.__file__, sys.meta_path)
print(importlib.machinery.PathFinder.find_spec.__func__.__module__)
print([name for name in sys.modules if name.endswith(("recorder", "torch_private"))])
"""
CASES = [
    Case("the import of torch", IMPORT, prints="SourceFileLoader"),
    Case(
        "torch's function is its own again",
        INIT + "begin()\nimport torch.distributed.distributed_c10d as c10d\n"
        "print(c10d._register_process_group, torch._C._distributed_c10d._register_process_group)\n"
        "dist.destroy_process_group()",
        prints="built-in method _register_process_group",
    ),
    Case(
        "a group, another one, and the end",
        INIT + "begin(); dist.destroy_process_group(); begin(); dist.destroy_process_group()",
        prints="sum 3.0",
    ),
    Case("the end with a group", INIT + "begin()", prints="sum 3.0"),
    Case("at once", INIT + "begin()\nos._exit(7)", exit_code=7, prints="sum 3.0"),
    Case(
        "sys.exit in a thread",
        INIT + "begin()\ndef work():\n    time.sleep(0.2)\n    print('in it')\n    sys.exit(3)\n"
        "threading.Thread(target=work).start()\ndist.destroy_process_group()",
        prints="in it",
    ),
    Case(
        "interrupted",
        INIT + "begin()\ndist.destroy_process_group()\nos.kill(os.getpid(), signal.SIGINT)",
        exit_code=130,
        prints="KeyboardInterrupt",
    ),
    Case(
        "an exception",
        INIT + "begin()\ndist.destroy_process_group()\nraise ValueError('mine')",
        exit_code=1,
        prints="ValueError: mine",
    ),
    Case(
        "a backend without threads, and a fork",
        "import os, warnings\nimport torch.distributed as dist\n"
        "from torch.testing._internal.distributed.fake_pg import FakeStore\n"
        "warnings.simplefilter('error')\n"
        "dist.init_process_group('fake', store=FakeStore(), rank=0, world_size=2)\n"
        "print('threads', len(os.listdir('/proc/self/task')))\n"
        "child = os.fork()\nif child == 0:\n    os._exit(4)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))",
        prints="threads 1",
        environ={"OMP_NUM_THREADS": "1"},  # else numpy's are there
    ),
    Case(
        "workers of a loader",
        INIT + "from torch.utils.data import DataLoader\nif __name__ == '__main__':\n"
        "    begin()\n"
        "    for how in ('fork', 'spawn'):\n"
        "        loader = DataLoader(range(6), 2, num_workers=2, multiprocessing_context=how)\n"
        "        print([batch.tolist() for batch in loader])\n"
        "    dist.destroy_process_group()",
        prints="[[0, 1], [2, 3], [4, 5]]",
        run_timeout_s=160,
    ),
    Case(
        "groups in processes of its own",
        INIT + "import torch.multiprocessing as mp\n"
        "def work(rank, place):\n"
        "    dist.init_process_group('gloo', f'file://{place}', rank=rank, world_size=2)\n"
        "    x = torch.ones(3)\n    dist.all_reduce(x)\n"
        "    open(f'rank{rank}', 'w').write(str(x.tolist()))\n    dist.destroy_process_group()\n"
        "if __name__ == '__main__':\n"
        "    for how in ('spawn', 'fork'):\n"
        "        place = os.path.abspath(how)\n"
        "        mp.start_processes(work, (place,), 2, start_method=how)\n"
        "        print(how, open('rank1').read())\n"
        "        os.path.exists(place) and os.remove(place)",
        prints="fork [2.0, 2.0, 2.0]",
        run_timeout_s=160,
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_script_with_a_group_cannot_tell_distrun_from_python(
    case: Case, tmp_path: Path, distrun: Launch
) -> None:
    expected, launches = side_by_side(case, tmp_path, distrun)
    differences = "".join(difference(expected, found, by) for by, (found, _) in launches.items())
    assert not differences, differences
