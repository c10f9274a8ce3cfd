"""How the ranks find one another: the store, and who is missing."""

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
"""So much later than the store's own timeout, which says more, this layer gives up."""


def open_store(env: TorchrunEnv, timeout_s: float) -> Store:
    """Return the store at which the ranks of the job meet.

    Rank 0 keeps it, unless torchrun's agent does; a world of one has it in memory.

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
    # A world that was restarted, by torchrun too, must not read the addresses of the last.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return PrefixStore(f"distrun/attempt{attempt}", store)


def _tcp_store(
    env: TorchrunEnv, timeout_s: float, *, is_master: bool, listener: int | None
) -> Store:
    """Make the store's client, and on its master the server.

    In a thread of its own: it waits for ever for an answer from a program that accepts
    connections at the port, and says nothing.
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
                    wait_for_workers=False,  # that would name nobody: see `require_all`
                    master_listen_fd=listener,
                )
            )
        except BaseException as error:  # raised where the caller waits
            made.set_exception(error)

    Thread(target=make, daemon=True).start()
    try:
        return made.result(timeout_s + _ANSWER_S)
    except FutureTimeoutError:
        raise RuntimeError("connected, and no answer") from None


def _listener(env: TorchrunEnv) -> int | None:
    """Listen at MASTER_ADDR alone; None where the store has to listen at every address.

    A name may be another address on other machines, as a host's own name often is, and an
    address may be a router's, which passes connections on.
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
        f"rank 0 cannot listen at {env.master_addr}:{env.master_port}: another program has that"
        " port",
        "MASTER_PORT=… another; `distrun launch` takes a free one by itself",
    )


def _unreachable(rank: int, address: str, timeout_s: float, reason: str) -> JoinError:
    return JoinError(
        f"rank {rank} could not reach the ranks' store at {address} within {timeout_s:g} s"
        f" ({reason[:200]})",
        "rank 0 keeps it: is it running, is MASTER_ADDR its address, is the port open, and"
        " nobody else's?",
    )


def require_all(store: Store, env: TorchrunEnv, timeout_s: float) -> None:
    """Wait until every rank has come.

    Raises:
        JoinError: Some did not within the timeout; they are named.
    """
    keys = [f"here/{rank}" for rank in range(env.world_size)]
    deadline = time.monotonic() + timeout_s
    try:
        store.set(keys[env.rank], _HERE)
        while not (store.check(keys) and _all_stay(store, keys)):
            if time.monotonic() > deadline:
                missing = [rank for rank, key in enumerate(keys) if not store.check([key])]
                store.set(keys[env.rank], _GONE)  # who comes later must not count on this rank
                break
            time.sleep(_LOOK_S)  # store.wait would print a warning of its own
        else:
            return
    except dist.DistNetworkError as error:
        address = f"{env.master_addr}:{env.master_port}"
        raise _unreachable(env.rank, address, timeout_s, str(error).splitlines()[0]) from None
    what = ranks_text(missing) if missing else "the others came, and did not wait so long"
    raise JoinError(
        f"{len(missing)} of {env.world_size} ranks did not join within {timeout_s:g} s: {what}",
        "are they started, with the same MASTER_ADDR, MASTER_PORT and WORLD_SIZE?",
    )


def _all_stay(store: Store, keys: list[str]) -> bool:
    at_once = store.has_extended_api()  # type: ignore[attr-defined] # the stubs lack it
    found = store.multi_get(keys) if at_once else [store.get(key) for key in keys]
    return _GONE.encode() not in found
