"""The bytes that operations other than matrix products read and write in device memory.

Each term is compared with traces of the recipes: tests/unit/estimate/test_formula_against_trace.py.
"""

from __future__ import annotations

from dataclasses import dataclass

from distrun.estimate.layout import Training
from distrun.estimate.units import Units, units_of
from distrun.estimate.work import Phase

_RING_FORWARD, _RING_BACKWARD = 9, 28
"""How often a ring in matrix products reads or writes the float32 scores of a turn."""
_WHOLE_LOSS, _CUT_LOSS = (2, 4), (10, 10)
"""How often forward and backward of the loss read or write the logits: in one kernel, and in the
separate operations of DTensor's loss_parallel."""


@dataclass(frozen=True)
class Elementwise:
    """The memory traffic of a rank of one stage."""

    training: Training
    stage: int = 0

    def moved(self) -> dict[Phase, int]:
        """Return the bytes that norms, activations, casts, loss and optimizer read and write."""
        step, units = self.training.step, units_of(self.training, self.stage)
        forward, backward = self._block(), self._block(2) + self._sums()
        backward += self._ring(_RING_BACKWARD)
        if step.recompute in ("selective", "alternate", "full"):
            backward += forward
        forward += self._ring(_RING_FORWARD)
        first, second = self._loss(units)
        casts = self._cast_weights(units)
        once = 1 if self.training.layout.pp > 1 else step.accumulate  # a schedule is one autocast
        waiting = (step.accumulate - 1) * 3 * units.total("count") * self.training.formats.gradients
        often, back = units.layers * forward + first, units.layers * backward + second + casts
        return {
            "forward": step.accumulate * often + once * casts,
            "backward": step.accumulate * back + waiting,
            "optimizer": self._updated(units),
        }

    @property
    def _tokens(self) -> int:
        return self.training.step.local_tokens(self.training.layout)

    @property
    def _whole(self) -> int:
        """The residual stream, not cut along the sequence."""
        return self._tokens * self.training.shape.dim * self.training.formats.residual

    @property
    def _narrow(self) -> int:
        """The same as products read it."""
        return self._tokens * self.training.shape.dim * self.training.formats.compute

    def _block(self, often: int = 1) -> int:
        """Return one layer's bytes; backward is twice forward, but for casts and copies."""
        formats, shape, layout = self.training.formats, self.training.shape, self.training.layout
        stream = self._whole // (layout.tp if formats.sequence_parallel else 1)
        wide = shape.ffn // layout.tp * (shape.chosen if shape.experts else 1)
        heads = self._tokens * (shape.queries + shape.keys) // layout.tp * formats.compute
        between = self._tokens * wide * formats.compute
        fused = formats.compiled
        block = (
            10 * stream  # two norms, two sums
            + (0 if shape.positions else (2 if fused else 10) * heads)
            + ((3 if fused else 5) if shape.gated else 2) * between
        )
        return often * block + self._cast_inputs() + self._copies()

    def _cast_inputs(self) -> int:
        """Return the bytes of the casts that autocast makes of each product's input."""
        formats = self.training.formats
        if not formats.autocast or formats.compiled or formats.residual == formats.compute:
            return 0
        inputs = 3 + (2 if self.training.shape.gated else 1)  # q, k, v; gate and up
        return inputs * (self._whole + self._narrow)

    def _cast_weights(self, units: Units) -> int:
        """Return the bytes of the same of weights, and of their gradients in backward."""
        formats = self.training.formats
        if not formats.autocast:
            return 0
        return units.total("products") * (formats.weights + formats.compute)

    @property
    def _is_cut(self) -> bool:
        """Whether DTensor cuts the residual stream along the sequence."""
        formats = self.training.formats
        cut = self.training.layout.tp > 1 and formats.sequence_parallel
        return cut and not formats.gathers_again

    def _copies(self) -> int:
        """Return what DTensor copies around collectives along the sequence, which is not dim 0."""
        return 2 * 2 * (self._whole + self._narrow) if self._is_cut else 0

    def _sums(self) -> int:
        """Return the bytes of the sums of the gradients of q, k, v, gate and up: three of them."""
        return 3 * 3 * self._whole if self._is_cut and not self.training.formats.compiled else 0

    def _ring(self, often: int) -> int:
        """Return the bytes of attention that is written in matrix products, over all turns."""
        step, layout = self.training.step, self.training.layout
        if not self.training.formats.ring_by_hand or layout.cp == 1:
            return 0
        scores = 4 * step.rows * self.training.shape.heads * (step.seq_len // layout.cp) ** 2
        return often * scores * layout.cp

    def _loss(self, units: Units) -> tuple[int, int]:
        """Return the bytes of the loss, forward and backward."""
        formats, tp = self.training.formats, self.training.layout.tp
        if not units.is_last:
            return 0, 0
        logits = self._tokens * self.training.shape.vocab // tp * formats.loss
        cut = tp > 1 and formats.loss_parallel and not formats.gathers_again
        often = _CUT_LOSS if cut and not formats.compiled else _WHOLE_LOSS
        return often[0] * logits, often[1] * logits

    def _updated(self, units: Units) -> int:
        """Return the bytes of clipping and of the update."""
        formats, layout = self.training.formats, self.training.layout
        share = layout.shard if layout.stage == 1 else 1
        each = 2 * formats.weights + 2 * formats.optimizer + formats.gradients
        own = units.total("own")
        return own * each // share + own * 3 * formats.gradients
