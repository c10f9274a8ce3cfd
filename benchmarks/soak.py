"""Random faults against a training run on hosts behind ssh, and what becomes of its loss.

    python -m benchmarks.soak [--minutes 10] [--seed 1] [--every-s 20] [--keep DIR]

It needs root: the hosts are namespaces of this machine. A run that ends by a fault is launched
again, and goes on from its checkpoint. After the time it is let end, and the same number of steps
is trained once more undisturbed. Right is: the same final loss, each fault attributed to its rank
or host in the events of its run, and no process left after any launch.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.cluster.hosts import Hosts
from tests.cluster.launches import Launch
from tests.cluster.needs import lacking
from tests.faults.running import wait_for

TRAIN = Path(__file__).with_name("soak_train.py")
NAMES = ("n01", "n02", "n03")
NPROC = 2
LOST_WITHIN_S = 60.0
"""A silent node is lost after 30 s; the rest is for a machine that does much else."""
BLIP_S = 10.0
GONE_WITHIN_S = 45.0
"""A host that was cut off has a lease of 30 s."""
OF_RANKS = {
    "kill_oneself": -signal.SIGKILL,
    "segfault": -signal.SIGSEGV,
    "hard_exit_7": 7,
    "raise_error": 1,
    "exit_3": 3,
}
"""Functions of tests/faults/faulty.py, and the exit code in the event of the rank's end."""
HANGS = ("sleep", "stop_oneself", "spin")


@dataclass
class Told:
    """What was done, and what the run said of it."""

    fault: str
    of: str
    as_it_was: bool
    seconds: float


@dataclass
class Soak:
    """One training run, in as many launches as it takes.

    Args:
        home: For checkpoints and launches; the hosts see it.
        hosts: Three hosts: two with ranks, and a spare that takes the place of either.
        seed: Of the choice of faults.
    """

    home: Path
    hosts: Hosts
    seed: int
    launches: int = 0
    told: list[Told] = field(default_factory=list)
    left: int = 0
    codes: Counter[int] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self.random = random.Random(self.seed)
        self.launch: Launch | None = None

    # --- launches ----------------------------------------------------------------------

    def start(self) -> None:
        cwd = self.home / f"launch{self.launches}"
        cwd.mkdir()
        self.launches += 1
        words = [
            *("--hosts", ",".join(NAMES), "--spare=1", f"--nproc-per-node={NPROC}"),
            *("--max-restarts=1000", "--grace=3", "--hang-timeout=5", "--no-check"),
            *(str(TRAIN), str(self.home)),
        ]
        environ = self.hosts.ssh_environ() | {"OMP_NUM_THREADS": "1"}
        self.launch = Launch(words, environ, cwd)

    def settle(self) -> None:
        """Look at what a launch that has ended has left, and mend the hosts."""
        assert self.launch
        self.codes[self.launch.ends()] += 1
        self.launch = None
        for name in NAMES:
            self.hosts.mend(name)
        if not wait_for(lambda: not any(map(self.hosts.pids, NAMES)), GONE_WITHIN_S):
            self.left += sum(len(self.hosts.pids(name)) for name in NAMES)
        self.hosts.restore()

    @property
    def is_over(self) -> bool:
        return self.launch is None or self.launch.child.poll() is not None

    def events(self) -> list[dict[str, Any]]:
        assert self.launch
        paths = [*self.launch.cwd.glob("runs/*/events.jsonl")]
        lines = paths[0].read_text().splitlines(keepends=True) if paths else []
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def saved(self) -> int:
        path = self.home / "saved"
        return int(path.read_text() or 0) if path.exists() else -1

    def wait_for_progress(self, limit_s: float = 90.0) -> bool:
        """Wait for a new checkpoint; return whether it came before the end of the launch."""
        before = self.saved()
        wait_for(lambda: self.saved() > before or self.is_over, limit_s)
        return self.saved() > before and not self.is_over

    # --- faults ------------------------------------------------------------------------

    def hosts_of_now(self) -> list[str]:
        """Return the hosts that have ranks."""
        hosts: dict[int, str] = {}
        found: set[str] = set()
        for event in self.events():
            if event["event"] == "node_stage":
                hosts[event["node"]] = event["host"]
            elif event["event"] == "attempt_started":
                found = set()
            elif event["event"] == "rank_started":
                found.add(hosts[event["node"]])
        return sorted(found)

    def disturb(self) -> None:
        """Do one thing, and wait until the run has said what it was."""
        choice = self.random.choices(
            [self.of_rank, self.hang, self.of_host, self.blip], weights=[5, 3, 3, 2]
        )[0]
        since = len(self.events())
        began = time.monotonic()
        fault, of, is_told = choice()
        wait_for(lambda: is_told(self.events()[since:]) or self.is_over, LOST_WITHIN_S)
        as_it_was = is_told(self.events()[since:])
        seconds = time.monotonic() - began
        for name in NAMES:
            self.hosts.mend(name)
        self.told.append(Told(fault, of, as_it_was, seconds))
        said = "told" if as_it_was else "NOT TOLD"
        print(f"{fault:<14} {of:<8} {seconds:>5.1f} s  {said}", flush=True)

    def order(self, faults: list[str]) -> tuple[str, int]:
        fault = self.random.choice(faults)
        rank = self.random.randrange(2 * NPROC)
        draft = self.home / "order.draft"
        draft.write_text(f"{rank} {fault}")
        draft.rename(self.home / "order")
        return fault, rank

    def of_rank(self) -> tuple[str, str, Callable[[list[dict[str, Any]]], bool]]:
        fault, rank = self.order([*OF_RANKS])
        end = {"event": "rank_ended", "rank": rank, "exit_code": OF_RANKS[fault]}
        return fault, f"rank {rank}", lambda events: any(end.items() <= e.items() for e in events)

    def hang(self) -> tuple[str, str, Callable[[list[dict[str, Any]]], bool]]:
        fault, rank = self.order([*HANGS])

        def is_told(events: list[dict[str, Any]]) -> bool:
            return any(e["event"] == "hang" and rank in e["verdict"]["culprits"] for e in events)

        return fault, f"rank {rank}", is_told

    def of_host(self) -> tuple[str, str, Callable[[list[dict[str, Any]]], bool]]:
        fault, name = self.random.choice(["kill_all", "power_off", "cut"]), self.one_host()
        if fault == "kill_all":
            self.hosts.machines[name].kill(lambda line: "sshd" not in line)
        elif fault == "power_off":
            self.hosts.power_off(name)
        else:
            self.hosts.cut(name)

        def is_told(events: list[dict[str, Any]]) -> bool:
            return any(e["event"] == "node_lost" and e["host"] == name for e in events)

        return fault, name, is_told

    def blip(self) -> tuple[str, str, Callable[[list[dict[str, Any]]], bool]]:
        """Cut a link for a while, or lose a tenth of its packets: nothing may come of it."""
        fault, name = self.random.choice(["cut_10_s", "loss_10"]), self.one_host()
        if fault == "cut_10_s":
            self.hosts.cut(name)
        else:
            self.hosts.lossy(name, 10)
        time.sleep(BLIP_S)  # what the run is to live through
        self.hosts.mend(name)
        goes_on = self.wait_for_progress()
        ends = ("node_lost", "hang", "restart")
        return fault, name, lambda events: goes_on and not any(e["event"] in ends for e in events)

    def one_host(self) -> str:
        return self.random.choice(self.hosts_of_now() or [*NAMES])

    # --- all of it -----------------------------------------------------------------------

    def run(self, minutes: float, every_s: float) -> None:
        deadline = time.monotonic() + 60 * minutes
        while time.monotonic() < deadline:
            self.be_launched()
            if self.wait_for_progress():
                time.sleep(self.random.expovariate(1 / every_s))
                if not self.is_over:
                    self.disturb()
        (self.home / "order").unlink(missing_ok=True)
        (self.home / "end").touch()
        while not (self.home / "final.json").exists():
            self.be_launched()
            wait_for(lambda: self.is_over, 180)
        self.settle()

    def be_launched(self) -> None:
        if self.is_over:
            if self.launch:
                self.settle()
            self.start()


