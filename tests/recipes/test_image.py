"""The image recipe: what it learns, what it reads, and the same training on any number of ranks."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn.functional import batch_norm, conv2d, max_pool2d, relu

from distrun.train.config import parse
from tests.recipes.curves import Case, curves
from tests.recipes.launching import RECIPES, run_python, torchrun

Recipe = Callable[[str], ModuleType]
FEW = ("--steps", 3, "--batch-size", 8, "--log-every", 1)
pytestmark = pytest.mark.timeout(240)


def test_the_digits_are_learned_to_more_than_97_percent(tmp_path: Path) -> None:
    run = torchrun(tmp_path, 2, RECIPES / "image.py", "--steps", 150)
    assert run.code == 0, run.err
    assert run.accuracy > 0.97
    assert "Traceback" not in run.err and "Warning" not in run.err


@pytest.mark.usefixtures("warm_ranks")
def test_any_number_of_ranks_trains_alike_and_a_resumed_run_goes_on_inside_an_epoch(
    tmp_path: Path,
) -> None:
    exact = {"precision": "float64", "lr": 0.02, "batch_size": 240, "shift": 1}  # 6 steps an epoch
    exact |= {"steps": 9}
    saving = {"save": True, "checkpoint_dir": str(tmp_path), "checkpoint_every": 4, "keep": 9}
    again = exact | {"resume": str(tmp_path / "step-00000004")}
    frozen = exact | {"freeze": 2}
    one = curves([Case("all", "image", exact), Case("frozen", "image", frozen)], 1)
    cases = [Case("all", "image", exact | saving), Case("resumed", "image", again)]
    two = curves([*cases, Case("frozen", "image", frozen)], 2)
    for name, curve in one.items():
        assert curve.losses == pytest.approx(two[name].losses, abs=1e-12)
        assert curve.norms == pytest.approx(two[name].norms, rel=1e-10)
    assert one["all"].losses != one["frozen"].losses
    assert two["resumed"].losses == pytest.approx(one["all"].losses[4:], abs=1e-12)


TWO_EPOCHS = f"""
import sys
sys.path.insert(0, {str(RECIPES)!r})
import image

for shift in (0, 1):
    config = image.Config(batch_size=240, steps=12, shift=shift)  # 6 steps are an epoch
    with image.start(config) as place:
        batches = image.batches(config, image.open_all(config)[0], 0, place)
        rows = [row.numpy().tobytes() for _, images, _ in batches for row in images]
    first, second = rows[:1440], rows[1440:]
    print(len(second), first != second, sorted(first) == sorted(second))
"""


def test_every_epoch_has_each_image_once_in_another_order_and_moved_otherwise(
    tmp_path: Path,
) -> None:
    run = run_python(tmp_path, "-c", TWO_EPOCHS)
    assert run.code == 0, run.err
    without, shifted = (line for line in run.out.splitlines() if line.startswith("1440"))
    assert without == "1440 True True"
    assert shifted == "1440 True False"


def test_training_starts_from_a_backbone_and_leaves_its_frozen_part_alone(
    recipe: Recipe, tmp_path: Path
) -> None:
    image, resnet = recipe("image"), recipe("resnet")
    torch.manual_seed(7)
    before = resnet.ResNet(resnet.MODELS["tiny"], 10, batch_norms=False).state_dict()
    save_file(before, tmp_path / "tiny.safetensors")
    words = (*FEW, "--backbone", "tiny.safetensors", "--freeze", 2, "--checkpoint-dir", "kept")
    run = run_python(tmp_path, RECIPES / "image.py", *words)
    assert run.code == 0, run.err
    after = load_file(tmp_path / "kept" / "step-00000003" / "rank-00000.safetensors")
    frozen = ("conv1", "bn1", "layer1")
    for name, tensor in before.items():
        (found,) = (t for key, t in after.items() if key.startswith(f"model.{name}"))
        assert found.reshape(tensor.shape).equal(tensor) == name.startswith(frozen), name
    assert not [key for key in after if key.startswith("optim.layer1")]
    assert image.Config().freeze == 0


# --- published weights ------------------------------------------------------------------


def published_resnet18(classes: int) -> dict[str, Tensor]:
    """Return random weights under the names of a published ResNet-18."""
    draw = torch.Generator().manual_seed(3)
    found: dict[str, Tensor] = {}

    def conv(name: str, *shape: int) -> None:
        found[f"{name}.weight"] = torch.randn(shape, generator=draw) * 0.05

    def bn(name: str, channels: int) -> None:
        for part in ("weight", "bias", "running_mean", "running_var"):
            found[f"{name}.{part}"] = torch.rand(channels, generator=draw) + 0.5
        found[f"{name}.num_batches_tracked"] = torch.tensor(5)

    conv("conv1", 64, 3, 7, 7)
    bn("bn1", 64)
    inside = 64
    for layer, width in enumerate((64, 128, 256, 512), 1):
        for block in (0, 1):
            name = f"layer{layer}.{block}"
            conv(f"{name}.conv1", width, inside, 3, 3)
            conv(f"{name}.conv2", width, width, 3, 3)
            bn(f"{name}.bn1", width)
            bn(f"{name}.bn2", width)
            if inside != width:
                conv(f"{name}.downsample.0", width, inside, 1, 1)
                bn(f"{name}.downsample.1", width)
            inside = width
    conv("fc", classes, 512)
    return found | {"fc.bias": torch.randn(classes, generator=draw)}


def resnet18(x: Tensor, w: Mapping[str, Tensor]) -> Tensor:
    """Compute what the paper says, in evaluation mode, by torch's functions alone."""

    def bn(y: Tensor, name: str) -> Tensor:
        parts = ("running_mean", "running_var", "weight", "bias")
        return batch_norm(y, *(w[f"{name}.{part}"] for part in parts))

    h = max_pool2d(relu(bn(conv2d(x, w["conv1.weight"], stride=2, padding=3), "bn1")), 3, 2, 1)
    for layer in (1, 2, 3, 4):
        for block in (0, 1):
            name = f"layer{layer}.{block}"
            stride = 2 if layer > 1 and block == 0 else 1
            y = conv2d(h, w[f"{name}.conv1.weight"], stride=stride, padding=1)
            y = conv2d(relu(bn(y, f"{name}.bn1")), w[f"{name}.conv2.weight"], padding=1)
            if f"{name}.downsample.0.weight" in w:
                narrow = conv2d(h, w[f"{name}.downsample.0.weight"], stride=stride)
                h = bn(narrow, f"{name}.downsample.1")
            h = relu(bn(y, f"{name}.bn2") + h)
    return h.mean((2, 3)) @ w["fc.weight"].T + w["fc.bias"]


