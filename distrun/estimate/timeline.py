"""The allocations of one step of one rank, in the order in which torch makes them.

FSDP2 (torch/distributed/fsdp/_fully_shard): a unit is gathered into a buffer of the gather
stream, and copied from there into its parameters; the buffer lives until the next unit's copy.
In backward the next unit is gathered while one computes. Gradients are copied into a buffer of the
reduce stream, which lives until the next unit has reduced.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from distrun.estimate.activations import Activations, Op, kept_of_block
from distrun.estimate.layout import Training
from distrun.estimate.tape import Tape
from distrun.estimate.units import Unit, Units, units_of


@dataclass
class _Pass:
    """What one micro-batch has left for its backward."""

    inputs: list[int] = field(default_factory=list)
    """The residual stream before each layer, and behind the last."""
    kept: list[list[list[int]]] = field(default_factory=list)
    """Of each layer, by operation."""
    casts: list[int] = field(default_factory=list)
    """Weights of each layer that autocast has cast."""
    loss: list[int] = field(default_factory=list)
    logits: int | None = None


class Timeline:
    """Plays one step of a rank of one stage onto a tape."""

    def __init__(self, training: Training, stage: int = 0) -> None:
        self.training, self.stage = training, stage
        self.formats, self.layout = training.formats, training.layout
        self.units: Units = units_of(training, stage)
        self.tape = Tape()
        self.activations = Activations(training)
        self.ops: tuple[Op, ...] = self.activations.block()
        self.kept = kept_of_block(self.ops, training.step.recompute, compiled=self.formats.compiled)
        self.whole: dict[int, int] = {}
        """Unit -> its gathered weights."""
        self.waiting: dict[int, int] = {}
        """Unit -> its unsharded gradients that wait for the last micro-batch."""
        self.gradients: list[int] = []
        self.gather_buffer: int | None = None
        self.reduce_buffer: int | None = None

    def play(self) -> Tape:
        """Return the tape of a step in which optimizer and buckets exist already."""
        self._hold_states()
        in_flight = self.in_flight()
        passes = [min(in_flight, self.training.step.accumulate)]
        if in_flight == 1 and self.training.step.accumulate > 1:
            passes = [1] * min(3, self.training.step.accumulate)
        logits: list[int] = []
        for number, count in enumerate(passes):
            self.tape.begin("forward")
            stack = [self._forward() for _ in range(count)]
            self.tape.begin("backward")
            for place, one in enumerate(stack):
                last = number == len(passes) - 1 and place == count - 1
                self._backward(one, last=last)
                logits += [one.logits] if one.logits is not None else []
            if self.layout.pp == 1:
                self.tape.give(*logits)
                logits = []
        self.tape.begin("optimizer")
        self.tape.give(*logits, *self.gradients)
        return self.tape

    def in_flight(self) -> int:
        """Return the micro-batches whose activations a stage keeps at most."""
        layout, accumulate = self.layout, self.training.step.accumulate
        if layout.pp == 1:
            return 1
        if layout.flow == "gpipe":
            return accumulate
        behind = layout.pp - self.stage - 1
        if layout.rounds > 1:
            chunks = 2 * behind + (layout.rounds - 1) * layout.pp + 1
            return min(accumulate, -(-chunks // layout.rounds))
        return min(accumulate, behind + 1)

    # --- what stays ---

    def _hold_states(self) -> None:
        formats, layout, units = self.formats, self.layout, self.units
        if not layout.fully_sharded and self._in_buckets:
            reduced = units.total("count") - units.total("experts")
            self.tape.take("gradients", formats.gradients * reduced)
        for unit in units.all:
            if not layout.offload:
                self.tape.take("parameters", formats.weights * unit.own)
                share = layout.shard if layout.stage == 1 else 1
                self.tape.take("optimizer", formats.optimizer * unit.own / share)

    # --- gathered weights ---

    def _gather(self, index: int, *, ahead: int | None = None) -> None:
        """Make the weights of a unit whole; `ahead`: the unit that is gathered meanwhile."""
        if not self.layout.fully_sharded or index in self.whole:
            return
        unit = self.units.all[index]
        before, self.gather_buffer = self.gather_buffer, None
        if ahead is None or before is None:
            held = self.tape.take("gathered", self.formats.compute * unit.padded, "gather")
            if before is not None:
                self.tape.give(before)
        else:
            held = before  # it has been gathered while the unit behind it computed
        self.whole[index] = self.tape.take("gathered", self.formats.compute * unit.count)
        if ahead is None:
            self.gather_buffer = held
            return
        self.tape.give(held)
        if ahead not in self.whole and ahead >= 0:
            nbytes = self.formats.compute * self.units.all[ahead].padded
            self.gather_buffer = self.tape.take("gathered", nbytes, "gather")

    def _drop_buffer(self) -> None:
        if self.gather_buffer is not None:
            self.tape.give(self.gather_buffer)
            self.gather_buffer = None

    def _reshard(self, index: int) -> None:
        if index in self.whole:
            self.tape.give(self.whole.pop(index))

    # --- forward ---

    def _forward(self) -> _Pass:
        root, one = len(self.units.all) - 1, _Pass()
        reshards = self.layout.stage == 3
        self._gather(root)
        self._drop_buffer()
        first = 0
        if self.units.before is not None:
            self._gather(0)
            first = 1
        one.inputs.append(self.tape.take("activations", self.activations.residual))
        if first and reshards:
            self._reshard(0)
        for index in range(first, root):
            self._gather(index)
            self._forward_block(one)
            if reshards:
                self._reshard(index)
        self._drop_buffer()
        if self.units.is_last:
            self._forward_loss(one, root)
        if reshards and not self.formats.root_stays:
            self._reshard(root)
        return one

    def _cast(self, unit: Unit) -> int | None:
        """Return the copies of a layer's weights that autocast makes."""
        if not self.formats.autocast:
            return None
        return self.tape.take("activations", self.formats.compute * unit.products)

    def _forward_block(self, one: _Pass) -> None:
        if (cast := self._cast(self.units.block)) is not None:
            one.casts.append(cast)
        kept, gone = self._run(self.kept)
        self.tape.give(*gone)
        one.kept.append(kept)
        one.inputs.append(self.tape.take("activations", self.activations.residual))

    def _run(self, kept: list[tuple[int, ...]]) -> tuple[list[list[int]], list[int]]:
        """Run a layer's operations; return what stays by operation, and what is left to drop."""
        staying: list[list[int]] = []
        passing: list[int] = []
        for op, held in zip(self.ops, kept, strict=True):
            temporary = self.tape.take("temporary", op.temporary) if op.temporary else None
            staying.append([self.tape.take("activations", n) for n in held])
            lost = sum(op.saved) - sum(held)
            now = [self.tape.take("temporary", lost)] if lost > 0 else []
            if temporary is not None:
                self.tape.give(temporary)
            self.tape.give(*passing)
            passing = now
        return staying, passing

    def _forward_loss(self, one: _Pass, root: int) -> None:
        """Play norm, head and cross-entropy; what autograd keeps of them is the log-softmax."""
        formats, held, tape = self.formats, self.activations, self.tape
        norm = held.norm("norm", 1)
        temporary = tape.take("temporary", norm.temporary)
        one.loss += [tape.take("activations", n) for n in norm.saved]
        tape.give(temporary)
        if formats.autocast:
            head = self.training.shape.vocab * self.training.shape.dim // self.layout.tp
            one.casts.insert(0, tape.take("activations", formats.compute * head))
        made = tape.take("activations", self._of_chunk(held.logits(formats.compute, local=True)))
        if self.layout.tp > 1 and not formats.loss_parallel:
            whole = tape.take("activations", self._of_chunk(held.logits(formats.compute)))
            tape.give(made)
            made = whole
        if formats.logits != formats.compute:
            cast = tape.take("activations", self._of_chunk(held.logits(formats.logits)))
            tape.give(made)
            made = cast
        exact = None
        if formats.loss != formats.logits:
            exact = tape.take("temporary", self._of_chunk(held.logits(formats.loss)))
        one.loss.append(tape.take("activations", self._of_chunk(held.logits(formats.loss))))
        if exact is not None:
            tape.give(exact)
        if formats.keeps_logits or self.layout.pp > 1:
            one.logits = made
        else:
            tape.give(made)

    def _of_chunk(self, nbytes: int) -> int:
        return nbytes // self.formats.chunks

    # --- backward ---

    def _backward(self, one: _Pass, *, last: bool) -> None:
        units, root = self.units, len(self.units.all) - 1
        first = 1 if units.before is not None else 0
        grads_of_root: list[int] = []
        grad = self._backward_loss(one, root, grads_of_root)
        for index in reversed(range(first, root)):
            self._gather(index, ahead=index - 1 if index > first or first else -1)
            grad = self._backward_block(one, index, grad, last=last)
        self.tape.give(grad, *one.inputs)
        if first:
            self._gather(0, ahead=-1)
            made = self.tape.take("gradients", self.formats.compute * units.all[0].count)
            self._reduce(0, made, last=last)
        self._drop_buffer()
        if units.is_first and not first:
            embedding = sum(self.units.root.tensors[:1]) * self._grad_nbytes()
            if not (self.training.shape.tied and units.is_last):
                grads_of_root.append(self.tape.take("gradients", embedding))
        self._end_of_root(grads_of_root, root, last=last)

    def _backward_loss(self, one: _Pass, root: int, grads: list[int]) -> int:
        """Play the backward of loss and head; return the gradient of the residual stream."""
        formats, held, tape = self.formats, self.activations, self.tape
        if not self.units.is_last:
            return tape.take("temporary", held.residual)
        *before, log_softmax = one.loss
        of_nll = tape.take("temporary", self._of_chunk(held.logits(formats.loss)))
        grad = tape.take("temporary", self._of_chunk(held.logits(formats.loss)))
        tape.give(of_nll, log_softmax)
        self._gather(root)
        self._drop_buffer()
        for nbytes in (formats.logits, formats.compute):
            if nbytes != formats.loss or formats.logits != formats.compute != nbytes:
                cast = tape.take("temporary", self._of_chunk(held.logits(nbytes, local=True)))
                tape.give(grad)
                grad = cast
        head = self.training.shape.vocab * self.training.shape.dim // self.layout.tp
        grads.append(tape.take("gradients", self._grad_nbytes() * head))
        out = tape.take("temporary", held.stream)
        stream = tape.take("temporary", held.residual)
        tape.give(grad, out, *before, one.inputs.pop())
        if one.casts and formats.autocast:
            tape.give(one.casts.pop(0))
        return stream

    def _grad_nbytes(self) -> int:
        return self.formats.compute if self.layout.fully_sharded else self.formats.gradients

    def _backward_block(self, one: _Pass, index: int, grad: int, *, last: bool) -> int:
        tape, kept = self.tape, one.kept.pop()
        anew: list[list[int]] = [[] for _ in self.ops]
        if self.training.step.recompute != "none":
            missing: list[tuple[int, ...]] = [
                (n,) if (n := max(0, sum(op.saved) - sum(held))) else ()
                for op, held in zip(self.ops, self.kept, strict=True)
            ]
            anew, gone = self._run(missing)
            tape.give(*gone)
        weights = self._gradients_of_block(index)
        for op, held, again in zip(reversed(self.ops), reversed(kept), reversed(anew), strict=True):
            size = sum(op.saved) or self.activations.residual
            inner = tape.take("temporary", min(size, 2 * max((*op.saved, size // 2))))
            tape.give(*held, *again, inner)
        stream = tape.take("temporary", self.activations.residual)
        tape.give(grad)
        if len(one.inputs) > 1:
            tape.give(one.inputs.pop())
        if one.casts:
            tape.give(one.casts.pop())
        self._reshard(index)
        self._reduce(index, weights, last=last)
        return stream

    def _gradients_of_block(self, index: int) -> int | None:
        unit = self.units.all[index]
        if self.layout.fully_sharded:
            return self.tape.take("gradients", self.formats.compute * unit.count)
        return None

    def _reduce(self, index: int, made: int | None, *, last: bool) -> None:
        """Bring the gradients of a unit where they belong."""
        unit, formats = self.units.all[index], self.formats
        if made is None:
            self._hold_gradients(index, unit)
            return
        self._reshard(index)
        if not last:
            if index not in self.waiting:
                self.waiting[index] = self.tape.take("gradients", formats.reduce * unit.count)
            self.tape.give(made)
            return
        if index in self.waiting:
            self.tape.give(made)
            made = self.waiting.pop(index)
        if self.reduce_buffer is not None:
            self.tape.give(self.reduce_buffer)
        buffer = self.tape.take("gathered", formats.reduce * unit.padded, "reduce")
        self.tape.give(made)
        self.reduce_buffer = buffer
        whole = self.tape.take("gradients", formats.reduce * unit.own, "reduce")
        if formats.gradients != formats.reduce:
            cast = self.tape.take("gradients", formats.gradients * unit.own, "reduce")
            self.tape.give(whole)
            whole = cast
        if self.layout.offload:
            self.tape.give(whole)
        else:
            self.gradients.append(whole)

    def _hold_gradients(self, index: int, unit: Unit) -> None:
        """Keep the gradients of a unit that nobody shards, unless they are in buckets."""
        in_buckets = self._in_buckets and (self.formats.bucket_views or self.formats.buffered)
        count = unit.experts if in_buckets else unit.count
        if count and index not in self.waiting:
            held = self.tape.take("gradients", self.formats.gradients * count)
            self.waiting[index] = held
            self.gradients.append(held)

    def _end_of_root(self, grads: list[int], root: int, *, last: bool) -> None:
        """Bring the gradients of head, norm and embedding where they belong."""
        unit = self.units.all[root]
        if self.layout.fully_sharded:
            self.tape.give(*grads)
            whole = self.tape.take("gradients", self.formats.compute * unit.count)
            self._reduce(root, whole, last=last)
        elif self._in_buckets or root in self.waiting:
            self.tape.give(*grads)
            self._hold_gradients(root, unit)
        else:
            self.waiting[root] = -1
            self.gradients += grads
        if last and self.reduce_buffer is not None:
            self.tape.give(self.reduce_buffer)
            self.reduce_buffer = None

    @property
    def _in_buckets(self) -> bool:
        """Whether gradients have buffers of their own that stay."""
        return self.layout.data * self.layout.cp > 1 or self.formats.buffered
