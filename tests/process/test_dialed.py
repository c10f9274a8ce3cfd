"""Nodes that dial in to node 0, as the containers of a job do.

The nodes are launches on this machine, in a directory each, that know one another only by their
variables and the key of the run.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from distrun.listen import free_port
from tests.conftest import only_run, wait_until
from tests.process.launched import Launched

Run = Callable[..., subprocess.CompletedProcess[str]]
pytestmark = pytest.mark.timeout(150)
LIMIT_S = 100.0
KEY = "0123456789abcdef" * 2
RECIPE = Path(__file__).parents[2] / "recipes" / "ddp.py"
LOOP = """
import os, sys, time, torch, torch.distributed as dist
assert not [name for name in os.environ if "DIAL_KEY" in name]
dist.init_process_group("gloo")
rank, attempt = dist.get_rank(), os.environ["TORCHELASTIC_RESTART_COUNT"]
dist.all_reduce(torch.ones(1))
open(f"going{rank}-{attempt}", "w").close()
while not os.path.exists(f"go_on{attempt}"):
    time.sleep(0.02)
if rank == 1 and attempt == "0" and sys.argv[1] != "0":
    sys.exit(int(sys.argv[1]))
dist.all_reduce(torch.ones(1))
print("rank", rank, "attempt", attempt, "of", dist.get_world_size(), flush=True)
dist.destroy_process_group()
"""


class Nodes:
    """Launches that are one job.

    Args:
        command: The words that start distrun.
        cwd: Where each node gets a directory.
        count: Number of nodes.
        least: With how many an elastic job goes on; 0: it is not elastic.
    """

    def __init__(self, command: list[str], cwd: Path, count: int = 2, least: int = 0) -> None:
        self._command, self._cwd, self._count = command, cwd, count
        self._nnodes = f"{least}:{count}" if least else str(count)
        self.port = free_port()
        self.started: dict[int, Launched] = {}

    def start(self, rank: int, *words: object, key: str = KEY, nnodes: str = "") -> Launched:
        """Start one node; its script is that of node 0."""
        directory = self._cwd / f"node{rank}"
        directory.mkdir(exist_ok=True)
        environ = {
            "DISTRUN_DIAL_KEY": key,
            "DISTRUN_DIAL_PORT": str(self.port),
            "DISTRUN_NNODES": nnodes or self._nnodes,
            "DISTRUN_NODE_RANK": str(rank),
            "DISTRUN_HEAD": "127.0.0.1",
            "OMP_NUM_THREADS": "1",
        }
        flags = ("--nproc-per-node", "1", *words)
        self.started[rank] = Launched(self._command, directory, *flags, environ=environ)
        return self.started[rank]

    def start_all(self, *words: object) -> list[Launched]:
        """Start all nodes, the head last: the others wait for it."""
        head = self._cwd / "node0"
        head.mkdir(exist_ok=True)
        (head / "train.py").write_text(LOOP)
        for rank in reversed(range(self._count)):
            self.start(rank, *words)
        return [self.started[rank] for rank in range(self._count)]

    def ended(self, rank: int) -> tuple[int, str]:
        """Wait for the end of a node; return its exit code and all that it has printed."""
        out, errors = self.started[rank].process.communicate(timeout=LIMIT_S)
        return self.started[rank].process.returncode, out + errors


@pytest.fixture
def nodes(command: list[str], tmp_path: Path) -> Iterator[Callable[..., Nodes]]:
    made: list[Nodes] = []

    def make(count: int = 2, least: int = 0) -> Nodes:
        made.append(Nodes(command, tmp_path, count, least))
        return made[-1]

    yield make
    for launched in (each for nodes in made for each in nodes.started.values()):
        launched.process.terminate()
        launched.process.communicate(timeout=LIMIT_S)


def going(head: Launched, count: int) -> None:
    """Wait until all ranks are in the world."""
    for rank in range(count):
        wait_until((head.cwd / f"going{rank}-0").exists, LIMIT_S, f"rank {rank}")


def losses(directory: Path) -> list[float]:
    lines = (only_run(directory) / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines if '"loss"' in line]


@pytest.mark.long
def test_nodes_that_dial_in_train_to_the_loss_of_one_machine_and_one_run_has_all(
    nodes: Callable[..., Nodes], distrun: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # more threads add up in another order
    words = [RECIPE, "--steps", "12", "--log-every", "1", "--no-save"]
    job = nodes()
    head, other = job.start_all(*words)
    code, said = job.ended(0)
    assert code == 0, said
    assert "[0·0] step 12/12" in said and "recorded in" in said
    assert {p.parent.name for p in only_run(head.cwd).glob("logs/*/rank*.log")} == {
        "node0",
        "node1",
    }
    code, said = job.ended(1)
    assert code == 0 and "node 1 of 2: the head at 127.0.0.1 supervises and shows all" in said
    assert not (other.cwd / "runs").exists()
    one = distrun("launch", "--nodes", "2", "--nproc-per-node", "1", *words)
    assert one.returncode == 0, one.stderr
    assert losses(head.cwd) == losses(tmp_path) and losses(tmp_path)


def test_a_rank_that_fails_is_named_by_the_head_and_all_nodes_end_with_its_code(
    nodes: Callable[..., Nodes],
) -> None:
    job = nodes()
    head, _ = job.start_all("train.py", 7)
    (head.cwd / "go_on0").touch()
    code, said = job.ended(0)
    assert code == 7 and f"rank 1 on {socket.gethostname()}-1 failed first" in said
    assert job.ended(1)[0] == 7


def test_a_crashed_world_is_started_again_on_all_nodes(nodes: Callable[..., Nodes]) -> None:
    job = nodes()
    head, _ = job.start_all("--max-restarts", 1, "train.py", 7)
    (head.cwd / "go_on0").touch()
    (head.cwd / "go_on1").touch()
    code, said = job.ended(0)
    assert code == 0 and "rank 1 attempt 1 of 2" in said, said
    assert job.ended(1)[0] == 0


def test_a_spare_that_has_dialed_in_takes_the_place_of_a_node(nodes: Callable[..., Nodes]) -> None:
    job = nodes(3)
    head, *_ = job.start_all("--spare", 1, "--on", "crash=swap", "train.py", 7)
    (head.cwd / "go_on0").touch()
    (head.cwd / "go_on1").touch()
    code, said = job.ended(0)
    assert code == 0 and "rank 1 attempt 1 of 2" in said, said
    name = socket.gethostname()
    assert f"restarting: {name}-2 takes the place of {name}-1" in said
    assert [job.ended(rank)[0] for rank in (1, 2)] == [0, 0]


def test_an_elastic_job_goes_on_without_a_node_that_was_killed(
    nodes: Callable[..., Nodes],
) -> None:
    job = nodes(3, least=2)
    first, _, third = job.start_all("train.py", 0)
    going(first, 3)
    third.process.kill()
    (first.cwd / "go_on1").touch()
    code, said = job.ended(0)
    assert code == 0 and "of 2" in said, said


def test_a_node_that_is_killed_is_named_and_the_others_end_with_5(
    nodes: Callable[..., Nodes],
) -> None:
    job = nodes()
    head, other = job.start_all("train.py", 0)
    going(head, 2)
    other.process.kill()
    code, said = job.ended(0)
    assert code == 5 and f"NODE LOST: the connection to {socket.gethostname()}-1 ended" in said, (
        said
    )


def test_the_nodes_of_a_head_that_is_killed_end_with_5_and_leave_no_rank(
    nodes: Callable[..., Nodes],
) -> None:
    job = nodes()
    head, _ = job.start_all("train.py", 0)
    going(head, 2)
    ranks = [int(str(e["pid"])) for e in head.events() if e["event"] == "rank_started"]
    head.process.kill()
    code, said = job.ended(1)
    assert code == 5 and "has ended without a word, or is lost" in said
    for pid in ranks:
        wait_until(lambda pid=pid: not Path(f"/proc/{pid}").exists(), 40, f"end of {pid}")
    sockets = Path(os.environ["TMPDIR"])  # of the hub, which ends with the head
    wait_until(lambda: not list(sockets.glob("distrun-*/hub")), 20, "an end of the hub")


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_one_node_stops_all_with_their_grace(
    signum: signal.Signals, nodes: Callable[..., Nodes]
) -> None:
    job = nodes()
    head, other = job.start_all("train.py", 0)
    going(head, 2)
    other.process.send_signal(signum)
    code, said = job.ended(0)
    assert code == 128 + signum and f"got signal {int(signum)}: it is passed on" in said, said
    assert job.ended(1)[0] == 128 + signum


def test_a_node_that_does_not_come_is_named_and_the_others_end_with_4(
    nodes: Callable[..., Nodes],
) -> None:
    job = nodes(3)
    for rank in (1, 0):
        job.start(rank, "--join-timeout", "8s", RECIPE)
    code, said = job.ended(0)
    assert code == 4 and "node 2 did not dial in within 8 s" in said, said
    assert job.ended(1)[0] == 4


def test_a_head_that_does_not_come_is_named(nodes: Callable[..., Nodes]) -> None:
    job = nodes()
    job.start(1, "--join-timeout", "2s", RECIPE)
    code, said = job.ended(1)
    assert code == 4 and f"node 0 at 127.0.0.1:{job.port} was not there within 2 s" in said


def test_a_node_with_another_key_or_another_count_is_refused(
    nodes: Callable[..., Nodes],
) -> None:
    job = nodes()
    job.start(0, "--join-timeout", "60s", RECIPE)
    job.start(1, RECIPE, key=KEY[::-1])
    code, said = job.ended(1)
    assert code == 3 and "does not take this node in" in said and KEY[::-1] not in said
    job.start(1, RECIPE, nnodes="3")
    code, said = job.ended(1)
    assert code == 3 and "node 1 was started as one of 3 nodes, node 0 of 2" in said


def test_a_key_that_is_too_short_is_refused_on_every_node_and_not_printed(
    nodes: Callable[..., Nodes],
) -> None:
    job = nodes()
    for rank in (0, 1):
        job.start(rank, RECIPE, key="tooshort")
        code, said = job.ended(rank)
        assert code == 2 and "has 8 characters" in said
        assert "Traceback" not in said and "tooshort" not in said


def test_strangers_at_the_heads_port_delay_nobody(nodes: Callable[..., Nodes]) -> None:
    job = nodes()
    head, _ = job.start_all("train.py", 0)
    strangers = []
    for words in (b"", b"GET / HTTP/1.1\r\n\r\n", b"\x00\x00\x00\x05hello", b"\xff" * 4096):
        wait_until(lambda: _connects(job.port), 60, "the port of the head")
        stranger = socket.create_connection(("127.0.0.1", job.port))
        stranger.sendall(words)
        strangers.append(stranger)
    (head.cwd / "go_on0").touch()
    code, said = job.ended(0)
    assert code == 0, said
    for stranger in strangers:
        stranger.close()


def _connects(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def test_what_each_node_would_do_is_printed_and_nothing_is_reached(
    distrun: Run, tmp_path: Path
) -> None:
    (tmp_path / "train.py").write_text("")
    environ = {"DISTRUN_NNODES": "2", "DISTRUN_NODE_RANK": "1", "DISTRUN_HEAD": "127.0.0.1"}
    environ = {**os.environ, **environ, "DISTRUN_DIAL_KEY": KEY}
    done = distrun("launch", "--dry-run", "train.py", env=environ)
    assert done.returncode == 0, done.stderr
    said = "# node 1 of 2 (DISTRUN_NODE_RANK); node 0 supervises and records all nodes"
    assert said in done.stdout.splitlines()
    assert KEY not in done.stdout