def test_a_published_resnet18_computes_what_it_was_trained_to(recipe: Recipe) -> None:
    resnet = recipe("resnet")
    weights = published_resnet18(classes=5)
    model = resnet.ResNet(resnet.MODELS["resnet18"], 5, batch_norms=True)
    assert resnet.load_backbone(model, weights)
    assert model.state_dict().keys() == weights.keys()
    x = torch.rand(2, 3, 64, 64)
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (resnet.MEAN, resnet.STD))
    expected = resnet18((x - mean) / std, weights)
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-4)
    other = resnet.ResNet(resnet.MODELS["resnet18"], 3, batch_norms=True)
    drawn = other.fc.weight.clone()
    assert not resnet.load_backbone(other, weights), "its classifier has another number of classes"
    assert other.fc.weight.equal(drawn)
    assert other.conv1.weight.equal(weights["conv1.weight"])


# --- a folder of images -----------------------------------------------------------------

CLASSES = ("red apples", "green; $(pears)", "blue\nones")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Images of three classes with names that no shell likes, of several sizes and formats."""
    image = pytest.importorskip("PIL.Image")
    drawn = np.random.default_rng(0)
    for label, name in enumerate(CLASSES):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(10):
            pixels = drawn.integers(0, 60, (9 + i, 12, 3), dtype=np.uint8)
            pixels[..., label] += 180
            file = tmp_path / "photos" / name / f"{i}.{('png', 'JPG', 'ppm')[i % 3]}"
            image.fromarray(pixels).save(file)
    (tmp_path / "photos" / CLASSES[0] / "notes.txt").write_text("not an image")
    return tmp_path / "photos"


def test_a_folder_of_images_is_learned_and_every_image_is_in_one_split(
    recipe: Recipe, photos: Path, tmp_path: Path
) -> None:
    words = ("--data", photos, "--image-size", 16, "--batch-size", 12, "--flip", "--workers", 1)
    run = run_python(tmp_path, RECIPES / "image.py", *words, "--steps", 24, "--log-every", 1)
    assert run.code == 0, run.err
    assert run.accuracy == 1
    data = recipe("image_data")
    train_files, test_files = data._files(str(photos))
    files = [file for file, _ in (*train_files, *test_files)]
    assert len(files) == len(set(files)) == 30 and len(test_files) == 6
    assert {file.parent.name: label for file, label in test_files} == {
        name: label for label, name in enumerate(sorted(CLASSES))
    }


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ("--data nowhere", "--data 'nowhere' is no folder"),
        ("--data .", "--data: '.' needs a directory per class, and has ['photos']"),
        ("--data photos --batch-size 48", "--batch-size 48: there are 24 images"),
        ("--backbone gone.st", "--backbone 'gone.st' cannot be read: No such file or directory"),
        ("--backbone text.st", "--backbone 'text.st' cannot be read: "),
        ("--backbone 18.st", "does not fit --model tiny: it has conv1.weight as [64, 3, 7, 7]"),
        ("--backbone part.st", "does not fit --model tiny: it has no tensor conv1.weight"),
        ("--freeze 6", "--freeze must be at most 5, not 6"),
    ],
)
def test_what_cannot_be_trained_on_is_refused_in_a_sentence(
    recipe: Recipe,
    photos: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    flags: str,
    message: str,
) -> None:
    monkeypatch.chdir(photos.parent)
    Path("text.st").write_text("no tensors in here")
    save_file({"conv1.weight": torch.zeros(64, 3, 7, 7)}, "18.st")
    save_file({"other": torch.zeros(1)}, "part.st")
    image = recipe("image")
    with pytest.raises(SystemExit) as ending:
        parse(image.Config, image.axes, image.require_images, words=flags.split())
    assert ending.value.code == 2
    assert message in capsys.readouterr().err.splitlines()[-1]


def test_a_file_that_is_no_image_is_named(recipe: Recipe, photos: Path) -> None:
    broken = photos / CLASSES[0] / "0.png"
    broken.write_bytes(broken.read_bytes()[:40])
    data = recipe("image_data")
    images, _ = data.open_images(str(photos), 8, torch.float32, seed=0, shift=0, flip=False)
    with pytest.raises(ValueError, match=r"0\.png") as error:
        [images[i] for i in range(len(images))]
    assert os.fspath(photos) in str(error.value)
