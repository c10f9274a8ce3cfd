"""Decides what follows an attempt: another one, on which nodes, or the end of the run."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from distrun import failures
from distrun.diagnose.failures import Failure, of_rank, repeated
from distrun.diagnose.verdict import RankEnd, judge
from distrun.plan.model import LaunchPlan, NodePlan
from distrun.supervise.ending import describe, lost_came_first
from distrun.supervise.world import World

_MAX_PORT_TRIES = 5
_MOST_WITHOUT_PROGRESS = 3


class Recovery:
    """The attempts of one run, and what may still be done.

    Args:
        before: Attempts of earlier launches of this run.
        tell: Sends an event to all who listen.
    """

    def __init__(self, before: int, tell: Callable[..., None]) -> None:
        self.attempt = before
        """The number of the attempt, for ids."""
        self.restarts = before
        """How many attempts were ended by a failure: not those that only lost a port."""
        self.out: set[int] = set()
        """Nodes that were suspected, and get no ranks any more."""
        self._tell = tell
        self._used = self._without_progress = self._port_tries = 0
        self._restarted = False
        self._furthest = -1
        self._ends: list[list[RankEnd]] = []
        self._failures: list[Failure] = []
        self._stepless: list[bool] = []

    def next_plan(self, world: World, standing: Sequence[NodePlan]) -> LaunchPlan | None:
        """Return the plan of the next attempt; None: the run ends.

        Args:
            world: The attempt that has ended, neither well nor because somebody ended the run.
            standing: Nodes that stand by, ready.
        """
        plan = world.plan
        if world.port_was_taken and not plan.master_port_is_users:
            return self._other_port(plan)
        if world.regrowing:
            return self._again(plan, plan.nodes, standing, None, "nodes have come back")
        failure, action = self._failures[-1], plan.actions[self._failures[-1].kind]
        if world.never_began and not world.lost:
            return None
        if self._without_progress >= _MOST_WITHOUT_PROGRESS:
            times = f"{_MOST_WITHOUT_PROGRESS} restarts in a row brought no new step"
            self._say_why_not(plan, times)
            return None
        gone = {agent.index for agent in world.lost}
        if not gone and failure.suspect is not None:
            gone = {failure.suspect}
        if action == failures.SWAP and (found := self._swapped(plan, gone, standing)):
            return found
        if action in (failures.SWAP, failures.SHRINK) and self._may_shrink(plan, gone):
            kept = [node for node in plan.nodes if node.number not in gone]
            self._put_out(failure, gone)
            left = "the one node that is" if len(kept) == 1 else f"{len(kept)} nodes that are"
            reason = f"going on with {left} left"
            return self._again(plan, kept, standing, None, reason)
        if action == failures.STOP:
            is_bug = failure.kind == failures.CODE
            self._say_why_not(plan, failure.why if is_bug else f"--on {failure.kind}=stop")
            return None
        return self._retried(world, standing)

    def take(self, world: World) -> Failure | None:
        """Note how an attempt has ended that did not end well; return its failure.

        None: it only lost its port to another process, or is to grow.
        """
        steps = world.steps
        if world.regrowing or (world.port_was_taken and not world.plan.master_port_is_users):
            return None
        progressed = steps.furthest > self._furthest
        self._furthest = max(self._furthest, steps.furthest)
        if (steps.reports or not world.started) and self._restarted:  # else nobody knows
            self._without_progress = 0 if progressed else self._without_progress + 1
            self._used += not progressed
        self._ends.append(world.ends)
        began = steps.begun_at
        self._stepless.append(began is not None and steps.furthest <= began)
        found = repeated(
            failure_of(world),
            self._ends,
            self._failures,
            world_size=world.plan.world_size,
            nnodes=len(world.plan.nodes),
            progressed=progressed,
            without_steps=len(self._stepless) > 1 and all(self._stepless[-2:]),
        )
        self._failures.append(found)
        return found

    def _other_port(self, plan: LaunchPlan) -> LaunchPlan | None:
        self._port_tries += 1
        if self._port_tries > _MAX_PORT_TRIES:
            return None
        what = f"port {plan.master_port} was taken by another process after it was chosen"
        self._tell("notice", message=f"{what}; taking a new one")
        self.attempt += 1
        return plan.next_attempt(self.attempt, plan.nodes)

    def _swapped(
        self, plan: LaunchPlan, gone: Collection[int], standing: Sequence[NodePlan]
    ) -> LaunchPlan | None:
        """Return the plan with spares in the places of nodes; None if there are not enough."""
        fit = [node for node in standing if node.number not in self.out | {*gone}]
        kept = [node for node in plan.nodes if node.number not in gone]
        taken = fit[: plan.nnodes - len(kept)]
        if not gone or not taken or len(kept) + len(taken) < plan.min_nodes:
            return None
        failure = self._failures[-1]
        self._put_out(failure, gone)
        names = {node.number: node.host for node in plan.nodes}
        old = ", ".join(names[number] for number in sorted(gone))
        new = ", ".join(node.host for node in taken)
        reason = f"{new} takes the place of {old}"
        return self._again(plan, [*kept, *taken], standing, None, reason)

    def _put_out(self, failure: Failure, gone: Collection[int]) -> None:
        """Give suspects no ranks any more; a node that was lost may come back."""
        if failure.kind not in (failures.NODE, failures.LINK, failures.PREEMPTED):
            self.out |= {*gone}

    def _may_shrink(self, plan: LaunchPlan, gone: Collection[int]) -> bool:
        left = sum(node.number not in gone for node in plan.nodes)
        return plan.min_nodes <= left < plan.nnodes

    def _retried(self, world: World, standing: Sequence[NodePlan]) -> LaunchPlan | None:
        plan = world.plan
        if self._used >= plan.max_restarts:
            return None
        self._used += 1
        reason = describe(world, None).summary
        return self._again(plan, plan.nodes, standing, self._used, reason)

    def _say_why_not(self, plan: LaunchPlan, why: str) -> None:
        if plan.survives:
            self._tell("notice", message=f"not restarted again: {why}")

    def _again(
        self,
        plan: LaunchPlan,
        nodes: Sequence[NodePlan],
        standing: Sequence[NodePlan],
        used: int | None,
        reason: str,
    ) -> LaunchPlan:
        """Return the next plan; nodes that have come back take free places."""
        spares = {node.number for node in plan.spares}
        numbers = {node.number for node in nodes}
        back = [n for n in standing if n.number not in spares | numbers | self.out]
        grown = sorted([*nodes, *back[: max(0, plan.max_nodes - len(nodes))]], key=_number)
        self.attempt += 1
        self.restarts += 1
        self._restarted = True
        self._tell(
            "restart",
            attempt=self.attempt if used is None else used,
            of=None if used is None else plan.max_restarts,
            reason=reason,
        )
        kept = {node.number for node in grown}
        left = tuple(node for node in plan.spares if node.number not in kept)
        return replace(plan.next_attempt(self.attempt, grown), spares=left)


def _number(node: NodePlan) -> int:
    return node.number


def failure_of(world: World) -> Failure:
    """Return what has ended an attempt, whatever the attempts before it show."""
    why = describe(world, None).summary
    if hang := world.hangs.stopping:
        plan = world.plan
        nodes = {plan.nodes[rank // plan.nproc_per_node].number for rank in hang.culprits}
        return Failure(failures.HANG, nodes.pop() if len(nodes) == 1 else None, why)
    if world.leaving is not None:
        return Failure(failures.PREEMPTED, world.leaving.index, why)
    verdict = judge(world.ends)
    if verdict is not None and not lost_came_first(world):
        end = next((end for end in world.ends if end.rank == verdict.rank), None)
        return of_rank(verdict, end, why)
    lost = world.lost[0] if world.lost else None
    if lost is None and world.engine_errors:
        lost = world.engine_errors[0][0]
    kind = failures.LINK if lost is not None and lost.was_silent else failures.NODE
    return Failure(kind, None if lost is None else lost.index, why)
