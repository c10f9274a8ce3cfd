"""The table of faults: what each is, and what a launch has to make of it.

A fault is a function of faulty.py, an act from outside, or a setting that is wrong from the start.
All four ranks train together; the fault is of rank 3, on the second node where there are two, if
nothing else is said.
"""

from __future__ import annotations

import signal
from dataclasses import dataclass, replace
from typing import Literal

from tests.faults import acts, settings
from tests.faults.running import (
    GRACE_S,
    HANG_TIMEOUT_S,
    LINGER_S,
    ONE,
    SSH,
    TWO,
    Layout,
)

Bound = Literal["ends", "hang", "lost", "forced", "start", "clean", "any"]
BOUNDS_S: dict[Bound, float] = {
    "ends": GRACE_S + 5,
    "hang": HANG_TIMEOUT_S + 15,
    "lost": 30 + GRACE_S,
    "forced": 5,
    "start": settings.JOIN_TIMEOUT_S + 5,
    "clean": LINGER_S + 5,
    "any": float("inf"),
}
"""Seconds from the fault to the exit of the launcher (`start`: from its start)."""
EVERYWHERE = (ONE, TWO, SSH)
HERE = (ONE, TWO)


@dataclass(frozen=True)
class Case:
    """One fault, and the right answer."""

    id: str
    what: str
    """The fault, as a line of the table."""
    program: tuple[str, ...]
    """Words of worker.py."""
    code: int
    """The documented exit code of distrun; 128+n if the launcher itself is killed by signal n."""
    who: str
    """Whom the last words name: `rank 3`, `node` (the one that rank 3 is on), "" for nobody."""
    says: str
    """A regular expression for the cause in the last words."""
    bound: Bound
    layouts: tuple[Layout, ...] = EVERYWHERE
    act: acts.Act | None = None
    setting: settings.Setting = settings.nothing
    survives: bool = False
    """Training goes on, and is let end."""
    torchrun: bool = True
    """Whether the same can be done to torchrun."""
    more_s: float = 0.0
    """More than the bound, where the documentation says so."""

    @property
    def bound_s(self) -> float:
        return BOUNDS_S[self.bound] + self.more_s


def dies(
    fault: str, what: str, code: int, says: str, *words: str, who: str = "rank 3", **known: object
) -> Case:
    """A rank that ends, or makes others end."""
    name = str(known.pop("id", fault))
    usual = {"bound": "ends"}
    return Case(name, what, (fault, *words), code, who, says, **usual | known)  # type: ignore[arg-type]


def hangs(fault: str, what: str, says: str, *words: str, **known: object) -> Case:
    """A rank that others wait for until they are stopped."""
    usual = {"bound": "hang"}
    return dies(fault, what, 124, says, *words, **usual | known)


def done(
    name: str, what: str, act: acts.Act, code: int, says: str, *words: str, **known: object
) -> Case:
    """Something that is done from outside."""
    usual = {"act": act, "who": "", "id": name}
    return dies(words[0] if words else "none", what, code, says, *words[1:], **usual | known)


def begins(
    name: str, what: str, setting: settings.Setting, code: int, says: str, **known: object
) -> Case:
    """A launch that cannot begin."""
    usual = {"setting": setting, "who": "", "bound": "start", "id": name}
    return dies("none", what, code, says, **usual | known)


def over_ssh(case: Case) -> Case:
    """What only hosts with a network between them can have."""
    return replace(case, layouts=(SSH,), torchrun=False)


