"""Image classification with DDP: a ResNet, augmentation, DistributedSampler, fine-tuning.

    distrun launch recipes/image.py
    distrun launch recipes/image.py --backbone digits.safetensors --freeze 2 --lr 0.02
    distrun launch recipes/image.py --data photos --model resnet18 --backbone resnet18.safetensors
    torchrun --nproc-per-node 2 recipes/image.py

What is new since ddp.py (distrun recipes diff ddp image): the images come through a DataLoader.
DistributedSampler shuffles all N of them, equally on all ranks, and rank r of n takes number r,
r + n, r + 2 n, ... of that order; so step k takes the same images on any number of ranks. Without
set_epoch every epoch would have the order of the first.
--backbone starts from the weights of a safetensors file: one that `distrun recipes export` wrote,
or a published ResNet. --freeze F keeps the first F parts of it (stem, layer1, ...) as they are:
they have no gradient, so DDP does not send them, and SGD keeps no momentum for them.
"""

# /// script
# requires-python = ">=3.10"
# dependencies = ["torch", "numpy", "safetensors", "distrun"]
#
# [tool.distrun]
# strategy = "ddp"
#
# [tool.distrun.verify]
# args = ["--lr", "0.02"]
#
# [tool.distrun.verify.layouts]
# "image 2" = { ranks = 2 }
# "image 4" = { ranks = 4 }
# "image 2, frozen" = { ranks = 2, args = ["--freeze", "2"], alone = ["--freeze", "2"] }
# ///

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import torch
import torch.distributed as dist
from image_data import Images, class_names, open_images
from resnet import MODELS, ResNet, load_backbone
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel
from torch.optim import SGD, Optimizer
from torch.utils.data import DataLoader, DistributedSampler, Subset
from torch.utils.flop_counter import FlopCounterMode

from distrun.train import mesh as meshes
from distrun.train import optim
from distrun.train.checkpoint import Checkpoints
from distrun.train.config import ConfigError, Schedule, TrainConfig, option, parse
from distrun.train.precision import GradScaler, autocast, master_dtype
from distrun.train.progress import Progress
from distrun.train.setup import Place, shorten_timeout, start


@dataclass(frozen=True)
class Config(TrainConfig):
    """The settings; each is a flag."""

    steps: int = option(480, "30 of the digits' are an epoch", 1, 10_000_000)
    batch_size: int = option(48, "images in a step, over all ranks", 1)
    lr: float = option(0.1, "peak learning rate; 0.01 with --backbone", 0, 100)
    warmup_steps: int = option(10, "steps in which the rate rises from 0", 0)
    schedule: Schedule = option("cosine", "how the rate falls after it")
    min_lr: float = option(0.0, "the last rate, as a fraction of --lr", 0, 1)
    momentum: float = option(0.9, "of SGD", 0, 0.999)
    weight_decay: float = option(5e-4, "of SGD", 0)
    model: Literal["tiny", "resnet18", "resnet34"] = option("tiny", "size of the network")
    backbone: str = option("", "safetensors file of the weights to start from")
    freeze: int = option(0, "parts of the backbone that keep their weights", 0, 5)
    data: str = option("", "folder with a directory of images per class; default: digits")
    image_size: int = option(64, "pixels to which images of --data are scaled", 8, 4096)
    shift: int = option(1, "augmentation: move an image by up to so many pixels", 0, 512)
    flip: bool = option(False, "augmentation: mirror images; wrong for digits")
    workers: int = option(0, "DataLoader processes per rank", 0, 64)


def axes(config: Config, world_size: int) -> dict[str, int]:
    """Return the mesh: one axis, of the ranks that see different images."""
    meshes.require_divides("--batch-size", config.batch_size, world_size, "ranks")
    return meshes.sizes(world_size, data=-1)


def require_images(config: Config, world_size: int) -> None:
    """Refuse images and weights that cannot be used before any process group is there."""
    training, _ = open_all(config)
    if len(training) < config.batch_size:
        raise ConfigError(f"--batch-size {config.batch_size}: there are {len(training)} images")
    training[0]
    build_model(config)


def open_all(config: Config) -> tuple[Images, Images]:
    """Return the images for training, which are augmented, and those for the test."""
    return open_images(
        config.data,
        config.image_size,
        master_dtype(config.precision),
        seed=config.seed,
        shift=config.shift,
        flip=config.flip,
    )


def build_model(config: Config) -> ResNet:
    """Build the network, equal for equal seeds: [B, 3, S, S] pixels to [B, classes] logits."""
    torch.manual_seed(config.seed)
    shape, classes = MODELS[config.model], len(class_names(config.data))
    if not config.backbone:
        model = ResNet(shape, classes, batch_norms=False)
    else:
        try:
            tensors = load_file(config.backbone)
            model = ResNet(shape, classes, batch_norms="bn1.running_mean" in tensors)
            load_backbone(model, tensors)
        except (OSError, SafetensorError) as error:
            raise ConfigError(f"--backbone {config.backbone!r} cannot be read: {error}") from None
        except ValueError as error:  # of another size
            text = f"--backbone {config.backbone!r} does not fit --model {config.model}: it {error}"
            raise ConfigError(text) from None
    for stage in model.stages()[: config.freeze]:
        for module in stage:
            module.requires_grad_(False)
    return model.to(master_dtype(config.precision))


