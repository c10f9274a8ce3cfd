"""The rendezvous port that the user named must be free."""

from __future__ import annotations

from distrun.errors import MachineError


def check_port(port: int, holder: str | None) -> None:
    """Refuse a port that somebody listens on; another one is never taken instead.

    Args:
        port: What `--master-port` names.
        holder: Who listens on it (`probe.host.port_holder`), None if nobody.

    Raises:
        MachineError: It is in use.
    """
    if holder is None:
        return
    by = f" ({holder})" if holder else ""
    raise MachineError(
        f"--master-port {port} is in use by another process{by}",
        "leave --master-port out, and a free one is taken",
    )
