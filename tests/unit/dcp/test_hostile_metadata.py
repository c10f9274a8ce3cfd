"""Nothing that a `.metadata` holds is executed, and what is not DCP's is refused in one line."""

from __future__ import annotations

import copy
import enum
import json
import os
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.distributed.checkpoint.filesystem import _StorageInfo
from torch.distributed.checkpoint.metadata import (
    BytesStorageMetadata,
    ChunkStorageMetadata,
    Metadata,
    MetadataIndex,
    StorageMeta,
    TensorProperties,
    TensorStorageMetadata,
)

from distrun.dcp.choose import newest_good
from distrun.dcp.metadata import METADATA, CheckpointError, read_metadata
from distrun.dcp.storage import sha256
from tests.unit.dcp import load_checkpoint, save_checkpoint

TENSOR = torch.arange(12.0).reshape(3, 4)
NAME = "model.weight"
DCP = "torch.distributed.checkpoint.metadata"


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    path = tmp_path / "step-00000002"
    save_checkpoint(tmp_path / "step-00000001", 1, {NAME: TENSOR})
    save_checkpoint(path, 2, {NAME: TENSOR})
    return path


def put(path: Path, content: bytes) -> None:
    """Write a `.metadata` as somebody does who can hash it too."""
    (path / METADATA).write_bytes(content)
    manifest = json.loads((path / "manifest.json").read_text())
    entry = {"sha256": sha256(path / METADATA), "nbytes": len(content)}
    manifest["files"][METADATA] = entry
    (path / "manifest.json").write_text(json.dumps(manifest))


# --- pickles by hand ---------------------------------------------------------------------


def text(word: str) -> bytes:
    return b"\x8c" + bytes([len(word)]) + word.encode()


def named(module: str, name: str) -> bytes:
    """Push module.name, whether or not such a thing is there."""
    return text(module) + text(name) + b"\x93"


def called(module: str, name: str, *arguments: bytes) -> bytes:
    return named(module, name) + b"(" + b"".join(arguments) + b"tR"


def whole(*parts: bytes) -> bytes:
    return b"\x80\x04" + b"".join(parts) + b"."


class Harm:
    """Pickles as a call."""

    def __init__(self, function: Callable[..., object], *args: object) -> None:
        self._call = function, args

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self._call


def harmful(target: Path) -> dict[str, bytes]:
    word, mkdir = str(target), text(str(target))
    index = named(DCP, "MetadataIndex")
    return {
        "os.system": pickle.dumps(Harm(os.system, f"touch {word}"), 4),
        "os.system, protocol 0": pickle.dumps(Harm(os.system, f"touch {word}"), 0),
        "os.system, protocol 2": pickle.dumps(Harm(os.system, f"touch {word}"), 2),
        "open": pickle.dumps(Harm(open, word, "w"), 4),
        "pathlib": pickle.dumps(Harm(Path.touch, target), 4),
        "eval": pickle.dumps(Harm(eval, f"open({word!r}, 'w')"), 4),
        "inside of the metadata": pickle.dumps(Metadata({}, Harm(os.mkdir, word)), 4),
        "torch.load": whole(called("torch", "load", mkdir)),
        "a dotted name": whole(called("torch", "serialization.os.mkdir", mkdir)),
        "through DCP's module": whole(called(DCP, "os.mkdir", mkdir)),
        "through a class": whole(called(DCP, "Metadata.__init__.__globals__", mkdir)),
        "getattr of a class": whole(called("builtins", "getattr", index, text("__init__"))),
        "getattr of a module": whole(
            called("builtins", "getattr", called("builtins", "__import__", text("os")), mkdir)
        ),
        "a call of a class": whole(called(DCP, "MetadataIndex", mkdir)),
        "a call of a dtype": whole(called("torch", "float32", mkdir)),
        "a call of a text": whole(mkdir, b")R"),
        "an extension": whole(b"\x82\x01"),
        "a persistent id": b"\x80\x04" + b"Pharm\n.",
        "an old instance": b"\x80\x02(ios\nmkdir\n.",
        "an old object": whole(b"(" + index + mkdir + b"o"),
        "arguments for a new object": whole(index + mkdir + b"\x85\x81"),
        "a new object with keywords": whole(index + b")}\x92"),
        "a field of a class": whole(index, b"}", text("fqn"), text("harm"), b"sb"),
        "a slot of a class": whole(index, b"N}", text("__eq__"), text("harm"), b"s\x86b"),
        "a field of a dtype": whole(named("torch", "float32"), b"}", text("x"), b"Nsb"),
        "a field of torch.Size": whole(named("torch", "Size"), b"}", text("make"), b"Nsb"),
        "a name that is none": whole(b"]]\x93"),
    }


