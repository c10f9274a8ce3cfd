"""What can be said of the files in docker/ without building anything."""

from __future__ import annotations

from tests.cluster.containers import ROOT

CPUS, GPUS = (
    (ROOT / "docker" / name).read_text().splitlines() for name in ("Dockerfile", "Dockerfile.cuda")
)
_OF_CPUS = (
    *("torch for CPUs", "docker build", "index of torch's wheels without CUDA"),
    *("ARG TORCH_INDEX=", "DISTRUN_GRACE="),
)


def test_the_image_for_gpus_is_made_as_the_one_for_cpus_but_for_torch() -> None:
    """The one for GPUs is too large for these tests: what holds for one has to hold for both."""
    only_of_cpus = [line for line in CPUS if line not in GPUS]
    assert [line for line in only_of_cpus if not any(each in line for each in _OF_CPUS)] == []
    assert len([line for line in GPUS if line not in CPUS]) <= 12


def test_what_is_built_from_is_all_that_a_build_is_sent() -> None:
    sent = {
        line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] == "!"
    }
    copied = {
        word.removeprefix("./")
        for line in CPUS
        if line.startswith("COPY") and "--from" not in line
        for word in line.split()[1:-1]
        if not word.startswith("--")
    }
    assert sent == copied


def test_no_layer_above_the_packages_changes_them() -> None:
    """A change of code makes the small layers anew, not the large one."""
    large = CPUS.index("COPY --from=packages /opt/distrun /opt/distrun")
    assert not any(
        "distrun ./distrun" in line for line in CPUS[: CPUS.index("FROM packages AS project")]
    )
    assert CPUS[large + 1] == "COPY --from=project /project /opt/distrun"
