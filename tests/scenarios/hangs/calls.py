"""Calls that do not match: the ranks chosen call one thing, the others another."""

import os

import outside
import torch
import torch.distributed as dist


def barrier_on_some(job):
    if job.is_mine:
        dist.barrier()  # HERE


def other_collective(job):
    x = torch.ones(8)
    if job.is_mine:
        dist.all_gather(everyone(x), x)  # HERE
    else:
        dist.all_reduce(x)  # WAIT


def swapped(job):
    x = torch.ones(8)
    if job.is_mine:
        dist.all_gather(everyone(x), x)  # HERE
        dist.all_reduce(x)
    else:
        dist.all_reduce(x)  # WAIT
        dist.all_gather(everyone(x), x)


def everyone(x):
    return [torch.empty_like(x) for _ in range(dist.get_world_size())]


def other_root(job):
    source = job.rank if job.is_mine else 0
    dist.broadcast(torch.ones(1 << 20), source)  # HERE


def other_op(job):
    dist.all_reduce(torch.ones(8), dist.ReduceOp.MAX if job.is_mine else dist.ReduceOp.SUM)


def other_shape(job):
    dist.all_reduce(torch.ones(4000 if job.is_mine else 40))  # HERE


def other_dtype(job):
    dist.all_reduce(torch.ones(40, dtype=torch.int32 if job.is_mine else torch.float32))


def other_width(job):
    dist.all_reduce(torch.ones(4000, dtype=torch.float64 if job.is_mine else torch.float32))  # HERE


def send_alone(job):
    if job.is_mine:
        dist.send(torch.ones(8), 0)  # HERE


def receive_alone(job):
    if job.is_mine:
        dist.recv(torch.ones(8), 0)  # HERE


def receive_without_wait(job):
    if job.is_mine:
        work = dist.irecv(torch.ones(8), 0)
        work.wait()  # HERE


def receive_from_each_other(job):
    if job.is_mine:
        dist.recv(torch.ones(8), sum(job.ranks) - dist.get_rank())  # HERE


def ring_of_sends(job):
    dist.send(torch.ones(8), (dist.get_rank() + 1) % dist.get_world_size())  # HERE
    dist.recv(torch.ones(8))


def exchange_with_one_that_sleeps(job):
    if job.is_mine:
        outside.sleep()
    elif dist.get_rank() == (job.rank + 1) % dist.get_world_size():
        operations = [
            dist.P2POp(dist.isend, torch.ones(8), job.rank),
            dist.P2POp(dist.irecv, torch.ones(8), job.rank),
        ]
        for work in dist.batch_isend_irecv(operations):
            work.wait()  # WAIT


def wait_for_a_handle(job):
    if job.is_mine:
        outside.sleep()
    dist.all_reduce(torch.ones(8), async_op=True).wait()  # WAIT


def gather_without_one(job):
    """Only the destination waits in it: the others send and go on."""
    if job.is_mine:
        outside.sleep()
    x = torch.ones(8)
    dist.gather(x, everyone(x) if dist.get_rank() == 0 else None)  # WAIT


def broadcast_from_one_that_sleeps(job):
    if job.is_mine:
        outside.sleep()
    dist.broadcast(torch.ones(8), job.rank)  # WAIT


def objects_of_all(job):
    if job.is_mine:
        outside.sleep()
    dist.all_gather_object([None] * dist.get_world_size(), {"rank": dist.get_rank()})  # WAIT


def objects_from_one(job):
    if job.is_mine:
        outside.sleep()
    dist.broadcast_object_list([None], job.rank)  # WAIT


def barrier_of_all(job):
    if job.is_mine:
        outside.sleep()
    dist.barrier()  # WAIT


def monitored_barrier(job):
    if job.is_mine:
        outside.sleep()
    dist.monitored_barrier()  # WAIT


def all_to_all(job):
    if job.is_mine:
        outside.sleep()
    x = torch.ones(dist.get_world_size())
    dist.all_to_all_single(torch.empty_like(x), x)  # WAIT


def store_key_that_nobody_sets(job):
    if job.is_mine:
        dist.distributed_c10d._get_default_store().get("learning rate")  # HERE


def barrier_in_except(job):
    try:
        if job.is_mine:
            raise ValueError("a broken row")  # HERE
    except ValueError as error:
        print(f"rank {dist.get_rank()} goes on after {error}")
        dist.barrier()


def barrier_in_finally(job):
    try:
        if job.is_mine:
            raise ValueError("a broken row")  # HERE
        dist.all_reduce(torch.ones(8))  # WAIT
    finally:
        dist.barrier()


def swallowed(job):
    """Torch's own error is swallowed: the rank goes on to another call."""
    if job.is_mine:
        try:
            dist.all_reduce(torch.ones(8).to_sparse().coalesce().to("meta"))
        except Exception:
            os.environ["HAS_FAILED"] = "1"
        dist.broadcast(torch.ones(8), 0)  # HERE
    else:
        dist.all_reduce(torch.ones(8))  # WAIT
