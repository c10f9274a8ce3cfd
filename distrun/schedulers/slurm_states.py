"""What Slurm's job states and pending reasons mean for a run: tables of data.

Sources: squeue(1) of Slurm 22.05 to 25.05, "JOB STATE CODES" and "JOB REASON CODES".
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from distrun.errors import ExitCode

_BY_SIGKILL = 128 + 9


@dataclass(frozen=True)
class State:
    """A job state, as a run's record and exit code need it."""

    is_over: bool
    """The job has ended and will not start again by itself."""
    outcome: str = ""
    """As in run.json; "": it is not over."""
    exit_code: int | None = None
    """Of DESIGN's table; None: the job's own."""
    meaning: str = ""
    """A sentence for the user."""


def _going_on(meaning: str) -> State:
    return State(False, meaning=meaning)


def _over(outcome: str, exit_code: int | None, meaning: str) -> State:
    return State(True, outcome, exit_code, meaning)


_LOST, _LATE, _STOPPED = ExitCode.NODE_LOST, ExitCode.TIME_LIMIT, ExitCode.TERMINATED

STATES = {
    "PENDING": _going_on("it waits for nodes"),
    "CONFIGURING": _going_on("its nodes are being prepared"),
    "RUNNING": _going_on("it runs"),
    "COMPLETING": _going_on("it ends: some of its processes are still alive"),
    "SUSPENDED": _going_on("it is suspended; its cores are given to other jobs"),
    "STOPPED": _going_on("it is stopped with SIGSTOP; it keeps its nodes"),
    "RESIZING": _going_on("its number of nodes is being changed"),
    "SIGNALING": _going_on("it is being signalled"),
    "STAGE_OUT": _going_on("its files are being copied out of a burst buffer"),
    "REQUEUED": _going_on("it is put back in the queue"),
    "REQUEUE_FED": _going_on("it is put back in the queue of a federation"),
    "REQUEUE_HOLD": _going_on("it is put back in the queue, and held"),
    "SPECIAL_EXIT": _going_on("it is put back in the queue, and held, because of its exit code"),
    "RESV_DEL_HOLD": _going_on("it is held: its reservation was deleted"),
    "POWER_UP_NODE": _going_on("its nodes are being switched on"),
    "UPDATE_DB": _going_on("it has ended; the accounting database is being told"),
    "COMPLETED": _over("succeeded", ExitCode.OK, "it ended with 0"),
    "FAILED": _over("failed", None, "it failed"),
    "LAUNCH_FAILED": _over("not started", ExitCode.MACHINE, "Slurm could not start it"),
    "RECONFIG_FAIL": _over("not started", ExitCode.MACHINE, "its nodes could not be configured"),
    "BOOT_FAIL": _over("nodes missing", ExitCode.JOIN_TIMEOUT, "one of its nodes did not boot"),
    "NODE_FAIL": _over("node lost", _LOST, "one of its nodes was lost"),
    "OUT_OF_MEMORY": _over(
        "out of memory", _BY_SIGKILL, "one of its processes was killed: out of memory"
    ),
    "TIMEOUT": _over("time limit", _LATE, "Slurm stopped it at its time limit"),
    "DEADLINE": _over("time limit", _LATE, "Slurm stopped it at its deadline"),
    "PREEMPTED": _over("preempted", _STOPPED, "Slurm stopped it in favour of another job"),
    "CANCELLED": _over("cancelled", _STOPPED, "it was cancelled"),
    "REVOKED": _over("cancelled", _STOPPED, "another cluster of the federation has started it"),
}
"""State -> what it means."""


def state_of(name: str) -> State:
    """Return what a state means; one that is not in the table is not over.

    Args:
        name: As Slurm's commands print it: `RUNNING`, `CANCELLED by 1000`, `OUT_OF_ME+`.
    """
    word = name.strip().partition(" ")[0].upper()
    if word.endswith("+"):  # sacct has cut it off
        whole = [known for known in STATES if known.startswith(word[:-1])]
        word = whole[0] if len(whole) == 1 else word
    return STATES.get(word) or _going_on(f"Slurm says {name.strip()}")


def ending_of(name: str, exit_code: int) -> tuple[str, int] | None:
    """Return the outcome and the exit code of a job; None: it is not over.

    Args:
        name: Its state, as Slurm prints it.
        exit_code: Its own; 128+n after signal n.
    """
    state = state_of(name)
    if not state.is_over:
        return None
    if state.exit_code is None:  # Slurm calls a job failed that a signal has ended before its code
        return state.outcome, exit_code or 1
    return state.outcome, int(state.exit_code)