@pytest.mark.parametrize("kind", harmful(Path("x")))
def test_a_call_is_refused_and_not_made(saved: Path, kind: str) -> None:
    target = saved.parent / "harm"
    before = {**vars(MetadataIndex)}, {**vars(torch.Size)}
    put(saved, harmful(target)[kind])
    require_passed_over(saved, "is not the metadata of a checkpoint: ")
    assert not target.exists()
    assert ({**vars(MetadataIndex)}, {**vars(torch.Size)}) == before


def require_passed_over(path: Path, said: str) -> None:
    found, problems = newest_good([path.with_name("step-00000001"), path])
    assert found == path.with_name("step-00000001")
    assert len(problems) == 1 and "\n" not in problems[0] and len(problems[0]) < 600
    assert str(path / METADATA) in problems[0] and said in problems[0]


# --- bytes that are no pickle, or a large one ------------------------------------------------

MUCH = 1 << 62
BROKEN = {
    "nothing": (b"", "it is not a pickle"),
    "garbage": (b"garbage", "it is not a pickle"),
    "no value": (whole(), "ends before"),
    "no end": (b"\x80\x04N", "it is not a pickle"),
    "two values": (whole(b"NN"), "ends before"),
    "an open mark": (whole(b"(N"), "ends before"),
    "more behind the end": (whole(b"N") + b"N", "1 bytes follow its end"),
    "another object": (pickle.dumps({"a": 1}, 4), "it holds a dict"),
    "no fields": (whole(named(DCP, "Metadata"), b")\x81"), "ends before"),
    "nothing to take": (whole(b"\x85"), "more values than there are"),
    "below a mark": (whole(b"N(\x85"), "more values than there are"),
    "no mark": (whole(b"t"), "it is not a pickle"),
    "an odd dict": (whole(b"}(Nu"), "it is not a pickle"),
    "a key that is none": (whole(b"}]Ns"), "a key is a list"),
    "a key without fields": (
        whole(b"}", named(DCP, "MetadataIndex"), b")\x81Ns"),
        "a key is a MetadataIndex",
    ),
    "items of a text": (whole(text("x"), b"Na"), "it adds to a str"),
    "a far memo": (whole(b"j" + b"\xff" * 4), "it is not a pickle"),
    "a large memo": (whole(b"Nr" + b"\xff\xff\xff\x7f"), "it holds LONG_BINPUT"),
    "a long text": (whole(b"X" + (5000).to_bytes(4, "little") + b"x" * 5000), "BINUNICODE"),
    "a surrogate": (whole(b"\x8c\x03\xed\xa0\x80"), "it is not a pickle"),
    "a text of many GB": (whole(b"\x8d" + MUCH.to_bytes(8, "little")), "it is not a pickle"),
    "bytes of many GB": (whole(b"\x8e" + MUCH.to_bytes(8, "little")), "it is not a pickle"),
    "a bytearray of many GB": (whole(b"\x96" + MUCH.to_bytes(8, "little")), "it is not a pickle"),
    "a frame of many GB": (whole(b"\x95" + MUCH.to_bytes(8, "little") + b"N"), "it holds a None"),
    "a wide int": (whole(b"\x8a\x09" + b"\x7f" * 9), "it holds LONG1"),
    "an int of many GB": (whole(b"\x8b\xff\xff\xff\x7f"), "it is not a pickle"),
    "deep lists": (whole(b"]" * 1_000_000 + b"a" * 999_999), "it nests deeper"),
    "deep tuples": (whole(b"N" + b"\x85" * 1_000_000), "it holds a tuple"),
    "deep marks": (whole(b"(" * 1_000_000), "it nests deeper"),
    "deep tuples as a key": (whole(b"}N" + b"\x85" * 1_000_000 + b"Ns"), "a key is a tuple"),
    "a billion laughs": (
        whole(b"]\x94", *(b"](h%ch%ce\x94" % (i, i) for i in range(100))),
        "ends before",
    ),
    "itself": (whole(b"]\x94h\x00a"), "it holds a list"),
}  # fmt: skip


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_no_metadata_is_refused_in_one_line(saved: Path, kind: str) -> None:
    content, said = BROKEN[kind]
    (saved / METADATA).write_bytes(content)
    with pytest.raises(CheckpointError, match="is not the metadata of a checkpoint: ") as refused:
        read_metadata(saved)
    assert said in str(refused.value)


def test_no_prefix_of_a_metadata_and_no_changed_byte_does_more_than_be_refused(saved: Path) -> None:
    good = (saved / METADATA).read_bytes()
    contents = [good[:end] for end in range(0, len(good), 7)]
    contents += [good[:i] + bytes([good[i] ^ 0x55]) + good[i + 1 :] for i in range(len(good))]
    for content in contents:
        (saved / METADATA).write_bytes(content)
        try:
            assert isinstance(read_metadata(saved), Metadata)  # of another name, say
        except CheckpointError:
            pass