def undisturbed(until: int) -> float:
    """Return the final loss of the same number of steps without a fault."""
    with tempfile.TemporaryDirectory(prefix="distrun-soak-") as directory:
        command = [
            *(sys.executable, "-m", "distrun", "launch", "--no-check", "--quiet"),
            *(f"--nproc-per-node={2 * NPROC}", str(TRAIN), directory),
            *(f"--until={until}", "--step-s=0"),
        ]
        subprocess.run(command, cwd=directory, check=True, stdin=subprocess.DEVNULL, timeout=600)
        found: dict[str, float] = json.loads((Path(directory) / "final.json").read_text())
    return found["loss"]


def report(soak: Soak) -> bool:
    """Print what came of it; return whether all is right."""
    final = json.loads((soak.home / "final.json").read_text())
    expected = undisturbed(final["step"])
    apart = abs(final["loss"] - expected) / abs(expected)
    missed = [told for told in soak.told if not told.as_it_was]
    codes = ", ".join(f"{code}: {count}" for code, count in sorted(soak.codes.items()))
    print(f"\n{soak.launches} launches (exit codes {codes}), {len(soak.told)} faults")
    print(f"attributed      {len(soak.told) - len(missed)} of {len(soak.told)}")
    print(f"processes left  {soak.left}")
    print(f"final loss      {final['loss']:.15g} after {final['step']} steps")
    print(f"undisturbed     {expected:.15g}, {apart:.1e} apart (relative)")
    return not missed and not soak.left and apart <= 1e-12


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--every-s", type=float, default=20, help="mean pause between faults")
    parser.add_argument("--keep", default="", help="where to keep the run directories")
    options = parser.parse_args()
    if reason := lacking("sshd", "ssh", "ssh-keygen"):
        print(f"no hosts here: {reason}")
        return 3
    home = Path(tempfile.mkdtemp(prefix="distrun-soak-"))
    os.environ["XDG_STATE_HOME"] = str(home)
    hosts = Hosts(home / "hosts", names=NAMES, visible=[home])
    try:
        soak = Soak(home, hosts, options.seed)
        soak.run(options.minutes, options.every_s)
        return int(not report(soak))
    finally:
        hosts.close()
        if options.keep:
            shutil.copytree(home, options.keep, dirs_exist_ok=True)
        shutil.rmtree(home, ignore_errors=True)


if __name__ == "__main__":
    sys.exit(main())
