"""The request of `bench-comm`, and the report that it writes and reads."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from distrun.bandwidth import DEFINITIONS
from distrun.errors import UsageError, did_you_mean

SCHEMA = 1
OPS = (*DEFINITIONS, "barrier", "pairs", "stragglers")
"""`all` means the ops with rows, so not the last two."""
REDOPS = ("sum", "mean", "prod", "max", "min")
ITEM_NBYTES = {
    "float32": 4,
    "float64": 8,
    "float16": 2,
    "bfloat16": 2,
    "int8": 1,
    "uint8": 1,
    "int32": 4,
    "int64": 8,
}
"""dtype -> bytes per element."""
_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}
_MAX_SIZES = 200
_LONGEST_S = 86400.0 * 7
_OPTIONS = {
    "iterations": ("-n", "from 1 to 5000"),
    "warmup": ("-w", "from 0 to 1000"),
    "budget_s": ("--budget", "seconds, up to 7 days"),
    "timeout_s": ("--timeout", "seconds, up to 7 days"),
    "mode": ("--mode", "latency or throughput"),
    "backend": ("--backend", "gloo or nccl"),
    "overlap": ("--overlap", "matmul"),
}
"""Field -> the option that sets it, and its values."""


class Strict(BaseModel):
    """An immutable model without extra fields."""

    model_config = ConfigDict(extra="forbid", frozen=True)


def _nbytes(value: object) -> object:
    """Parse 8, 64K, 1.5MiB: K, M and G are powers of 1024, as in nccl-tests."""
    if not isinstance(value, str):
        return value
    found = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([KMG]?)(?:i?B)?", value.strip(), re.IGNORECASE)
    if not found:
        raise UsageError(f"{value!r} is not a size", "for example 8, 64K, 1M or 2G")
    if len(found[1]) > 15:
        raise UsageError(f"{value:.20}… is not a size", "for example 8, 64K, 1M or 2G")
    return int(float(found[1]) * _UNITS[found[2].upper()])


Nbytes = Annotated[int, BeforeValidator(_nbytes)]


class BenchRequest(Strict):
    """What to measure; passed to the ranks as JSON."""

    ops: tuple[str, ...]
    sizes: tuple[int, ...]
    dtype: str = "float32"
    redop: str = "sum"
    root: int = 0
    places: tuple[Literal["out", "in"], ...] = ("out", "in")
    mode: Literal["latency", "throughput"] = "latency"
    iterations: int = Field(default=20, ge=1, le=5000)
    warmup: int = Field(default=5, ge=0, le=1000)
    check: bool = True
    budget_s: float = Field(default=30.0, gt=0, le=_LONGEST_S)
    backend: Literal["gloo", "nccl"] | None = None
    timeout_s: float = Field(default=60.0, gt=0, le=_LONGEST_S)
    overlap: Literal["matmul"] | None = None


def ops_of(text: str) -> tuple[str, ...]:
    """Return the ops of `all` or `a,b`.

    Raises:
        UsageError: One of them does not exist.
    """
    names = OPS[:-2] if text == "all" else tuple(name.strip() for name in text.split(","))
    for name in names:
        if name not in OPS:
            raise UsageError(f"--op {name!r} cannot be measured", did_you_mean(name, OPS))
    return tuple(dict.fromkeys(names))


def sizes_of(begin: str, end: str, factor: float, listed: str | None) -> tuple[int, ...]:
    """Return sizes in bytes: those listed, or from begin to end, each `factor` times the previous.

    Raises:
        UsageError: They are invalid.
    """
    if listed is not None:
        sizes = [_size(part) for part in listed.split(",")]
    else:
        first, last = _size(begin), _size(end)
        if first > last:
            raise UsageError(f"-b {begin} is above -e {end}", f"-b {end} -e {begin}")
        if not 1 < factor < float("inf"):
            raise UsageError(f"-f {factor:g} must be above 1 and finite", "-f 2 doubles each size")
        sizes = [first]
        while (larger := max(sizes[-1] + 1, round(sizes[-1] * factor))) <= last:
            sizes.append(larger)
            if len(sizes) > _MAX_SIZES:
                raise UsageError(
                    f"-b {begin} -e {end} -f {factor:g} makes more than {_MAX_SIZES} sizes", "-f 2"
                )
    return tuple(dict.fromkeys(sizes))


def _size(text: str) -> int:
    size = _nbytes(text)
    assert isinstance(size, int)  # _nbytes has parsed a text, or raised
    if size < 1:
        raise UsageError(f"size {text!r} is below 1 byte", "-b 8")
    return size


def request_of(**values: Any) -> BenchRequest:
    """Return a request whose parts are compatible.

    Raises:
        UsageError: A value is invalid, or two are incompatible.
    """
    dtype, redop = values["dtype"], values["redop"]
    if dtype.startswith("float8"):
        raise UsageError(
            f"--dtype {dtype}: gloo has no 8-bit floats, and c10d rounds partial sums of them",
            "--dtype uint8 sends as many bytes",
        )
    if dtype not in ITEM_NBYTES:
        raise UsageError(f"--dtype {dtype!r} cannot be measured", did_you_mean(dtype, ITEM_NBYTES))
    redop = {"avg": "mean", "product": "prod"}.get(redop, redop)
    if redop not in REDOPS:
        raise UsageError(f"--redop {redop!r} is not a reduction", did_you_mean(redop, REDOPS))
    if redop == "mean" and "float" not in dtype:
        raise UsageError(
            f"--redop mean of {dtype} is no {dtype}", "--redop sum, or --dtype float32"
        )
    smallest = min(values["sizes"], default=0)
    if smallest < ITEM_NBYTES[dtype]:
        raise UsageError(
            f"size {smallest} holds no element of {dtype}, which has {ITEM_NBYTES[dtype]} bytes",
            f"-b {ITEM_NBYTES[dtype]}",
        )
    try:
        return BenchRequest(**{**values, "redop": redop})
    except ValidationError as error:
        first = error.errors()[0]
        option, takes = _OPTIONS.get(str(first["loc"][0]), (str(first["loc"][0]), ""))
        raise UsageError(f"{option} {first['input']!r} cannot be", takes) from None


class Definition(Strict):
    """How the size and the bandwidth of an op are defined."""

    size: str
    busbw_factor: str


class RankPlace(Strict):
    """The node and the device of a rank."""

    rank: int
    node: int
    host: str
    device: str
    pid: int | None = None
    """None in reports of older versions, as the two below."""
    local_rank: int | None = None
    pci_id: str = ""


class WrongElements(Strict):
    """The wrong elements of one rank."""

    rank: int
    count: int
    first_index: int
    source: int | None
    """The rank that the first one came from; None: from all ranks."""


class Overlap(Strict):
    """A row measured beside a matmul. Losses are fractions of the speed that each has alone."""

    p50_s: float
    collective_loss: float
    matmul_loss: float


class Row(Strict):
    """One op, at one size, in or out of place. Times in seconds, bandwidths in bytes per second."""

    op: str
    place: Literal["out", "in"]
    nbytes: int
    count: int
    dtype: str
    redop: str | None
    root: int | None
    iterations: int
    min_s: float = Field(gt=0)
    p50_s: float = Field(gt=0)
    p95_s: float = Field(gt=0)
    p99_s: float | None
    max_s: float = Field(gt=0)
    mad_s: float
    cv: float
    noisy: bool
    repeated: bool
    algbw: float | None
    busbw: float | None
    best_busbw: float | None
    wire: float | None
    wrong: list[WrongElements] | None
    """None: not checked."""
    overlap: Overlap | None
    host_p50_s: float | None
    """On a GPU: p50 by the host's clock; the others are by CUDA events."""
    times_s: list[float]

    @property
    def key(self) -> tuple[object, ...]:
        """What must be equal to compare two rows."""
        return self.op, self.place, self.nbytes, self.dtype, self.redop

    @property
    def wrong_count(self) -> int:
        """The number of wrong elements on all ranks."""
        return sum(each.count for each in self.wrong or ())


