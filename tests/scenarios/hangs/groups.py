"""Several process groups: who waits in one of them may wait for a rank that waits in another."""

import outside
import torch
import torch.distributed as dist
from torch.distributed.tensor import Replicate, Shard, distribute_tensor


def new_group(job, ranks, name):
    return dist.new_group(ranks, timeout=job.timeout, group_desc=name)


def crossed_order(job):
    """One rank uses two groups of all ranks in the opposite order."""
    a, b = (new_group(job, None, name) for name in ("data", "model"))
    if job.is_mine:
        a, b = b, a
    dist.all_reduce(torch.ones(8), group=a)  # HERE
    dist.all_reduce(torch.ones(8), group=b)


def crossed_pair(job):
    """Two ranks, two groups, opposite order: there is no majority."""
    a, b = (new_group(job, list(job.ranks), name) for name in ("data", "model"))
    if job.is_mine:
        if dist.get_rank() == job.rank:
            a, b = b, a
        dist.all_reduce(torch.ones(8), group=a)  # HERE
        dist.all_reduce(torch.ones(8), group=b)


def ring_of_groups(job):
    """Each rank waits in the group with the next one, which waits in that with its next."""
    n = dist.get_world_size()
    pairs = [new_group(job, [r, (r + 1) % n], f"pair{r}") for r in range(n)]
    me = dist.get_rank()
    dist.all_reduce(torch.ones(8), group=pairs[me])  # HERE
    dist.all_reduce(torch.ones(8), group=pairs[me - 1])


def group_of_one_half(job):
    """Only the ranks chosen wait in a group that others are not in."""
    half = new_group(job, [0, 1], "half")
    if job.is_mine:
        outside.sleep()
    if dist.get_rank() < 2:
        dist.all_reduce(torch.ones(8), group=half)  # WAIT


def new_group_on_some(job):
    if job.is_mine:
        dist.new_group(timeout=job.timeout)  # HERE


def new_group_without_one(job):
    if not job.is_mine:
        dist.new_group(timeout=job.timeout)  # WAIT


def mesh_of(size=2):
    return dist.init_device_mesh(
        "cpu", (dist.get_world_size() // size, size), mesh_dim_names=("dp", "tp")
    )


def row_of_a_mesh(job):
    """The neighbour waits in tp, the column of that one in dp, and so on."""
    mesh = mesh_of()
    if job.is_mine:
        outside.sleep()
    dist.all_reduce(torch.ones(8), group=mesh.get_group("tp"))  # WAIT
    dist.all_reduce(torch.ones(8), group=mesh.get_group("dp"))  # WAIT


def row_left_out(job):
    """One rank forgets the group of its row: it is with the many in the default group."""
    mesh = mesh_of()
    if not job.is_mine:
        dist.all_reduce(torch.ones(8), group=mesh.get_group("tp"))  # HERE


def crossed_mesh(job):
    """Two ranks, in other rows and columns, reduce over dp before tp: a ring of four."""
    mesh = mesh_of()
    names = ("dp", "tp") if job.is_mine else ("tp", "dp")
    for name in names:
        dist.all_reduce(torch.ones(8), group=mesh.get_group(name))  # HERE


def whole_tensor_on_one(job):
    mesh = dist.init_device_mesh("cpu", (dist.get_world_size(),))
    x = distribute_tensor(torch.ones(8, 4), mesh, [Shard(0)])
    if job.is_mine:
        x.full_tensor()  # HERE


def redistribute_on_one(job):
    mesh = mesh_of()["tp"]
    x = distribute_tensor(torch.ones(8, 4), mesh, [Shard(0)])
    if job.is_mine:
        x.redistribute(mesh, [Replicate()]).to_local().sum().item()  # HERE


def pipeline(job):
    """Each stage waits for the one before it."""
    x, me = torch.ones(8), dist.get_rank()
    if job.is_mine:
        outside.sleep()
    if me > 0:
        dist.recv(x, me - 1)  # WAIT
    if me < dist.get_world_size() - 1:
        dist.send(x, me + 1)  # WAIT
