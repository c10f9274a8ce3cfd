"""How a run ended: the sentence, the hint and the exit code that the user gets."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Any, Literal

from distrun.diagnose.hang.findings import HangVerdict
from distrun.diagnose.places import grouped, place_of
from distrun.diagnose.verdict import Verdict, judge
from distrun.errors import ExitCode
from distrun.plan.model import LaunchPlan
from distrun.signals import code_of
from distrun.supervise.agents import Agent
from distrun.supervise.world import World
from distrun.wire import WAITING_FOR_NODES as WAITING

_OUTCOMES = {
    signal.SIGINT: "interrupted",
    signal.SIGHUP: "hung up",
    signal.SIGQUIT: "quit",
}
_START_COLD = (
    "torch was imported before the script: --start-method spawn starts the ranks as python does"
)


_PEER_LOST = "PeerLost"  # of agent/peers.py, which imports torch


@dataclass(frozen=True)
class Ending:
    """What the last event of a run says."""

    outcome: str
    exit_code: int
    summary: str
    hint: str = ""
    where: str = ""
    """Where the ranks were that lived when the run was stopped."""
    verdict: Verdict | None = None
    hang: HangVerdict | None = None
    """Who waited for whom when the run was stopped, if it hung."""

    def verdict_json(self) -> dict[str, Any] | None:
        """Return what failed first, and under `hang` who waited for whom, as plain JSON."""
        failed = self.verdict.to_json() if self.verdict else {}
        return {**failed, "hang": self.hang.to_json()} if self.hang else failed or None


@dataclass(frozen=True)
class Stop:
    """What ended the run before its ranks did."""

    kind: Literal["signal", "client lost", "time limit"]
    signum: int | None = None
    why: str = ""
    """Why the signal was sent, if that is known."""
    after_loss: bool = False
    """A node had been lost before: whoever starts the nodes may stop all when one has ended."""


def describe(world: World, stop: Stop | None) -> Ending:
    """Return the ending of the last world of a run; the first cause counts."""
    asked = stop is None or stop.kind == "signal"
    if asked and world.steps.preempted is not None and not world.has_failed:
        return _preempted(world, world.steps.preempted, stop)
    if world.succeeded and (world.clean or stop is None):
        return Ending("succeeded", ExitCode.OK, "every rank ended with 0")
    if hang := world.hangs.stopping:
        summary = hang.sentence.removeprefix("hang: ")
        return Ending("hang", ExitCode.TIME_LIMIT, summary, _after_hang(world), hang=hang)
    verdict = judge(world.ends)
    if not any(end.failed and not end.after_stop for end in world.ends):
        if stop and not stop.after_loss:
            return _stopped(world, stop)
        if ending := _never_began(world):
            return ending
    if ending := _lost_elsewhere(world, verdict):
        return ending
    if verdict is not None and not lost_came_first(world):
        return _failed(world, verdict)
    return _node_lost(world, verdict)


def _preempted(world: World, step: int, stop: Stop | None) -> Ending:
    """Return the ending of ranks that have left together because they were asked to."""
    signum = signal.Signals(stop.signum) if stop and stop.signum is not None else signal.SIGTERM
    saved = world.steps.saved
    done = f"saved at step {saved}" if saved is not None else f"all ranks left after step {step}"
    why = (stop.why or signum.name) if stop else world.asked_by or "a signal to a rank"
    hint = f"distrun launch --resume {_run_id(world)} goes on from there"
    return Ending(
        "preempted" if signum == signal.SIGTERM else _OUTCOMES.get(signum, "preempted"),
        code_of(signum),
        f"preempted by {why}, {done}",
        hint if saved is not None else "",
    )


def _failed(world: World, verdict: Verdict) -> Ending:
    gave_up = any(end.rank == verdict.rank and end.timed_out for end in world.ends)
    hang = world.hangs.at_stop(world.agents, world.ends, gave_up=gave_up)
    mismatch = world.hangs.at_abort(world.agents, world.ends)
    first = f"rank {verdict.rank} on {verdict.host}"
    summary = f"{first} failed first: {verdict.cause}"
    if verdict.early:
        summary = f"{verdict.note}; then {first} failed: {verdict.cause}"
    if hang and gave_up:
        summary = f"{hang.sentence.removeprefix('hang: ')}; then {first} gave up: {verdict.cause}"
    if mismatch:
        summary = f"{mismatch.sentence}; then gloo aborted {first}"
    start_cold = _START_COLD if world.plan.warm and verdict.in_import else ""
    hint = "\n".join(filter(None, (verdict.cure, start_cold)))
    if hang and not (gave_up or mismatch or start_cold):
        hint = "\n".join(filter(None, (hint, hang.sentence)))
    where = "" if start_cold or mismatch else _where_ranks_were(world)
    return Ending("failed", verdict.exit_code, summary, hint, where, verdict, mismatch or hang)


def _stopped(world: World, stop: Stop) -> Ending:
    if stop.kind == "client lost":
        summary = "stopped: the command that started it was killed"
        return Ending("terminated", ExitCode.TERMINATED, summary)
    if stop.signum is not None:
        signum = signal.Signals(stop.signum)
        summary = f"stopped by {stop.why or signum.name}{_how_ranks_took_it(world)}"
        outcome = _OUTCOMES.get(signum, "terminated")
        hang = world.hangs.at_stop(world.agents, world.ends)
        hint, where = _what_helps(world, hang), _where_ranks_were(world)
        return Ending(outcome, code_of(signum), summary, hint, where, hang=hang)
    limit = f"{world.plan.time_limit_s:g} s"
    hang = world.hangs.at_stop(world.agents, world.ends)
    return Ending(
        "time limit",
        ExitCode.TIME_LIMIT,
        f"stopped at the time limit of {limit}{_how_ranks_took_it(world)}",
        _what_helps(world, hang),
        _where_ranks_were(world),
        hang=hang,
    )


def _never_began(world: World) -> Ending | None:
    if world.start_error:
        hint = _of_a_start(world.start_error)
        return Ending("not started", ExitCode.MACHINE, world.start_error, hint)
    if world.missing:
        names = ", ".join(f"{a.host} ({a.stage})" for a in world.missing)
        return Ending(
            "nodes missing",
            ExitCode.JOIN_TIMEOUT,
            f"{len(world.missing)} of {len(world.agents)} nodes did not join within"
            f" {world.plan.join_timeout_s:g} s: {names}",
            "--join-timeout gives them more time; logs/node*/agent.log has their output",
        )
    if world.unstarted and (ending := _others_missing(world)):
        return ending
    if world.unstarted:
        names = ", ".join(f"{a.host} ({a.stage})" for a in world.unstarted)
        return Ending(
            "ranks not started",
            ExitCode.JOIN_TIMEOUT,
            f"the nodes had joined, but not all ranks started within"
            f" {world.plan.join_timeout_s:g} s: {names}",
            "--join-timeout gives them more time; logs/node*/agent.log has their output",
        )
    if world.port_was_taken:
        return Ending(
            "port taken",
            ExitCode.MACHINE,
            f"{_port_of(world.plan)} was taken by another process",
            _another_port(world.plan),
        )
    return None


def _of_a_start(error: str) -> str:
    """Return what helps if an agent, or a rank, cannot be started."""
    if "Argument list too long" in error:
        return "a variable or an argument is longer than the system allows (128 KiB on Linux)"
    if error.startswith("the agent cannot"):  # it has left no log
        is_of_workdir = error.endswith(("No such file or directory", "Not a directory", "denied"))
        hint = "--workdir names a directory there; --sync makes it, and sends the project"
        return hint if is_of_workdir else ""
    return "see logs/node*/agent.log in the run directory"


def _port_of(plan: LaunchPlan) -> str:
    return f"{'--master-port' if plan.master_port_is_users else 'port'} {plan.master_port}"


def _another_port(plan: LaunchPlan) -> str:
    if plan.own_node is not None:
        return "--master-port names another one, the same on every node"
    if plan.master_port_is_users:
        return "leave --master-port out: then a free port is used"
    return "--master-port names one that nobody takes; several free ones were tried"


def _others_missing(world: World) -> Ending | None:
    """Return the ending of a node that has waited in vain for nodes that others start."""
    plan, (agent, *_) = world.plan, world.unstarted
    if plan.own_node is None or agent.stage != WAITING:
        return None
    head = f"{plan.nodes[0].address} port {plan.master_port}"
    if plan.own_node == 0:
        who = f"not all of the other nodes, 1 to {plan.nnodes - 1}, came to {head}"
        if plan.nnodes == 2:
            who = f"the other node, 1, did not come to {head}"
    else:
        who = f"node0 was not to be reached at {head}, or not all of the other nodes came there"
    return Ending(
        "nodes missing",
        ExitCode.JOIN_TIMEOUT,
        f"{who} within {plan.join_timeout_s:g} s",
        "were they started, with the same command? --join-timeout gives them more time",
    )


def _lost_elsewhere(world: World, verdict: Verdict | None) -> Ending | None:
    """Return the ending of a node whose ranks have only lost peers on nodes not seen from here."""
    own_failure = any(end.failed and not end.is_victim for end in world.ends)
    if world.plan.own_node is None or world.lost or own_failure:
        return None
    told = [message for _, kind, message in world.engine_errors if kind == _PEER_LOST]
    if told:
        summary = told[0]
    elif verdict is not None and not world.engine_errors:
        rank = f"rank {verdict.rank} on {verdict.host}"
        summary = f"another node has failed: {rank} lost a peer: {verdict.cause}"
    else:
        return None
    hint = "the cause is on another node: its own output and its own record have it"
    return Ending("node lost", ExitCode.NODE_LOST, summary, hint, verdict=verdict)


def _node_lost(world: World, verdict: Verdict | None) -> Ending:
    if world.engine_errors:
        agent, kind, message = world.engine_errors[0]
        summary = f"the agent of {agent.host} failed: {kind}: {message}"
        hint = f"see logs/node{agent.index}/agent.log in the run directory"
        return Ending("node lost", ExitCode.NODE_LOST, summary, hint, verdict=verdict)
    if world.lost:
        agent = world.lost[0]
        others = [a.host for a in world.lost[1:]]
        what = "connection to" if agent.elsewhere else "agent of"
        why = agent.why_lost or f"the {what} {agent.host} ended unexpectedly{_last_line(agent)}"
        summary = f"{why}; lost too: {', '.join(others)}" if others else why
        lost = "was it killed, or the node out of memory?"
        if agent.elsewhere and agent.was_silent:
            lost = "is the node switched off, or its network cut?"
        elif agent.elsewhere and not agent.why_lost:
            lost = "was the connection cut, its container killed, or the node switched off?"
        # Ranks of other nodes were only stopped: what they printed tells nothing of this.
        told = verdict if verdict and verdict.node in {a.index for a in world.lost} else None
        hint = f"{lost} --max-restarts restarts the run"
        return Ending("node lost", ExitCode.NODE_LOST, summary, hint, verdict=told)
    hint = "this is a fault of distrun: please report it with events.jsonl"
    return Ending("failed", ExitCode.INTERNAL, "the run ended without a reason", hint)


def _last_line(agent: Agent) -> str:
    said = agent.talk.last_lines
    return f"; the last line it wrote: {said[-1]}" if said else " and wrote nothing"


def lost_came_first(world: World) -> bool:
    """Return whether a node or agent was lost, and ranks failed only because of that."""
    lost = world.lost or world.engine_errors
    return bool(lost) and not any(e.failed and not e.is_victim for e in world.ends)


def _how_ranks_took_it(world: World) -> str:
    if not world.started:
        return " before the ranks had started"
    codes = [end.exit_code for end in world.ends]
    known = all(end.code_known for end in world.ends)
    if codes and known and not any(codes) and len(codes) == world.plan.supervised_ranks:
        return "; every rank ended with 0 by itself"
    killed = sum(code == -signal.SIGKILL for code in codes)
    if killed:
        return f"; {killed} of {len(codes)} rank{'s' * (len(codes) != 1)} had to be killed"
    return ""


def _run_id(world: World) -> str:
    return world.plan.run_id.partition(".")[0]


def _after_hang(world: World) -> str:
    what = "the last collectives of each rank and their stacks"
    return f"distrun diagnose {_run_id(world)} prints {what}"


def _where_ranks_were(world: World) -> str:
    """Return where the ranks were that lived when the run was stopped, and ran Python code."""
    places = {rank: place_of(a.stacks) for rank, a in world.where.at_stop.items() if a.stacks}
    return grouped(places) if any(places.values()) else ""


def _what_helps(world: World, hang: HangVerdict | None) -> str:
    """Return who waited for whom, and how to go on, for a run that was stopped."""
    saved = world.steps.saved
    again = f"distrun launch --resume {_run_id(world)}"
    goes_on = "" if saved is None else f"saved at step {saved}: {again} goes on from there"
    return "\n".join(filter(None, (hang.sentence if hang else "", goes_on)))
