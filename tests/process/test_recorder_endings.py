"""A rank that is asked all the time ends as if nobody asked. `DISTRUN_TEST_TIMES=50` by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import TIMES
from tests.process.agent_alone import AgentAlone

OTHERS = Path(__file__).parents[1] / "others"
EVERY_S = 0.05
INIT = "import torch, torch.distributed as dist\ndist.init_process_group('gloo')\n"
SCRIPTS = {
    "DDP in functions": (OTHERS / "ddp_functions.py").read_text(),
    "DDP, short": (OTHERS / "ddp_short.py").read_text(),
    "exit after destroy": f"{INIT}dist.all_reduce(torch.ones(9))\ndist.destroy_process_group()\n",
    "exit without destroy": (
        f"{INIT}model = torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(64, 64))\n"
        "model(torch.ones(8, 64)).sum().backward()\n"
    ),
    "groups in turn": (
        f"{INIT}for _ in range(5):\n"
        "    group = dist.new_group([0, 1])\n"
        "    dist.all_reduce(torch.ones(9), group=group)\n"
        "    dist.destroy_process_group(group)\n"
        "dist.destroy_process_group()\n"
    ),
}


@pytest.mark.long
@pytest.mark.timeout(60 + 60 * TIMES)
@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS)
def test_ranks_that_are_asked_at_every_moment_end_with_0(script: str, tmp_path: Path) -> None:
    path = tmp_path / "train.py"
    path.write_text(script)
    answers = 0
    for number in range(TIMES):
        agent = AgentAlone(path, args=(str(tmp_path),), warm=number % 4 != 3)
        answers += agent.look_until_the_end(2, EVERY_S)
        agent.end()
        assert agent.exit_codes == {0: 0, 1: 0}, agent.printed
    assert answers > TIMES, "they were asked while they had a group"
