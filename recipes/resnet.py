"""A ResNet, https://arxiv.org/abs/1512.03385, whose tensors have the names of the published files.

conv1, bn1, layer1.0.conv1, ..., fc: a safetensors file of a ResNet-18 or -34, as torchvision and
timm name its tensors, loads as it is. Shapes: B images of 3 colours, S x S pixels, C channels.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import batch_norm, relu


@dataclass(frozen=True)
class ResNetConfig:
    """The shape of a model."""

    widths: tuple[int, ...]
    """Channels of each layer; each but the first halves S."""
    blocks: tuple[int, ...]
    """Blocks of each layer, of two convolutions each."""
    small_images: bool = False
    """A first convolution of 3 x 3 that keeps S; else 7 x 7 and a pooling, which leave S / 4."""


MODELS = {
    "tiny": ResNetConfig((16, 32, 64), (1, 1, 1), small_images=True),  # 78 k parameters
    "resnet18": ResNetConfig((64, 128, 256, 512), (2, 2, 2, 2)),  # 11.2 M without fc
    "resnet34": ResNetConfig((64, 128, 256, 512), (3, 4, 6, 3)),  # 21.3 M
}
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Of the colours of ImageNet: what the published weights were trained with."""


class KeptStatistics(nn.BatchNorm2d):
    """BatchNorm with the mean and variance of the pretraining: [B, C, S, S] -> the same shape.

    In training, BatchNorm takes them from the images of its own rank: other numbers on another
    number of ranks. SyncBatchNorm asks all ranks instead, twice a layer, and only on GPUs.
    """

    def forward(self, x: Tensor) -> Tensor:
        assert self.running_mean is not None and self.running_var is not None
        return batch_norm(x, self.running_mean, self.running_var, self.weight, self.bias)


def norm(channels: int, batch_norms: bool) -> nn.Module:
    """Return a norm whose result for an image does not depend on the others of its batch."""
    # GroupNorm: mean and variance of 8 channels of one image (https://arxiv.org/abs/1803.08494)
    return KeptStatistics(channels) if batch_norms else nn.GroupNorm(channels // 8, channels)


class Block(nn.Module):
    """Two convolutions beside a residual path: [B, C, S, S] -> [B, C', S / stride, S / stride]."""

    def __init__(self, inside: int, outside: int, stride: int, batch_norms: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, padding=1, bias=False)
        self.bn1 = norm(outside, batch_norms)
        self.conv2 = nn.Conv2d(outside, outside, 3, padding=1, bias=False)
        self.bn2 = norm(outside, batch_norms)
        self.downsample: nn.Module = nn.Identity()
        if stride > 1 or inside != outside:  # the residual path has to have the new shape
            narrow = nn.Conv2d(inside, outside, 1, stride, bias=False)
            self.downsample = nn.Sequential(narrow, norm(outside, batch_norms))

    def forward(self, x: Tensor) -> Tensor:
        y = relu(self.bn1(self.conv1(x)))
        return relu(self.bn2(self.conv2(y)) + self.downsample(x))


class ResNet(nn.Module):
    """Images [B, 3, S, S] of 0..1 to logits [B, classes]; any S."""

    mean: Tensor
    std: Tensor

    def __init__(self, config: ResNetConfig, classes: int, *, batch_norms: bool) -> None:
        super().__init__()
        kernel, stride = (3, 1) if config.small_images else (7, 2)
        width = config.widths[0]
        self.conv1 = nn.Conv2d(3, width, kernel, stride, padding=kernel // 2, bias=False)
        self.bn1 = norm(width, batch_norms)
        self.maxpool = nn.Identity() if config.small_images else nn.MaxPool2d(3, 2, padding=1)
        self.layers = [f"layer{i + 1}" for i in range(len(config.widths))]
        for i, name in enumerate(self.layers):
            parts = []
            for block in range(config.blocks[i]):
                stride = 2 if i and not block else 1
                parts.append(Block(width, config.widths[i], stride, batch_norms))
                width = config.widths[i]
            self.add_module(name, nn.Sequential(*parts))
        self.fc = nn.Linear(width, classes)
        # Not persistent: no published file has them.
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = (x - self.mean) / self.std
        h = self.maxpool(relu(self.bn1(self.conv1(x))))  # [B, C, S, S], or S / 4
        for name in self.layers:
            h = self.get_submodule(name)(h)
        return self.fc(h.mean(dim=(2, 3)))  # type: ignore[no-any-return] # [B, C] -> [B, classes]

    def stages(self) -> list[list[nn.Module]]:
        """Return the parts of the backbone from input to output: the stem, then each layer."""
        return [[self.conv1, self.bn1], *([self.get_submodule(name)] for name in self.layers)]


def load_backbone(model: ResNet, tensors: Mapping[str, Tensor]) -> bool:
    """Copy a file's tensors into a model; return whether `fc` was among them.

    A classifier of another number of classes stays as it was drawn.

    Raises:
        ValueError: A tensor is missing, or has another shape.
    """
    fc = [name for name in ("fc.weight", "fc.bias") if name in tensors]
    own = model.state_dict()
    keeps_fc = len(fc) == 2 and all(tensors[name].shape == own[name].shape for name in fc)
    for name, tensor in own.items():
        if name.startswith("fc.") and not keeps_fc:
            continue
        if name.endswith("num_batches_tracked"):
            continue  # BatchNorm counts with it, and nothing here uses it
        if name not in tensors:
            raise ValueError(f"has no tensor {name}")
        if (found := tensors[name].shape) != tensor.shape:
            raise ValueError(f"has {name} as {list(found)}, not {list(tensor.shape)}")
        tensor.copy_(tensors[name])
    return keeps_fc
