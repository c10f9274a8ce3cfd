"""Joins the ranks at a store, and names the ranks that are missing."""

from __future__ import annotations

import errno
import os
import time
from concurrent.futures import Future
from concurrent.futures import TimeoutError as FutureTimeoutError
from datetime import timedelta
from ipaddress import ip_address
from threading import Thread

import torch.distributed as dist
from torch.distributed.distributed_c10d import PrefixStore, Store

from distrun.comm.checked.report import ranks_text
from distrun.comm.errors import JoinError, PortBusyError
from distrun.env import TorchrunEnv
from distrun.listen import listen_at

_HERE, _GONE = "here", "gone"
_LOOK_S = 0.005
_ANSWER_S = 0.5
"""This layer's timeout is this much longer than the store's, whose error says more."""


def open_store(env: TorchrunEnv, timeout_s: float) -> Store:
    """Return the store of the job's ranks.

    Rank 0 hosts it, unless torchrun's agent does; a world of one has it in memory.

    Raises:
        PortBusyError: Rank 0 cannot listen on MASTER_PORT.
        JoinError: This rank cannot reach it within the timeout.
    """
    if env.world_size == 1:
        return dist.HashStore()  # type: ignore[attr-defined] # public all the same
    kept_by_agent = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    address = f"{env.master_addr}:{env.master_port}"
    is_master = env.rank == 0 and not kept_by_agent
    listener = _listener(env) if is_master else None
    try:
        store = _tcp_store(env, timeout_s, is_master=is_master, listener=listener)
    except dist.DistNetworkError as error:
        reason = str(error).splitlines()[0]
        if "EADDRINUSE" in reason or os.strerror(errno.EADDRINUSE) in reason:
            raise _port_is_busy(env) from None
        raise _unreachable(env.rank, address, timeout_s, reason) from None
    except (dist.DistStoreError, RuntimeError) as error:
        raise _unreachable(env.rank, address, timeout_s, str(error).splitlines()[0]) from None
    # A restarted world (by torchrun too) must not read the addresses of the previous one.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return PrefixStore(f"distrun/attempt{attempt}", store)


def _tcp_store(
    env: TorchrunEnv, timeout_s: float, *, is_master: bool, listener: int | None
) -> Store:
    """Make the client of the store, and on its host the server.

    In a separate thread: it waits for ever if another program accepts connections on the port and
        does not answer.
    """
    made: Future[Store] = Future()

    def make() -> None:
        try:
            made.set_result(
                dist.TCPStore(  # type: ignore[attr-defined] # public all the same
                    env.master_addr,
                    env.master_port,
                    env.world_size,
                    is_master=is_master,
                    timeout=timedelta(seconds=timeout_s),
                    wait_for_workers=False,  # its error would name no rank: see `require_all`
                    master_listen_fd=listener,
                )
            )
        except BaseException as error:  # raised where the caller waits
            made.set_exception(error)

    Thread(target=make, daemon=True).start()
    try:
        return made.result(timeout_s + _ANSWER_S)
    except FutureTimeoutError:
        raise RuntimeError("connected, but no answer") from None


def _listener(env: TorchrunEnv) -> int | None:
    """Listen at MASTER_ADDR only; return None where the store must listen at every address.

    A name may resolve to another address on other machines, as a host's own name often does, and an
    address may belong to a router that forwards connections.
    """
    try:
        if env.master_addr != "localhost":
            ip_address(env.master_addr)
        return listen_at(env.master_addr, env.master_port).detach()
    except ValueError:
        return None
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise _port_is_busy(env) from None
        return None


def _port_is_busy(env: TorchrunEnv) -> PortBusyError:
    return PortBusyError(
        f"rank 0 cannot listen at {env.master_addr}:{env.master_port}: another program uses"
        " that port",
        "set MASTER_PORT to another port; `distrun launch` picks a free one",
    )


def _unreachable(rank: int, address: str, timeout_s: float, reason: str) -> JoinError:
    return JoinError(
        f"rank {rank} could not reach the ranks' store at {address} within {timeout_s:g} s"
        f" ({reason[:200]})",
        "rank 0 hosts it: is it running, is MASTER_ADDR its address, is the port open, and not"
        " used by another program?",
    )


def require_all(store: Store, env: TorchrunEnv, timeout_s: float) -> None:
    """Wait until every rank has joined.

    Raises:
        JoinError: Some did not join within the timeout; they are named.
    """
    keys = [f"here/{rank}" for rank in range(env.world_size)]
    deadline = time.monotonic() + timeout_s
    try:
        store.set(keys[env.rank], _HERE)
        while not (store.check(keys) and _all_stay(store, keys)):
            if time.monotonic() > deadline:
                missing = [rank for rank, key in enumerate(keys) if not store.check([key])]
                store.set(keys[env.rank], _GONE)  # ranks that join later must not wait for this one
                break
            time.sleep(_LOOK_S)  # store.wait would print a warning
        else:
            return
    except dist.DistNetworkError as error:
        address = f"{env.master_addr}:{env.master_port}"
        raise _unreachable(env.rank, address, timeout_s, str(error).splitlines()[0]) from None
    what = ranks_text(missing) if missing else "all came, but some gave up earlier"
    raise JoinError(
        f"{len(missing)} of {env.world_size} ranks did not join within {timeout_s:g} s: {what}",
        "are they started, with the same MASTER_ADDR, MASTER_PORT and WORLD_SIZE?",
    )


def _all_stay(store: Store, keys: list[str]) -> bool:
    at_once = store.has_extended_api()  # type: ignore[attr-defined] # the stubs lack it
    found = store.multi_get(keys) if at_once else [store.get(key) for key in keys]
    return _GONE.encode() not in found