class OpModel(Strict):
    """The model T = alpha + S / bytes_per_s of an op."""

    op: str
    alpha_s: float
    bytes_per_s: float
    half_nbytes: float
    error: float


class Skipped(Strict):
    """A row that was left out."""

    op: str
    nbytes: int
    why: str


class PairLink(Strict):
    """A link between two nodes, or ranks."""

    a: int
    b: int
    time_s: float
    bandwidth: float
    measured_alone: bool


class Suspect(Strict):
    """A node, a rank or a link that is slower than the others."""

    kind: Literal["node", "rank", "link"]
    who: list[int]
    factor: float


class Pairs(Strict):
    """All pairs, measured with messages of `nbytes`."""

    over: Literal["node", "rank"]
    nbytes: int
    links: list[PairLink]
    suspects: list[Suspect]


class Stragglers(Strict):
    """How long each rank waited for the others."""

    waits_s: list[float]
    late: int | None
    by_s: float | None


class BenchReport(Strict):
    """The results of one `bench-comm`."""

    schema_version: Literal[1] = Field(alias="schema")
    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)
    started_at: float
    complete: bool
    """False: it was interrupted, or a rank was lost; only the finished rows are there."""
    backend: str
    world_size: int
    nnodes: int
    ranks: list[RankPlace]
    versions: dict[str, str]
    environment: dict[str, str]
    """Only the variables NCCL_*, GLOO_* and TORCH_NCCL_*."""
    definitions: dict[str, Definition]
    request: BenchRequest
    rows: list[Row]
    models: list[OpModel]
    skipped: list[Skipped]
    pairs: Pairs | None
    stragglers: Stragglers | None


def read_report(path: Path) -> BenchReport:
    """Read a report.

    Raises:
        UsageError: It cannot be read, or is not a report of this version.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not text"
        raise UsageError(f"{path} cannot be read: {why}", "check its name") from None
    try:
        return BenchReport.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise UsageError(
            f"{path} is not a report of bench-comm: {where + ': ' if where else ''}{first['msg']}",
            "distrun bench-comm -o FILE.json writes one",
        ) from None