def test_a_metadata_too_long_for_its_tensors_is_refused_before_it_is_read(saved: Path) -> None:
    put(saved, b"x" * 100_000)
    require_passed_over(saved, "is too long for")
    os.truncate(saved / METADATA, 1 << 40)  # takes no space
    with pytest.raises(CheckpointError, match="bytes, the limit is"):
        read_metadata(saved)


GROWS = r"""
import resource
from pathlib import Path
from distrun.dcp.metadata import CheckpointError, read_metadata
pages = int(Path("/proc/self/statm").read_text().split()[0])  # torch's libraries, CUDA's too
limit = pages * resource.getpagesize() + (1 << 30)
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
Path("step-1").mkdir()
for content in (
    b"\x80\x04Nr\xff\xff\xff\x7f.",
    b"\x80\x04\x8e\xff\xff\xff\x7f\0\0\0\0.",
    b"\x80\x04]\x94" + b"](h\0h\0e\x94" * 500_000 + b".",
):
    Path("step-1/.metadata").write_bytes(content)
    try:
        read_metadata(Path("step-1"))
    except CheckpointError:
        print("refused")
"""


def test_no_pickle_takes_more_memory_than_in_proportion_to_its_length(tmp_path: Path) -> None:
    child = subprocess.run(
        [sys.executable, "-c", GROWS],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[3]), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert child.stdout == "refused\n" * 3, child.stderr


# --- the right classes with wrong contents ------------------------------------------------


def metadata(**changes: Any) -> Metadata:
    """Return what describes `TENSOR`, with some of it changed."""
    size, index = TENSOR.shape, MetadataIndex(NAME, torch.Size([0, 0]))
    described = TensorStorageMetadata(
        TensorProperties(dtype=torch.float32),
        changes.pop("size", size),
        changes.pop("chunks", [ChunkStorageMetadata(torch.Size([0, 0]), size)]),
    )
    info = _StorageInfo(changes.pop("file", "rank-00000.safetensors"), 0, 0)
    for name in ("offset", "length"):
        setattr(info, name, changes.pop(name, 0))
    fields = {
        "state_dict_metadata": {NAME: described},
        "planner_data": {NAME: (NAME,)},
        "storage_data": {index: info},
        "storage_meta": StorageMeta(),
    }
    return Metadata(**{**fields, **changes})


def chunk(offsets: object, sizes: object) -> list[ChunkStorageMetadata]:
    return [ChunkStorageMetadata(offsets, sizes)]  # type: ignore[arg-type]


def size(*numbers: int) -> torch.Size:
    return torch.Size(numbers)


HUGE = 1 << 62
WRONG: dict[str, tuple[Callable[[], Metadata], str]] = {
    "a size that is a text": (lambda: metadata(size="wide"), "TensorStorageMetadata.size is a str"),
    "a negative size": (lambda: metadata(size=size(3, -4)), "a size holds -4"),
    "two negative sizes": (lambda: metadata(size=size(-3, -4)), "a size holds -3"),
    "a size of a text": (
        lambda: metadata(size=Harm(torch.Size, ("3", 4))),
        "a size holds a str",
    ),
    "a size of no number": (lambda: metadata(size=Harm(torch.Size, (None,))), "holds a NoneType"),
    "a size of many": (lambda: metadata(size=size(*[1] * 65)), "more than 64 dimensions"),
    "a huge size": (lambda: metadata(size=size(HUGE, HUGE)), "with 12 of its"),
    "a huge chunk": (
        lambda: metadata(size=size(HUGE, 4), chunks=chunk(size(0, 0), size(HUGE, 4))),
        "bytes, and should hold",
    ),
    "a huge offset": (lambda: metadata(chunks=chunk(size(HUGE, 0), size(3, 4))), "beyond it"),
    "a negative offset": (lambda: metadata(chunks=chunk(size(-1, 0), size(3, 4))), "holds -1"),
    "a chunk too large": (lambda: metadata(chunks=chunk(size(0, 0), size(3, 5))), "beyond it"),
    "a chunk too small": (lambda: metadata(chunks=chunk(size(0, 0), size(3, 3))), "with 9 of"),
    "a flat chunk": (lambda: metadata(chunks=chunk(size(0), size(12))), "of other dimensions"),
    "no chunk": (lambda: metadata(chunks=[]), "with 0 of its 12"),
    "chunks of None": (lambda: metadata(chunks=[None]), "TensorStorageMetadata.chunks is a list"),
    "chunks of a tuple": (lambda: metadata(chunks=()), "TensorStorageMetadata.chunks is a tuple"),
    "offsets of None": (lambda: metadata(chunks=chunk(None, size(3, 4))), ".offsets is a NoneType"),
    "a negative storage offset": (lambda: metadata(offset=-1), "_StorageInfo.offset is a int"),
    "a storage offset of a text": (lambda: metadata(offset="0"), "_StorageInfo.offset is a str"),
    "a storage length of a truth": (lambda: metadata(length=True), "_StorageInfo.length is a bool"),
    "a file outside": (lambda: metadata(file="../x"), "which is outside of it"),
    "a file of a number": (lambda: metadata(file=5), "_StorageInfo.relative_path is a int"),
    "no tensors": (lambda: metadata(state_dict_metadata=None), "is a NoneType"),
    "a tensor of bytes": (
        lambda: metadata(state_dict_metadata={NAME: BytesStorageMetadata()}),
        "BytesStorageMetadata', which is not among its classes",
    ),
    "a tensor that is none": (
        lambda: metadata(state_dict_metadata={NAME: StorageMeta()}),
        "Metadata.state_dict_metadata is a dict, which is not valid there",
    ),
    "places of a list": (lambda: metadata(storage_data=[]), "Metadata.storage_data is a list"),
    "no places": (lambda: metadata(storage_data={}), "does not place each chunk"),
    "paths of paths": (lambda: metadata(planner_data={NAME: ((1,),)}), "planner_data is a dict"),
    "a field too many": (lambda: vary(metadata(), harm=1), "the fields of a Metadata"),
    "an index of a text": (
        lambda: metadata(storage_data={MetadataIndex(NAME, size(0, 0), "x"): None}),  # type: ignore[arg-type]
        "MetadataIndex.index is a str",
    ),
}  # fmt: skip