@dataclass(frozen=True)
class Why:
    """Why a job waits."""

    sentence: str
    cure: str = ""
    """A command or a setting; "": waiting is all that helps, or the reason is unknown."""


_SINFO = "`sinfo -o '%P %a %l %D %t'` lists partitions, their limits and their nodes"
_MINE = "`squeue --me` lists your jobs; this one starts when others have ended"
_LIMITS = "`sacctmgr show assoc user=$USER` shows the limits"
_QOS_LIMITS = "`sacctmgr show qos` shows the limits; --qos names another one"
_RELEASE = "`scontrol release {job}` releases it"
_SMALLER = "cancel it with `scancel {job}`, and ask for less: --nodes, --time"
_STORE = "`scontrol show burstbuffer` shows what is free"

REASONS = {
    "None": Why("Slurm has not looked at it yet"),
    "WaitingForScheduling": Why("Slurm has not looked at it yet"),
    "SchedDefer": Why("Slurm starts jobs in rounds; the next one looks at it"),
    "Resources": Why(
        "it waits for enough free nodes", "fewer --nodes or a shorter --time may start sooner"
    ),
    "Priority": Why(
        "jobs with a higher priority come first", "`sprio -j {job}` shows its priority"
    ),
    "Dependency": Why(
        "it waits for another job to end", "`scontrol show job {job}` names it at Dependency"
    ),
    "DependencyNeverSatisfied": Why(
        "it waits for an end of another job that cannot come any more",
        "cancel it with `scancel {job}`, and submit it without the dependency",
    ),
    "BeginTime": Why(
        "its begin time is not reached; after a requeue Slurm waits about two minutes",
        "`scontrol update jobid={job} starttime=now` starts it sooner",
    ),
    "JobHeldUser": Why("it is held by its user", _RELEASE),
    "JobHeldAdmin": Why("it is held by an administrator", "ask the administrators of the cluster"),
    "JobHoldMaxRequeue": Why("it was put back in the queue too often, and is held", _RELEASE),
    "launch_failed_requeued_held": Why("it could not be started, and is held", _RELEASE),
    "job_requeued_in_held_state": Why("it was put back in the queue, and is held", _RELEASE),
    "user_env_retrieval_failed_requeued_held": Why(
        "the login environment could not be read on its node; it is held", _RELEASE
    ),
    "ReqNodeNotAvail": Why(
        "a node that it needs is down, drained or reserved",
        "`sinfo -R` says why; leave --sbatch nodelist=… out",
    ),
    "Nodes_required_for_job_are_DOWN": Why(
        "nodes that it needs are down, drained or kept for jobs of a higher priority",
        "`sinfo -R` says why; ask for fewer --nodes or another --partition",
    ),
    "NodeDown": Why("a node that it needs is down", "`sinfo -R` says why"),
    "FrontEndDown": Why("no front end node is available", "ask the administrators of the cluster"),
    "PartitionDown": Why("its partition starts no jobs at present", f"--partition; {_SINFO}"),
    "PartitionInactive": Why("its partition is inactive", f"--partition; {_SINFO}"),
    "PartitionNodeLimit": Why(
        "it asks for more nodes than its partition has or allows", f"fewer --nodes; {_SINFO}"
    ),
    "PartitionTimeLimit": Why(
        "its time limit is above that of its partition", f"a shorter --time; {_SINFO}"
    ),
    "PartitionConfig": Why(
        "its partition has no nodes as it asks for", f"--partition or fewer resources; {_SINFO}"
    ),
    "BadConstraints": Why(
        "no nodes have what it asks for", "`sinfo -o '%N %f %G'` lists the nodes' features and GPUs"
    ),
    "AccountNotAllowed": Why("its account may not use the partition", f"--account; {_LIMITS}"),
    "InvalidAccount": Why("its account is unknown", f"--account names yours; {_LIMITS}"),
    "InvalidQOS": Why("its QOS is unknown or not allowed", _QOS_LIMITS),
    "QOSNotAllowed": Why("its QOS may not use the partition or the account", _QOS_LIMITS),
    "QOSJobLimit": Why("its QOS has as many jobs as it allows", _MINE),
    "QOSResourceLimit": Why("its QOS has reached a limit of resources", _QOS_LIMITS),
    "QOSTimeLimit": Why("its QOS has reached its limit of time", _QOS_LIMITS),
    "QOSUsageThreshold": Why("the use of its QOS is too high", _QOS_LIMITS),
    "AssociationJobLimit": Why("your account has as many jobs as it allows", _MINE),
    "AssociationResourceLimit": Why("your account has reached a limit of resources", _LIMITS),
    "AssociationTimeLimit": Why("your account has reached its limit of time", _LIMITS),
    "AssocMaxJobsLimit": Why("you have as many running jobs as your account allows", _MINE),
    "JobArrayTaskLimit": Why("its array runs as many tasks as it allows at once"),
    "MaxMemPerLimit": Why(
        "it asks for more memory a node or core than allowed", "--sbatch mem=… asks for less"
    ),
    "Licenses": Why("it waits for a licence", "`scontrol show licenses` lists those in use"),
    "Reservation": Why(
        "its reservation has not begun", "`scontrol show reservation` lists the reservations"
    ),
    "ReservationDeleted": Why(
        "its reservation was deleted", "`scancel {job}`, and submit it without reservation"
    ),
    "ReservationMaintenance": Why(
        "a maintenance would begin before its time limit",
        "a --time that ends before it; `scontrol show reservation` says when it begins",
    ),
    "Cleaning": Why("its last attempt is still being cleaned up"),
    "Prolog": Why("the cluster's prolog prepares its nodes"),
    "BurstBufferOperation": Why("the burst buffer failed for it", _STORE),
    "BurstBufferResources": Why("it waits for room in the burst buffer", _STORE),
    "BurstBufferStageIn": Why("its files are being copied into the burst buffer"),
    "PowerNotAvail": Why("the cluster has not enough power left for it"),
    "PowerReserved": Why("power is kept for another reservation"),
    "DeadLine": Why("it cannot end before its deadline", "a shorter --time"),
    "SystemFailure": Why(
        "a part of the cluster has failed", "ask the administrators of the cluster"
    ),
    "InactiveLimit": Why("it was idle for too long", "submit it again"),
    "FedJobLock": Why("the clusters of a federation agree which of them starts it"),
}
"""Reason of a pending job -> what it means."""