def example(config: Config) -> Tensor:
    """Return an input of the model, with which `distrun recipes export` traces it."""
    size = config.image_size if config.data else 8
    return torch.rand(2, 3, size, size)


def parallelize(model: nn.Module, mesh: DeviceMesh, config: Config) -> DistributedDataParallel:
    """Return what starts from rank 0's parameters, and averages the gradients in backward()."""
    # To be wrapped after freezing: DDP looks once for what has a gradient.
    return DistributedDataParallel(model, process_group=mesh.get_group("data"))


def build_optimizer(model: nn.Module, config: Config) -> Optimizer:
    """Return SGD with momentum over what is trained; to be called after `parallelize`."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    decay = config.weight_decay
    return SGD(trained, lr=config.lr, momentum=config.momentum, weight_decay=decay)


def batches(
    config: Config, data: Images, begin: int, place: Place
) -> Iterator[tuple[int, Tensor, Tensor]]:
    """Yield (step, images [B / n, 3, S, S], labels [B / n]) from a step on, of n ranks.

    An epoch has N // B steps: its last images, too few for a batch, sit out.
    """
    sampler: DistributedSampler[tuple[Tensor, int]] = DistributedSampler(
        data, place.world_size, place.rank, shuffle=True, seed=config.seed, drop_last=True
    )
    rows, per_epoch = config.batch_size // place.world_size, len(data) // config.batch_size
    for epoch in range(begin // per_epoch, -(-config.steps // per_epoch)):
        sampler.set_epoch(epoch)  # the order
        data.set_epoch(epoch)  # the augmentation; workers start anew, and see it
        first = max(begin, epoch * per_epoch)
        order = list(sampler)[(first - epoch * per_epoch) * rows :]  # a resumed run skips steps
        loader = DataLoader(
            data,
            batch_size=rows,
            sampler=order,
            num_workers=config.workers,
            drop_last=True,
            pin_memory=place.device.type == "cuda",
            generator=torch.Generator(),  # else it draws from the one that resuming restores
        )
        steps = range(first, min((epoch + 1) * per_epoch, config.steps))
        for step, (images, labels) in zip(steps, loader, strict=False):
            yield step, images.to(place.device), labels.to(place.device)


def loss(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Return the mean over the images of -log p(label): a scalar with a graph."""
    return cross_entropy(model(images), labels)


@torch.no_grad()
def count_correct(model: nn.Module, data: Images, config: Config, place: Place) -> int:
    """Count this rank's images of a split whose largest logit is at their label."""
    # No DistributedSampler: it repeats images until every rank has as many, and counts them twice.
    mine = Subset(data, range(place.rank, len(data), place.world_size))
    count = 0
    for images, labels in DataLoader(mine, config.batch_size, num_workers=config.workers):
        found = model(images.to(place.device)).argmax(dim=1)  # [B, classes] -> [B]
        count += int((found == labels.to(place.device)).sum())
    return count


def flops_of(model: nn.Module, image: Tensor) -> int:
    """Return the arithmetic of forward and backward, which takes about twice as much, for one."""
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        model(image[None])
    return int(3 * counter.get_total_flops())


def train(config: Config, place: Place) -> None:
    """Train, evaluate and save, on each rank."""
    device = place.device
    mesh = place.mesh(axes(config, place.world_size))
    training, test = open_all(config)

    plain = build_model(config).to(device)
    flops = flops_of(plain, training[0][0].to(device))
    model = parallelize(plain, mesh, config)
    optimizer = build_optimizer(model, config)
    scaler = GradScaler(config.precision, device)

    with (
        Checkpoints(config, place, [model], optimizer, scaler) as checkpoints,
        Progress(config, place, flops, unit="samples") as progress,
    ):
        begin = checkpoints.resume()
        for step, images, labels in batches(config, training, begin, place):
            rate = optim.learning_rate(step, config)
            optim.set_learning_rate(optimizer, rate)
            with autocast(config.precision, device):
                step_loss = loss(model, images, labels)
            scaler.scale(step_loss).backward()
            step_loss = step_loss.detach()
            mean_loss = progress.agree(step, step_loss, len(labels), good=checkpoints.last_good)
            scaler.unscale_(optimizer)
            norm = optim.clip_grad_norm(model.parameters(), config.clip)
            progress.require_finite(step, norm)
            scaler.step(optimizer)
            scaler.update()
            optimizer.zero_grad()
            progress.log(step, loss=mean_loss, lr=rate, grad_norm=norm)
            checkpoints.after(step + 1, stop=progress.stop)
            if step == begin:  # all ranks are there: from now on a late one is a lost one
                shorten_timeout()
            progress.leave_if_told()
    # Each rank its slice, no image twice; the slices may differ by one, so counts are summed.
    correct = torch.tensor(count_correct(plain, test, config, place), device=device)
    dist.all_reduce(correct)
    total = len(test)
    place.say(f"test accuracy {100 * correct / total:.1f} % ({correct} of {total})")


def main() -> None:
    """Read the flags, join the other ranks, train."""
    config = parse(Config, axes, require_images)
    with start(config) as place:  # init_process_group, set_device(LOCAL_RANK): train/setup.py
        train(config, place)


if __name__ == "__main__":
    main()
