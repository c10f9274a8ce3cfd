"""Traffic takes as long as links, NICs and measured curves say."""

from __future__ import annotations

import pytest

from distrun.estimate.kinds import KINDS
from distrun.estimate.network import Cluster, Curve, nearest, strides
from distrun.estimate.work import Collective

H100 = KINDS["h100"]


def _gather(group_size: int, nbytes: int = 1 << 30) -> Collective:
    return Collective("all_gather", "shard", group_size, nbytes, 1, "forward")


def test_neighbours_of_an_axis_are_as_far_apart_as_the_axes_inside_it() -> None:
    mesh = {"pp": 2, "shard": 4, "tp": 8}
    assert strides(mesh) == {"world": 1, "tp": 1, "shard": 8, "pp": 32}


@pytest.mark.parametrize(
    ("group_size", "stride", "together"),
    [(8, 1, 8), (64, 1, 8), (8, 8, 1), (16, 4, 2), (4, 2, 4), (2, 8, 1)],
)
def test_ranks_of_a_group_in_one_node(group_size: int, stride: int, together: int) -> None:
    assert Cluster(H100, 8, 8).together(group_size, stride) == together


def test_a_group_that_fills_its_nodes_has_all_their_nics() -> None:
    cluster = Cluster(H100, 8, 8)
    full, one = cluster.busbw(64, 1), cluster.busbw(8, 8)
    assert full == pytest.approx(8 * 50e9 * 0.85)  # 340 GB/s: below NVLink's 370
    assert one == pytest.approx(50e9 * 0.85)
    assert cluster.busbw(8, 1) == H100.link_bytes_per_s


def test_a_group_over_nodes_takes_longer_than_one_inside_a_node() -> None:
    cluster = Cluster(H100, 8, 8)
    assert cluster.time_s(_gather(8), 8) > 5 * cluster.time_s(_gather(8), 1)


CURVE = Curve("all_gather", 8, 1, ((1 << 10, 1e-5), (1 << 20, 1e-4), (1 << 30, 1e-2)))


@pytest.mark.parametrize(
    ("nbytes", "time_s"),
    [(1, 1e-5), (1 << 10, 1e-5), (1 << 20, 1e-4), (1 << 25, 1e-3), (1 << 31, 2e-2)],
)
def test_a_curve_is_read_between_its_points_and_beyond_its_last_rate(
    nbytes: int, time_s: float
) -> None:
    assert CURVE.time_s(nbytes) == pytest.approx(time_s)


def test_the_nearest_curve_is_of_the_same_op_and_the_same_side_of_the_node() -> None:
    outside = Curve("all_gather", 16, 2, CURVE.points)
    larger = Curve("all_gather", 256, 32, CURVE.points)
    curves = (CURVE, outside, larger)
    assert nearest(curves, "all_gather", 4, 1) is CURVE
    assert nearest(curves, "all_gather", 32, 4) is outside
    assert nearest(curves, "all_gather", 512, 64) is larger
    assert nearest(curves, "all_reduce", 8, 1) is None


def test_a_measured_curve_comes_before_the_links() -> None:
    measured = Cluster(H100, 1, 8, (CURVE,))
    assert measured.time_s(_gather(8), 1) == pytest.approx(1e-2)
    assert Cluster(H100, 1, 8).time_s(_gather(8), 1) < 5e-3
