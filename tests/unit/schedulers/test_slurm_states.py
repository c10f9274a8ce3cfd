"""What a job state means for a run, and why a job waits."""

from __future__ import annotations

import re

import pytest

from distrun.errors import ExitCode
from distrun.schedulers.slurm_states import REASONS, STATES, ending_of, explain, state_of

OF_THE_MANUAL = [
    *("BOOT_FAIL", "CANCELLED", "COMPLETED", "CONFIGURING", "COMPLETING"),
    *("DEADLINE", "FAILED", "NODE_FAIL", "OUT_OF_MEMORY", "PENDING"),
    *("PREEMPTED", "RUNNING", "RESV_DEL_HOLD", "REQUEUE_FED", "REQUEUE_HOLD"),
    *("REQUEUED", "RESIZING", "REVOKED", "SIGNALING", "SPECIAL_EXIT"),
    *("STAGE_OUT", "STOPPED", "SUSPENDED", "TIMEOUT", "LAUNCH_FAILED"),
    *("RECONFIG_FAIL", "POWER_UP_NODE", "UPDATE_DB"),
]


def test_every_state_of_the_manual_is_known() -> None:
    assert set(STATES) == set(OF_THE_MANUAL)


@pytest.mark.parametrize("name", STATES)
def test_a_state_says_what_it_means_and_has_an_ending_only_if_it_is_over(name: str) -> None:
    state = STATES[name]
    assert state.meaning and bool(state.outcome) == state.is_over
    assert (ending_of(name, 0) is not None) == state.is_over


@pytest.mark.parametrize(
    ("name", "own_code", "ending"),
    [
        ("COMPLETED", 0, ("succeeded", ExitCode.OK)),
        ("FAILED", 7, ("failed", 7)),
        ("FAILED", 143, ("failed", 143)),
        ("FAILED", 0, ("failed", 1)),
        ("TIMEOUT", 137, ("time limit", ExitCode.TIME_LIMIT)),
        ("TIMEOUT", 0, ("time limit", ExitCode.TIME_LIMIT)),
        ("DEADLINE", 0, ("time limit", ExitCode.TIME_LIMIT)),
        ("NODE_FAIL", 137, ("node lost", ExitCode.NODE_LOST)),
        ("BOOT_FAIL", 0, ("nodes missing", ExitCode.JOIN_TIMEOUT)),
        ("LAUNCH_FAILED", 0, ("not started", ExitCode.MACHINE)),
        ("OUT_OF_MEMORY", 1, ("out of memory", 137)),
        ("PREEMPTED", 137, ("preempted", ExitCode.TERMINATED)),
        ("CANCELLED", 137, ("cancelled", ExitCode.TERMINATED)),
        ("CANCELLED by 1000", 0, ("cancelled", ExitCode.TERMINATED)),
        ("CANCELLED+", 0, ("cancelled", ExitCode.TERMINATED)),
        ("OUT_OF_ME+", 0, ("out of memory", 137)),
        ("PENDING", 0, None),
        ("COMPLETING", 9, None),
        ("REQUEUED", 9, None),
        ("STATE_OF_2031", 9, None),
        ("COMP+", 0, None),  # completed or completing
    ],
)
def test_the_ending_of_a_job(name: str, own_code: int, ending: tuple[str, int] | None) -> None:
    assert ending_of(name, own_code) == ending


def test_an_unknown_state_is_shown_as_it_is() -> None:
    assert state_of("STATE_OF_2031").meaning == "Slurm says STATE_OF_2031"


def test_a_reason_is_one_plain_sentence_with_a_cure_that_names_the_job() -> None:
    assert len(REASONS) >= 25
    for name in REASONS:
        why = explain(name, "123")
        assert why.sentence and not why.sentence.endswith("."), name
        assert "{" not in why.cure and "\n" not in why.sentence + why.cure, name
    assert sum(bool(why.cure) for why in REASONS.values()) >= 25


@pytest.mark.parametrize(
    ("reason", "sentence", "cure"),
    [
        ("Resources", "it waits for enough free nodes", "fewer --nodes"),
        ("Priority", "jobs with a higher priority come first", "`sprio -j 42`"),
        ("JobHeldUser", "it is held by its user", "`scontrol release 42`"),
        ("PartitionTimeLimit", "its time limit is above that of its partition", "--time"),
        ("BadConstraints", "no nodes have what it asks for", "sinfo"),
        ("QOSMaxJobsPerUserLimit", "as many jobs as the QOS allows", "squeue --me"),
        ("QOSMaxGRESPerUser", "as much as the QOS allows a user", "squeue --me"),
        ("QOSMaxWallDurationPerJobLimit", "its time limit is above that of the QOS", "--time"),
        ("QOSMaxCpuPerJobLimit", "more than the QOS allows a job", "scancel 42"),
        ("QOSMinGRES", "less than the QOS wants", "qos"),
        ("QOSGrpNodeLimit", "all jobs of the QOS together", "qos"),
        ("AssocGrpGRES", "all jobs of the account", "assoc"),
        ("AssocGrpCPUMinutesLimit", "all jobs of the account", "assoc"),
        ("AssocMaxWallDurationPerJobLimit", "above that of your account", "--time"),
        ("AssocMaxNodePerJobLimit", "more than your account allows", "scancel 42"),
        ("ReqNodeNotAvail,_UnavailableNodes:n2", "is down, drained or reserved: n2", "sinfo -R"),
        ("ReqNodeNotAvail, UnavailableNodes:n[2-9]", "or reserved: n[2-9]", "sinfo -R"),
        ("ReqNodeNotAvail,_May_be_reserved_for_other_job", "or reserved", "sinfo -R"),
        (
            "Nodes_required_for_job_are_DOWN,_DRAINED_or_reserved_for_jobs_in_higher_priority_"
            "partitions",
            "nodes that it needs are down",
            "sinfo -R",
        ),
        ("launch failed requeued held", "it could not be started, and is held", "release 42"),
        ("launch_failed_requeued_held", "it could not be started, and is held", "release 42"),
    ],
)
def test_a_pending_reason_is_explained(reason: str, sentence: str, cure: str) -> None:
    why = explain(reason, "42")
    assert sentence in why.sentence and cure in why.cure


@pytest.mark.parametrize("reason", ["PurpleLimit", "Not a reason, at all", "QOS", ""])
def test_an_unknown_reason_is_shown_as_it_is(reason: str) -> None:
    why = explain(reason, "42")
    assert (why.sentence, why.cure) == (reason, "")


def test_a_cure_names_only_commands_of_slurm_and_options_of_distrun() -> None:
    commands = {"sinfo", "squeue", "sprio", "scontrol", "scancel", "sacctmgr"}
    for name, why in REASONS.items():
        named = {words.split()[0] for words in re.findall("`([^`]+)`", why.cure)}
        assert named <= commands, name
