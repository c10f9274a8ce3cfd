"""The allocations of one step of one rank, in the order in which torch makes them."""

from __future__ import annotations

from dataclasses import dataclass, field

from distrun.estimate.activations import Activations, Op, kept_of_block
from distrun.estimate.holdings import Holdings
from distrun.estimate.layout import Training
from distrun.estimate.tape import Tape
from distrun.estimate.units import Units, units_of

_PASSES = 3
"""Micro-batches that are played: the first, one that is like all others, and the last."""


@dataclass
class _Pass:
    """What one micro-batch has left for its backward."""

    inputs: list[int] = field(default_factory=list)
    """The residual stream before each layer, and behind the last."""
    kept: list[list[list[int]]] = field(default_factory=list)
    """Of each layer, by operation."""
    casts: list[int] = field(default_factory=list)
    """Weights of each layer that autocast has cast."""
    head_cast: list[int] = field(default_factory=list)
    loss: list[int] = field(default_factory=list)
    """What the norm before the head, and the loss, have saved."""
    logits: list[int] = field(default_factory=list)


class Timeline:
    """Plays one step of a rank of one stage onto a tape."""

    def __init__(self, training: Training, stage: int = 0) -> None:
        self.training, self.stage = training, stage
        self.formats, self.layout = training.formats, training.layout
        self.units: Units = units_of(training, stage)
        self.tape = Tape()
        self.held = Holdings(training, self.units, self.tape)
        self.activations = Activations(training)
        self.ops: tuple[Op, ...] = self.activations.block()
        self.cast_once: list[int] | None = None
        """Weights that autocast has cast for all micro-batches of a pipeline's step."""
        self.kept = kept_of_block(self.ops, training.step.recompute, compiled=self.formats.compiled)

    def play(self) -> Tape:
        """Return the tape of a step in which optimizer and buckets exist already."""
        self.held.hold_states()
        self._hold_received()
        if other := self.formats.other_nbytes[self.layout.pp > 1]:
            self.tape.take("temporary", other)
        in_flight, accumulate = in_flight_of(self.training, self.stage), self._accumulate
        if in_flight > 1:  # behind the first ones FSDP's whole gradients wait
            twice = self.layout.fully_sharded and accumulate >= 2 * in_flight
            groups = [in_flight] * (2 if twice else 1)
        else:
            groups = [1] * min(_PASSES, accumulate)
        logits = self._logits_of_others(accumulate - sum(groups))
        part = self._part_of_a_pass()
        for number, count in enumerate(groups):
            self.tape.begin("forward")
            stack = [self._forward_cast_once() for _ in range(count)]
            self.tape.begin("backward")
            for place, one in enumerate(stack):
                last = number == len(groups) - 1 and place == count - 1
                self._backward(one, last=last)
                logits += one.logits
                self.tape.give(*part)
                part = []
            if not self._keeps_outputs:
                self.tape.give(*logits)
                logits = []
        self.tape.give(*(self.cast_once or ()))
        self.tape.begin("optimizer")
        if self.layout.tp > 1 and not self.layout.fully_sharded and self.units.is_first:
            # the embedding's gradient is whole until clipping cuts it
            words = self.training.shape.vocab * self.training.shape.dim
            self.tape.give(self.tape.take("temporary", self.formats.gradients * words))
        self.tape.give(*logits, *self.held.gradients)
        return self.tape

    def _hold_received(self) -> None:
        """Take what torch's schedules receive into, beside the passes that are played.

        Each stage has a buffer for the input of each micro-batch, and one for its gradient
        (torch.distributed.pipelining, PipelineStage), but the first and the last stage of all.
        """
        if self.layout.pp == 1 or not self.formats.receives_all:
            return
        stages, last = self.layout.rounds, self.layout.pp - 1
        inputs = self._accumulate * (stages - (self.stage == 0))
        gradients = self._accumulate * (stages - (self.stage == last))
        played = in_flight_of(self.training, self.stage) * (self.stage > 0) + (self.stage < last)
        count = max(0, inputs + gradients - played)
        self.tape.take("activations", count * self.activations.residual)

    def _logits_of_others(self, passes: int) -> list[int]:
        """Return the logits of passes that are not played: a pipeline's schedule keeps them all."""
        if not self._keeps_outputs or not self.units.is_last or passes <= 0:
            return []
        return [self.tape.take("temporary", passes * self.activations.logits(self.formats.logits))]

    def _part_of_a_pass(self) -> list[int]:
        """Return the activations of a micro-batch that some of a rank's stages have not seen."""
        chunks = chunks_of(self.training, self.stage) % self.layout.rounds
        if not chunks or in_flight_of(self.training, self.stage) == self._accumulate:
            return []
        layers = self.units.layers * chunks // self.layout.rounds
        each = self.activations.residual + sum(map(sum, self.kept))
        return [self.tape.take("activations", layers * each)]

    @property
    def _accumulate(self) -> int:
        return self.training.step.accumulate

    # --- forward ---

    def _forward(self) -> _Pass:
        root, one, held = self.units.last_place, _Pass(), self.held
        reshards = self.layout.stage == 3
        held.gather(root)
        held.drop_buffer()
        if self.units.before is not None:
            held.gather(0)
        one.inputs.append(self.tape.take("activations", self.activations.residual))
        if self.units.before is not None and reshards:
            held.reshard(0)
        for index in self.units.layer_places:
            held.gather(index)
            self._forward_block(one)
            if reshards:
                held.reshard(index)
        held.drop_buffer()
        if self.units.is_last:
            self._forward_loss(one)
        if reshards and not self.formats.root_stays:
            held.reshard(root)
        return one

    def _forward_cast_once(self) -> _Pass:
        """Play one forward; a pipeline's micro-batches share one autocast, and so its copies."""
        one = self._forward()
        if self.layout.pp > 1 and self.cast_once is None:
            self.cast_once = [*one.casts, *one.head_cast]
            one.casts, one.head_cast = [], []
        return one

    def _cast(self, elements: int) -> list[int]:
        """Return the copies of weights that autocast makes, and autograd saves."""
        if not self.formats.autocast or self.cast_once is not None:
            return []
        return [self.tape.take("activations", self.formats.compute * elements)]

    def _forward_block(self, one: _Pass) -> None:
        one.casts += self._cast(self.units.block.products)
        kept, gone = self._run(self.kept)
        self.tape.give(*gone)
        one.kept.append(kept)
        one.inputs.append(self.tape.take("activations", self.activations.residual))

    def _run(self, kept: list[tuple[int, ...]]) -> tuple[list[list[int]], list[int]]:
        """Run a layer's operations; return what stays by operation, and what is left to drop."""
        staying: list[list[int]] = []
        passing: list[int] = []
        for op, held in zip(self.ops, kept, strict=True):
            temporary = [self.tape.take("temporary", op.temporary)] if op.temporary else []
            staying.append([self.tape.take("activations", n) for n in held])
            lost = sum(op.saved) - sum(held)
            now = [self.tape.take("temporary", lost)] if lost > 0 else []
            self.tape.give(*temporary, *passing)
            passing = now
        return staying, passing

    def _forward_loss(self, one: _Pass) -> None:
        """Play norm, head and cross-entropy; what autograd keeps of them is the log-softmax."""
        formats, sizes, tape = self.formats, self.activations, self.tape
        norm = sizes.norm("norm", 1)
        temporary = tape.take("temporary", norm.temporary)
        one.loss += [tape.take("activations", n) for n in norm.saved]
        tape.give(temporary)
        one.head_cast = self._cast(self._head)
        made = tape.take("temporary", sizes.logits(formats.compute, local=True))
        if self.layout.tp > 1 and not formats.loss_parallel:
            made = self._gathered(made, sizes.logits(formats.compute))
        if formats.logits != formats.compute:
            made = self._replaced(made, sizes.logits(formats.logits))
        copies = int(formats.loss != formats.logits) + self._more_copies
        if formats.loss_in_place:
            copies = 0
        exact = [tape.take("temporary", sizes.logits(formats.loss)) for _ in range(copies)]
        one.loss.append(tape.take("activations", sizes.logits(formats.loss)))
        tape.give(*exact)
        if formats.keeps_logits or self._keeps_outputs:
            one.logits.append(made)
        else:
            tape.give(made)

    @property
    def _keeps_outputs(self) -> bool:
        return self.layout.pp > 1 and self.formats.keeps_outputs

    @property
    def _more_copies(self) -> int:
        """Copies of the logits that DTensor's loss_parallel makes beside a plain loss's."""
        return int(self.layout.tp > 1 and self.formats.loss_parallel)

    def _gathered(self, part: int, nbytes: int) -> int:
        """Return whole logits: gathered, put together along the vocabulary, made contiguous."""
        gathered = [self.tape.take("temporary", nbytes) for _ in range(2)]
        whole = self.tape.take("temporary", nbytes)
        self.tape.give(part, *gathered)
        return whole

    def _replaced(self, before: int, nbytes: int) -> int:
        """Return a tensor that is made of another, which is then freed."""
        after = self.tape.take("temporary", nbytes)
        self.tape.give(before)
        return after

    @property
    def _head(self) -> int:
        """Elements of the head on this rank."""
        return self.training.shape.vocab * self.training.shape.dim // self.layout.tp

    # --- backward ---

    def _backward(self, one: _Pass, *, last: bool) -> None:
        units, held, root = self.units, self.held, self.units.last_place
        grad, of_root = self._backward_loss(one)
        first = units.layer_places[0]
        for index in reversed(units.layer_places):
            held.gather_again(index, index - 1 if index > first or units.before else None)
            grad = self._backward_block(one, index, grad, last=last)
        self.tape.give(grad, *one.inputs)
        if units.before is not None:
            held.gather_again(0, None)
            held.reduce(0, last=last)
        held.drop_buffer()
        if units.is_first and units.before is None and not (units.is_last and self._tied):
            embedding = self.units.root.tensors[0]
            of_root.append(self.tape.take("gradients", held.grad_nbytes() * embedding))
        self.tape.give(*of_root)
        held.reduce(root, last=last)
        held.end_of_backward()

    @property
    def _tied(self) -> bool:
        return self.training.shape.tied

    def _backward_loss(self, one: _Pass) -> tuple[int, list[int]]:
        """Play the backward of loss and head.

        Returns:
            The gradient of the residual stream, and that of the head, if it is here.
        """
        formats, sizes, tape = self.formats, self.activations, self.tape
        if not self.units.is_last:
            return tape.take("temporary", sizes.residual), []
        *before, log_softmax = one.loss
        if formats.loss_in_place:
            grad = log_softmax
        else:
            of_nll = [
                tape.take("temporary", sizes.logits(formats.loss))
                for _ in range(1 + self._more_copies)
            ]
            grad = tape.take("temporary", sizes.logits(formats.loss))
            tape.give(*of_nll, log_softmax)
        self.held.gather(self.units.last_place)
        self.held.drop_buffer()
        now = formats.loss
        for nbytes in (formats.logits, formats.compute):
            if nbytes != now:
                grad = self._replaced(grad, sizes.logits(nbytes, local=True))
                now = nbytes
        head = tape.take("gradients", self.held.grad_nbytes() * self._head)
        out = tape.take("temporary", sizes.stream)
        stream = tape.take("temporary", sizes.residual)
        tape.give(grad, out, *before, one.inputs.pop(), *one.head_cast)
        return stream, [head]

    def _backward_block(self, one: _Pass, index: int, grad: int, *, last: bool) -> int:
        tape, kept = self.tape, one.kept.pop()
        anew = self._recompute()
        for op, held, again in zip(reversed(self.ops), reversed(kept), reversed(anew), strict=True):
            # gradients of two tensors at most at a time, each as large as what was saved
            size = sum(op.saved) or self.activations.residual
            inner = tape.take("temporary", min(size, 2 * max(op.saved, default=size)))
            tape.give(*held, *again, inner)
        stream = tape.take("temporary", self.activations.residual)
        tape.give(grad)
        if len(one.inputs) > 1:
            tape.give(one.inputs.pop())
        if one.casts:
            tape.give(one.casts.pop())
        self.held.reduce(index, last=last)
        return stream

    def _recompute(self) -> list[list[int]]:
        """Run a layer again for what was not kept; return it by operation."""
        if self.training.step.recompute == "none":
            return [[] for _ in self.ops]
        missing: list[tuple[int, ...]] = [
            (n,) if (n := max(0, sum(op.saved) - sum(held))) else ()
            for op, held in zip(self.ops, self.kept, strict=True)
        ]
        anew, gone = self._run(missing)
        self.tape.give(*gone)
        return anew


def in_flight_of(training: Training, stage: int) -> int:
    """Return the micro-batches whose activations a stage of a pipeline keeps at most."""
    layout, accumulate = training.layout, training.step.accumulate
    if layout.pp == 1:
        return 1
    if layout.flow == "gpipe":
        return accumulate
    return max(1, min(accumulate, chunks_of(training, stage) // layout.rounds))


def chunks_of(training: Training, stage: int) -> int:
    """Return the passes through one stage whose activations a rank keeps at most, under 1F1B.

    Interleaved, a rank runs twice as far ahead of those behind it, and once through all ranks for
    each further stage that it has (torch.distributed.pipelining, ScheduleInterleaved1F1B).
    """
    layout = training.layout
    behind = layout.pp - stage - 1
    if layout.rounds == 1:
        return behind + 1
    return 2 * behind + (layout.rounds - 1) * layout.pp + 1