_PATTERNS = (
    (r"QOSMax\w*Jobs?PerUser\w*", Why("you have as many jobs as the QOS allows at once", _MINE)),
    (r"QOSMax\w*PerUser\w*", Why("your jobs use as much as the QOS allows a user", _MINE)),
    (r"QOSMax\w*PerAccount\w*", Why("your account's jobs use as much as the QOS allows", _MINE)),
    (r"QOSMaxWall\w*", Why("its time limit is above that of the QOS", f"--time; {_QOS_LIMITS}")),
    (r"QOSMax\w*", Why("it asks for more than the QOS allows a job", f"{_SMALLER}; or --qos")),
    (r"QOSMin\w*", Why("it asks for less than the QOS wants of a job", _QOS_LIMITS)),
    (r"QOSGrp\w*", Why("all jobs of the QOS together use as much as it allows", _QOS_LIMITS)),
    (r"AssocGrp\w*", Why("all jobs of the account use as much as it allows", _LIMITS)),
    (
        r"AssocMaxWall\w*",
        Why("its time limit is above that of your account", f"a shorter --time; {_LIMITS}"),
    ),
    (r"AssocMax\w*", Why("it asks for more than your account allows a job", _SMALLER)),
    (r"MaxBB\w*", Why("your jobs use as much of the burst buffer as you may", _STORE)),
)
"""Families of reasons, for names that the table lacks; the first that fits."""


def explain(reason: str, job_id: str) -> Why:
    """Return what a pending reason means; an unknown one is shown as it is.

    Args:
        reason: As Slurm's commands print it, details after a comma included.
        job_id: Is named in the cure.
    """
    name, _, details = reason.strip().replace(" ", "_").partition(",")
    found = REASONS.get(name) or next(
        (why for pattern, why in _PATTERNS if re.fullmatch(pattern, name)), Why(reason.strip())
    )
    sentence = found.sentence
    if nodes := re.fullmatch(r"_?UnavailableNodes:(\S+)", details):
        sentence += f": {nodes[1]}"
    return Why(sentence, found.cure.replace("{job}", job_id))
