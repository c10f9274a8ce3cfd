"""How a run ended, in the words and the exit code that the user gets."""

from __future__ import annotations

import signal
from dataclasses import dataclass

from distrun.diagnose.verdict import Verdict, judge
from distrun.errors import ExitCode
from distrun.runs.directory import RunDirectory
from distrun.supervise.world import World

_BY_SIGNAL = {
    signal.SIGINT: ("interrupted", ExitCode.INTERRUPTED),
    signal.SIGTERM: ("terminated", ExitCode.TERMINATED),
    signal.SIGHUP: ("hung up", ExitCode.HUNG_UP),
}


@dataclass(frozen=True)
class Ending:
    """What the last event of a run says."""

    outcome: str
    exit_code: int
    summary: str
    hint: str = ""
    verdict: Verdict | None = None


def describe(
    world: World,
    run: RunDirectory,
    *,
    signal_taken: int | None,
    client_lost: bool,
    time_is_up: bool,
) -> Ending:
    """Return the ending of the last world of a run."""
    if signal_taken is not None:
        outcome, code = _BY_SIGNAL[signal.Signals(signal_taken)]
        return Ending(
            outcome,
            code,
            f"stopped by {signal.Signals(signal_taken).name}" + _how_ranks_took_it(world),
        )
    if client_lost:
        return Ending(
            "terminated", ExitCode.TERMINATED, "stopped: the command that had started it was killed"
        )
    if time_is_up:
        return Ending(
            "time limit",
            ExitCode.TIME_LIMIT,
            f"stopped at the time limit of {world.plan.time_limit_s:g} s"
            + _how_ranks_took_it(world),
            _where_ranks_were(world, run),
        )
    if world.succeeded:
        return Ending("succeeded", ExitCode.OK, "every rank ended with 0")
    if world.missing:
        names = ", ".join(f"{a.host} ({a.stage})" for a in world.missing)
        return Ending(
            "nodes missing",
            ExitCode.JOIN_TIMEOUT,
            f"{len(world.missing)} of {len(world.agents)} nodes did not join within"
            f" {world.plan.join_timeout_s:g} s: {names}",
            "--join-timeout gives them longer; logs/node*/agent.log has their words",
        )
    verdict = judge(world.ends)
    if verdict is not None and not _lost_came_first(world):
        return Ending(
            "failed",
            verdict.exit_code,
            f"rank {verdict.rank} on {verdict.host} failed first: {verdict.cause}",
            verdict=verdict,
        )
    if world.lost:
        names = ", ".join(agent.host for agent in world.lost)
        return Ending(
            "node lost",
            ExitCode.NODE_LOST,
            f"the agent of {names} went away without a word while the run was going",
            "killed from outside, or out of memory? --max-restarts starts it again",
            verdict,
        )
    if world.port_was_taken:
        return Ending(
            "port taken",
            ExitCode.MACHINE,
            f"--master-port {world.plan.master_port} was taken by another process",
            "leave --master-port out, and a free one is taken",
        )
    if world.engine_errors:
        agent, kind, message = world.engine_errors[0]
        return Ending(
            "node lost",
            ExitCode.NODE_LOST,
            f"the agent of {agent.host} could not go on: {kind}: {message}",
            f"see logs/node{agent.index}/agent.log in the run directory",
        )
    return Ending(
        "failed",
        ExitCode.INTERNAL,
        "the run ended without a reason",
        "this is a fault of distrun: please report it with events.jsonl",
    )


def _lost_came_first(world: World) -> bool:
    """A rank that only ended after, or because of, a lost node is not the first failure."""
    return bool(world.lost) and not any(e.failed and not e.is_victim for e in world.ends)


def _how_ranks_took_it(world: World) -> str:
    if not world.started:
        return " before the ranks had started"
    codes = [end.exit_code for end in world.ends]
    if codes and not any(codes) and len(codes) == world.plan.world_size:
        return "; every rank saved what it had to and ended with 0 by itself"
    killed = sum(code == -signal.SIGKILL for code in codes)
    if killed:
        return f"; {killed} of {len(codes)} ranks had to be killed after the grace"
    return ""


def _where_ranks_were(world: World, run: RunDirectory) -> str:
    if not world.stacks:
        return ""
    return f"where the {len(world.stacks)} ranks were then is in {run.path.name}/stacks/"
