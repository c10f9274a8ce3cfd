"""What one rank sends in one step, in closed form.

FSDP2 pads dim 0 of each parameter to a multiple of the shard size, so traffic grows where matrices
have few rows (`Unit.padded`). With sequence parallelism a block gathers twice and scatters twice in
each direction (https://arxiv.org/abs/2205.05198). DDP fills buckets of 25 MiB, the first of 1 MiB,
in the order in which backward makes the gradients.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from distrun.estimate.activations import Activations
from distrun.estimate.buckets import buckets
from distrun.estimate.layout import Training
from distrun.estimate.units import Unit, Units, units_of
from distrun.estimate.work import Collective, Phase

LOSS, NORM = 32, 4
"""Bytes of the recipes' all_reduces in each step (distrun.train.progress, distrun.train.optim)."""


@dataclass(frozen=True)
class Traffic:
    """The collectives of a rank of one stage."""

    training: Training
    stage: int = 0

    def collectives(self) -> tuple[Collective, ...]:
        """Return all of them, equal ones counted together."""
        units = units_of(self.training, self.stage)
        found: Counter[Collective] = Counter()
        parts = (
            *(self._weights(units), self._matrices(units), self._stages()),
            *(self._others(units), self._loop()),
        )
        for part in parts:
            for one in part:
                found[one] += 1
        return tuple(_counted(found, self.training.step.accumulate))

    def host_nbytes(self) -> int:
        """Return what travels to a rank's shards in the memory of its host, and from them."""
        if not self.training.layout.offload:
            return 0
        formats, found = self.training.formats, 0
        for one in self._sharded(units_of(self.training, self.stage)):
            own = one.nbytes * one.count // one.group_size
            if one.op == "all_gather":
                found += own // formats.compute * formats.weights
            elif one.op == "reduce_scatter":
                found += own // formats.reduce * formats.gradients
        return found

    def _weights(self, units: Units) -> Iterator[Collective]:
        layout = self.training.layout
        if layout.fully_sharded:
            yield from self._sharded(units)
        elif layout.data * layout.cp > 1:
            yield from self._replicated(units)

    def _loop(self) -> Iterator[Collective]:
        """Yield what the recipes' loop sends in each step: the loss, and the norm's square."""
        layout = self.training.layout
        if self.training.formats.agrees:
            yield _one("all_reduce", "world", layout.world_size, LOSS, 1, "optimizer")
            if layout.fully_sharded or layout.tp * layout.pp * layout.ep > 1:
                yield _one("all_reduce", "world", layout.world_size, NORM, 1, "optimizer")

    def _sharded(self, units: Units) -> Iterator[Collective]:
        """Yield FSDP's: gathers in each pass, one reduce_scatter a step, HSDP's all_reduce."""
        layout, formats = self.training.layout, self.training.formats
        every = self.training.step.accumulate
        passes = every if layout.stage == 3 else 1
        syncs = every if formats.syncs_always else 1
        n, last = layout.shard, len(units.all) - 1
        for index, unit in enumerate(units.all):
            gathered, reduced = formats.compute * unit.padded, formats.reduce * unit.padded
            again = layout.stage == 3 and (index != last or not formats.root_stays)
            if not unit.padded:
                continue
            yield _one("all_gather", "shard", n, gathered, passes, "forward")
            if again:
                yield _one("all_gather", "shard", n, gathered, passes, "backward")
            yield _one("reduce_scatter", "shard", n, reduced, syncs, "backward")
            if layout.replicate > 1:
                own = formats.reduce * unit.own
                yield _one("all_reduce", "replicate", layout.replicate, own, syncs, "backward")

    def _replicated(self, units: Units) -> Iterator[Collective]:
        """Yield DDP's all_reduces of buckets, and ZeRO-1's broadcasts of updated weights."""
        layout, formats = self.training.layout, self.training.formats
        n = layout.data * layout.cp
        axis = "world" if layout.cp > 1 else ("shard" if layout.stage == 1 else "replicate")
        tensors = list(reversed(_in_ddp(units, self.training)))
        for nbytes in bucket_sizes(tensors, formats.gradients):
            yield _one("all_reduce", axis, n, nbytes, 1, "backward")
        if layout.stage == 1:
            for count in tensors:  # over the default group
                yield _one("broadcast", "world", n, formats.weights * count, 1, "optimizer")

    def _matrices(self, units: Units) -> Iterator[Collective]:
        """Yield those of tensor parallelism."""
        layout, formats, shape = self.training.layout, self.training.formats, self.training.shape
        if layout.tp == 1:
            return
        passes, n = self.training.step.accumulate, layout.tp
        held = Activations(self.training)
        tokens = held.tokens * shape.dim
        whole, exact = formats.compute * tokens, formats.residual * tokens
        gathers = 2 * units.layers + (1 if units.is_last else 0)
        scatters = 2 * units.layers
        when: tuple[Phase, Phase, Phase] = ("forward", "backward", "optimizer")
        if formats.sequence_parallel:
            # Norms give the residual's format; what rowwise products sum has that of products.
            yield _one("all_gather", "tp", n, exact, gathers * passes, when[0])
            yield _one("reduce_scatter", "tp", n, exact, gathers * passes, when[1])
            if formats.gathers_again:
                yield _one("all_gather", "tp", n, exact, gathers * passes, when[1])
            yield _one("reduce_scatter", "tp", n, whole, scatters * passes, when[0])
            yield _one("all_gather", "tp", n, whole, scatters * passes, when[1])
            if units.is_first and formats.embedding_cut:
                yield _one("reduce_scatter", "tp", n, exact, passes, when[0])
                yield _one("all_gather", "tp", n, exact, passes, when[1])
            # DTensor defers the sum of the norms' gradients: to FSDP's reduction, or to clipping
            nbytes, phase = formats.gradients, when[2]
            if layout.fully_sharded:
                waits = passes > 1 and not formats.syncs_always
                nbytes, phase = formats.reduce if waits else formats.compute, when[1]
            yield _one("all_reduce", "tp", n, nbytes * shape.dim, gathers, phase)
        else:
            yield _one("all_reduce", "tp", n, whole, scatters * passes, when[0])
            yield _one("all_reduce", "tp", n, whole, gathers * passes, when[1])
        if units.is_last and formats.loss_parallel:
            yield _one("all_reduce", "tp", n, 4 * held.tokens, 3 * passes, when[0])
        elif units.is_last:
            logits = held.logits(formats.compute)
            yield _one("all_gather", "tp", n, logits, passes, when[0])

    def _stages(self) -> Iterator[Collective]:
        """Yield the messages between the stages of a pipeline."""
        layout, formats = self.training.layout, self.training.formats
        passes, stages = self.training.step.accumulate, layout.pp * layout.rounds
        mine = range(self.stage, stages, layout.pp)
        held = Activations(self.training)
        border = formats.weights if layout.fully_sharded else formats.residual
        nbytes = border * held.norm_tokens * self.training.shape.dim
        if sent := sum(1 for number in mine if number < stages - 1):
            yield _one("sendrecv", "pp", layout.pp, nbytes, sent * passes, "forward")
        if back := sum(1 for number in mine if number > 0):
            yield _one("sendrecv", "pp", layout.pp, nbytes, back * passes, "backward")

    def _others(self, units: Units) -> Iterator[Collective]:
        """Yield the ring of context parallelism, and the tokens that travel to experts."""
        layout, formats, shape = self.training.layout, self.training.formats, self.training.shape
        passes, tokens = self.training.step.accumulate, Activations(self.training).tokens
        again = 2 if self.training.step.recompute != "none" else 1
        both: tuple[tuple[Phase, int], ...] = (("forward", again), ("backward", 1))
        for phase, times in both:
            count = units.layers * passes * times
            if layout.cp > 1:
                both_of_them = 2 * formats.compute * tokens * shape.keys // layout.tp
                turns = count * (layout.cp - 1)
                yield _one("sendrecv", "cp", layout.cp, both_of_them, turns, phase)
            if layout.ep > 1:
                sent = formats.residual * tokens * shape.chosen * shape.dim
                yield _one("all_to_all", "ep", layout.ep, sent, count, phase)
                back = formats.compute * tokens * shape.chosen * shape.dim
                yield _one("all_to_all", "ep", layout.ep, back, count, phase)
                if phase == "forward":
                    few = 4 * shape.experts
                    yield _one("all_to_all", "ep", layout.ep, 2 * few, count, phase)
                    yield _one("all_reduce", "ep", layout.ep, few, count, phase)


