"""The rendezvous port that the user named must be free."""

from __future__ import annotations

from distrun.errors import MachineError


def check_port(port: int, problem: str) -> None:
    """Refuse a port that cannot be had; another one is never taken instead.

    Args:
        port: What `--master-port` names.
        problem: What is wrong with it (`probe.host.port_problem`), "" if nothing.

    Raises:
        MachineError: It is in use, or reserved.
    """
    if problem:
        raise MachineError(
            f"--master-port {port} {problem}", "leave --master-port out, and a free one is taken"
        )