def vary(value: Metadata, **fields: object) -> Metadata:
    varied = copy.copy(value)
    vars(varied).update(fields)
    return varied


@pytest.mark.parametrize("kind", WRONG)
def test_a_lie_in_the_right_form_is_passed_over(saved: Path, kind: str) -> None:
    make, said = WRONG[kind]
    put(saved, pickle.dumps(make(), 4))
    found, problems = newest_good([saved.with_name("step-00000001"), saved])
    assert found == saved.with_name("step-00000001")
    assert len(problems) == 1 and "\n" not in problems[0] and said in problems[0]


# --- what is right is read ---------------------------------------------------------------


def test_every_field_is_read_as_pythons_own_unpickler_reads_it(saved: Path) -> None:
    assert read_metadata(saved) == pickle.loads((saved / METADATA).read_bytes())


def test_dtypes_scalars_and_empty_tensors_are_read(tmp_path: Path) -> None:
    state = {
        str(dtype): torch.zeros(2, dtype=dtype)
        for dtype in (torch.bool, torch.int8, torch.bfloat16, torch.float8_e4m3fn)
    } | {"scalar": torch.tensor(2.5), "empty": torch.zeros(0, 4), "größe": torch.ones(1)}
    save_checkpoint(tmp_path / "step-1", 1, state)
    assert newest_good([tmp_path / "step-1"]) == (tmp_path / "step-1", [])
    expected = pickle.loads((tmp_path / "step-1" / METADATA).read_bytes())
    assert read_metadata(tmp_path / "step-1") == expected


def test_five_thousand_tensors_take_no_containers_beyond_the_limit(tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "step-1", 1, {f"t{i}": torch.ones(()) for i in range(5000)})
    path, problems = newest_good([tmp_path / "step-1"])
    assert not problems and path is not None
    assert len(read_metadata(path).state_dict_metadata) == 5000


class AsPython3112(pickle.Pickler):
    """Pickles an enum by its name, as Python 3.11.0 to 3.11.3 do."""

    def reducer_override(self, value: object) -> Any:
        if isinstance(value, enum.Enum):
            return getattr, (type(value), value.name)
        return NotImplemented


def test_what_python_3_11_2_wrote_is_read(saved: Path) -> None:
    expected = read_metadata(saved)
    with open(saved / METADATA, "wb") as file:
        AsPython3112(file, 4).dump(expected)
    assert b"getattr" in (saved / METADATA).read_bytes()
    assert read_metadata(saved) == expected


def test_torchs_own_list_of_safe_classes_stays_as_it_was(saved: Path) -> None:
    before = torch.serialization.get_safe_globals(), torch.load
    found = {NAME: torch.zeros(3, 4)}
    load_checkpoint(saved, found)
    assert found[NAME].equal(TENSOR)
    assert (torch.serialization.get_safe_globals(), torch.load) == before