def _one(op: str, axis: str, n: int, nbytes: int, count: int, phase: Phase) -> Collective:
    return Collective(op, axis, n, nbytes, count, phase)


def _counted(found: Counter[Collective], passes: int) -> Iterator[Collective]:
    """Yield collectives that differ in nothing but their count as one.

    Args:
        found: Those of one unit, each with how many units have it.
        passes: Micro-batches.
    """
    totals: Counter[tuple[str, str, int, int, Phase]] = Counter()
    recurring = set()
    for one, times in found.items():
        key = one.op, one.axis, one.group_size, one.nbytes, one.phase
        totals[key] += one.count * times
        if passes > 1 and one.count % passes == 0:
            recurring.add(key)
    for key, count in totals.items():
        op, axis, n, nbytes, phase = key
        if count and nbytes and n > 1:
            yield Collective(op, axis, n, nbytes, count, phase, recurs=key in recurring)


def _in_ddp(units: Units, training: Training) -> list[int]:
    """Return the elements of each parameter that DDP reduces, in the order of definition."""
    apart = {weight.name for weight in training.shape.block() if weight.expert}
    block = [
        count
        for count, weight in zip(units.block.tensors, training.shape.block(), strict=True)
        if weight.name not in apart or training.layout.ep == 1
    ]
    ends = list(units.root.tensors)
    before = len(training.shape.embedding()) if units.is_first else 0
    return [*ends[:before], *block * units.layers, *ends[before:]]


def bucket_sizes(tensors: Sequence[int], nbytes: int) -> list[int]:
    """Return the bytes of DDP's buckets.

    Args:
        tensors: Elements of each gradient, in the order in which backward makes them.
        nbytes: Of an element.
    """
    sizes = [("", count * nbytes) for count in tensors]
    return [sum(sizes[place][1] for place in bucket) for bucket in buckets(sizes)]


def padding(units: Iterable[Unit]) -> float:
    """Return by which part gathered weights are more than the weights."""
    every = list(units)
    return sum(unit.padded for unit in every) / max(1, sum(unit.count for unit in every)) - 1