_ABORTS = "[^;]*; then gloo aborted rank"
ENDS = [
    dies("exit_3", "exits with 3", 3, "exited with 3"),
    dies("raise_error", "raises", 1, "ValueError: no such sample: 7"),
    dies("raise_error", "rank 0 raises", 1, "ValueError", "--rank=0", who="rank 0",
         id="raise_on_rank_0"),
    dies("raise_error", "all ranks raise the same", 1, "ValueError.*3 with the same error",
         "--rank=all", who="rank", id="raise_on_all"),
    dies("raise_error", "raises before it joins the process group", 1, "ValueError", "--at=start",
         id="raise_before_joining"),
    dies("import_what_is_not_there", "cannot import a module", 1,
         "ModuleNotFoundError: .*a_module_that_nobody_has", "--at=start"),
    dies("raise_error", "raises, and no rank waits for it", 1, "ValueError", "--alone",
         id="raise_alone"),
    dies("raise_in_a_loader_worker", "a DataLoader worker of it raises", 1,
         "ValueError.*no such sample"),
    dies("raise_with_a_thread_that_stays", "raises, and a thread keeps it alive", 1, "ValueError",
         more_s=5),
    dies("exit_with_text", "exits with a text", 1, "the data is not there"),
    dies("hard_exit_7", "os._exit(7)", 7, "exited with 7"),
    dies("two_within_20_ms", "two ranks end 15 ms apart", 5, "exited with 5", "--rank=3,0"),
    dies("kill_oneself", "SIGKILL", 137, "SIGKILL"),
    dies("kill_oneself", "SIGKILL, and no rank waits for it", 137, "SIGKILL", "--alone",
         id="sigkill_alone"),
    dies("terminate_oneself", "SIGTERM", 143, "SIGTERM"),
    dies("segfault", "SIGSEGV", 139, "SIGSEGV"),
    dies("abort", "SIGABRT", 134, "SIGABRT"),
    dies("bus_error", "SIGBUS", 135, "SIGBUS"),
    dies("allocate_too_much", "an allocation fails", 1, "MemoryError"),
    dies("allocate_in_a_cgroup", "killed by the kernel, its cgroup is full", 137,
         "killed by the kernel, out of memory", setting=settings.with_a_small_cgroup,
         layouts=HERE),  # the kernel's log has other pids than hosts of namespaces
    dies("exit_0", "exits with 0 while others wait for it", 1, "had ended with 0"),
    dies("exit_0", "exits with 0, and no rank waits for it", 0, "", "--alone", who="",
         survives=True, bound="any", id="exit_0_alone"),
    dies("exit_3", "exits with 3; another rank ignores SIGTERM", 3, "exited with 3", "--deaf=1",
         id="exit_3_deaf"),
    dies("start_children_and_raise", "raises, and has children, one a daemon", 1, "ValueError"),
    dies("start_children", "ends well, and leaves children, one a daemon", 0, "", "--at=end",
         who="", survives=True, bound="clean", id="children_at_the_end"),
]  # fmt: skip
"""Ranks that end."""

HANGS = [
    hangs("sleep", "sleeps for ever", r"sleep at faulty\.py"),
    hangs("sleep", "rank 0 sleeps for ever", r"sleep at faulty\.py", "--rank=0", who="rank 0",
          id="sleep_on_rank_0"),
    hangs("sleep", "ranks 2 and 3 sleep for ever", r"sleep at faulty\.py", "--rank=2,3",
          who="ranks 2-3", id="sleep_on_two"),
    hangs("sleep", "sleeps before it joins the process group", r"sleep at faulty\.py",
          "--at=start", id="sleep_before_joining"),
    hangs("spin", "loops for ever", r"faulty\.py"),
    hangs("lock_twice", "waits for a lock that nobody gives back", r"faulty\.py"),
    hangs("read_in_c_with_the_gil", "stays in C with the GIL", r"faulty\.py"),
    hangs("stop_oneself", "SIGSTOP", "stopped"),
    hangs("other_collective", "calls another collective", r"all_gather.*faulty\.py"),
    dies("other_shape", "calls the collective with another shape", 134,
         rf"rank 3[^;]* called all_reduce \(float32 \[4000\]\){_ABORTS}"),
    dies("smaller_shape", "calls the collective with a smaller shape", 134,
         rf"rank 3[^;]* came with fewer bytes{_ABORTS}"),
    dies("other_dtype", "calls the collective with another dtype", 134,
         rf"rank 3[^;]* called all_reduce \(float64 \[676\]\){_ABORTS}"),
]  # fmt: skip
"""Ranks that do not come to a collective, or come with another."""

OUTPUT = [
    dies("print_100_mb", "prints 100 MB", 0, "", who="", survives=True, bound="any"),
    dies("print_invalid_utf_8", "prints bytes that are no UTF-8", 0, "half a letter", who="",
         survives=True, bound="any"),
    dies("print_4_mb", "the disk of the logs is full", 0, "No space left on device", who="",
         survives=True, bound="any", setting=settings.on_a_full_disk, id="log_disk_full"),
    done("run_directory_removed", "the run directory is removed", acts.remove_the_run_directory,
         0, "", survives=True, bound="any", torchrun=False),
]  # fmt: skip
"""Output, and where it is recorded."""

_LAUNCHER = "launcher"
SIGNALS = [
    done("sigint_group", "Ctrl-C in the terminal", acts.send("group", signal.SIGINT), 130,
         "SIGINT"),
    done("sigint", "SIGINT to the launcher alone", acts.send(_LAUNCHER, signal.SIGINT), 130,
         "SIGINT"),
    done("sigterm", "SIGTERM to the launcher", acts.send(_LAUNCHER, signal.SIGTERM), 143,
         "SIGTERM"),
    done("sighup", "SIGHUP to the launcher", acts.send(_LAUNCHER, signal.SIGHUP), 129, "SIGHUP"),
    done("sigquit", "SIGQUIT to the launcher", acts.send(_LAUNCHER, signal.SIGQUIT), 131,
         "SIGQUIT"),
    done("sigusr1", "SIGUSR1 to the launcher; a rank handles it",
         acts.send(_LAUNCHER, signal.SIGUSR1), 0, "rank 3 got 10(.|\n)*rank 3 trained",
         "handle_usr", "--at=start", survives=True, bound="any"),
    done("sigusr2", "SIGUSR2 to the launcher; no rank handles it",
         acts.send(_LAUNCHER, signal.SIGUSR2), 0, "SIGUSR2 was not passed", survives=True,
         bound="any"),
    done("sigterm_deaf", "SIGTERM to the launcher; a rank ignores it",
         acts.send(_LAUNCHER, signal.SIGTERM), 143, "had to be killed", "none", "--deaf=3",
         "--alone"),
    done("sigterm_children", "SIGTERM to the launcher; a rank has children",
         acts.send(_LAUNCHER, signal.SIGTERM), 143, "SIGTERM", "start_children", "--at=start"),
    done("sigint_twice", "SIGINT twice; a rank ignores both", acts.send_twice(signal.SIGINT), 130,
         "had to be killed", "none", "--deaf=3", "--alone", bound="forced"),
    done("sigterm_twice", "SIGTERM twice; a rank ignores both", acts.send_twice(signal.SIGTERM),
         143, "had to be killed", "none", "--deaf=3", "--alone", bound="forced"),
]  # fmt: skip
"""Signals to the launcher."""

_KILL, _STOP = signal.SIGKILL, signal.SIGSTOP
OURS = [
    done("kill_launcher", "SIGKILL of the launcher", acts.send(_LAUNCHER, _KILL), 137,
         "the command that started it was killed"),
    done("kill_launcher_children", "SIGKILL of the launcher; a rank has children",
         acts.send(_LAUNCHER, _KILL), 137, "the command that started it was killed",
         "start_children", "--at=start"),
    done("kill_supervisor", "SIGKILL of the supervisor", acts.send("supervisor", _KILL), 70,
         "supervisor", torchrun=False),
    done("kill_agent_of_node_1", "SIGKILL of the agent of node 1", acts.send("agent1", _KILL), 5,
         "", layouts=(TWO, SSH), who="node"),
    done("kill_agent_of_node_1_alone", "the same, and no rank waits for another",
         acts.send("agent1", _KILL), 5, "", "none", "--alone", layouts=(TWO, SSH), who="node"),
    done("kill_agent_of_node_0", "SIGKILL of the agent of node 0", acts.send("agent0", _KILL), 5,
         "(node0|n01)"),
    done("kill_forkserver", "SIGKILL of the process that forks the ranks",
         acts.send("forkserver0", _KILL), 5, "node0", layouts=HERE, torchrun=False),
    done("kill_all", "SIGKILL of launcher, supervisor and agents",
         acts.kill_everything_of_the_launcher, 137, ""),
    done("kill_ssh", "SIGKILL of the ssh client of n02", acts.kill_ssh, 5, "", layouts=(SSH,),
         who="node", torchrun=False),
    done("stop_agent", "SIGSTOP of the agent of node 1", acts.send("agent1", _STOP), 5,
         "said nothing for 30 s", layouts=(TWO, SSH), who="node", bound="lost"),
    done("stop_supervisor", "SIGSTOP of the supervisor", acts.send("supervisor", _STOP), 70,
         "supervisor", bound="lost", torchrun=False),
    done("stop_launcher", "SIGSTOP of the launcher for 3 s", acts.stop_for_a_while(_LAUNCHER), 0,
         "rank 3 trained", survives=True, bound="any"),
]  # fmt: skip
"""Processes of the launcher itself."""

_BETWEEN = [
    done("power_off", "node 2 is powered off", acts.power_off, 5, "", who="node", bound="lost"),
    done("cut", "the link to node 2 is cut for ever", acts.cut, 5, "said nothing for 30 s",
         who="node", bound="lost"),
    done("cut_15_s", "the link to node 2 is cut for 15 s", acts.cut_for_15_s, 0,
         "rank 3 trained", survives=True, bound="any"),
    done("drop", "99 % of the packets to node 2 are lost", acts.lose(99), 5,
         "said nothing for 30 s", who="node", bound="lost"),
    done("loss_20", "20 % of the packets to node 2 are lost", acts.lose(20), 0, "rank 3 trained",
         survives=True, bound="any"),
    done("end_sshd", "sshd of node 2 ends", acts.end_sshd, 0, "rank 3 trained", survives=True,
         bound="any"),
]  # fmt: skip
NETWORK = [*map(over_ssh, _BETWEEN)]
"""What is between two hosts."""

_NO_NAME = "no.such.host.example"
_START_HERE = [
    begins("port_taken", "the port is taken", settings.with_a_taken_port, 3,
           "master-port .* in use", layouts=HERE),
    begins("node_2_never_comes", "node 2 never comes", settings.by_hand(0, "127.0.0.1"), 4,
           "the other node, 1, did not come", layouts=(TWO,)),
    begins("wrong_address", "node 2 has a wrong address of node 1",
           settings.by_hand(1, "198.18.0.77"), 4, r"node0 was not to be reached at 198\.18\.0\.77",
           layouts=(TWO,)),
    begins("unknown_name", "node 2 has a name of node 1 that does not resolve",
           settings.by_hand(1, _NO_NAME), 3, f"{_NO_NAME}.* did not resolve", layouts=(TWO,)),
]  # fmt: skip
_START_OF_HOSTS = [
    begins("node_2_off", "node 2 is switched off", settings.with_the_second_host_off, 4, "",
           who="node"),
    begins("agent_never_speaks", "node 2 never comes: its agent does not speak",
           settings.with_an_agent_that_never_speaks, 4, "did not join", who="node"),
    begins("wrong_host_address", "an address that no host has",
           settings.with_second_host("no-route"), 4, "no-route: not reached"),
    begins("unknown_host", "a host's name does not resolve", settings.with_second_host(_NO_NAME),
           4, f"{_NO_NAME}: not reached"),
    begins("no_sshd", "nothing listens on port 22 of a host",
           settings.with_second_host("refused"), 4, "Connection refused"),
    begins("name_on_loopback", "each host's own name is 127.0.0.1 there",
           settings.with_names_on_loopback, 0, "rank 3 trained", survives=True, bound="any"),
]  # fmt: skip
START = [*_START_HERE, *map(over_ssh, _START_OF_HOSTS)]
"""What is wrong from the start."""

CASES = [*ENDS, *HANGS, *OUTPUT, *SIGNALS, *OURS, *NETWORK, *START]
