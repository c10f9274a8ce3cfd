"""Carries the three streams of a program on a node that has dialed in, as ssh does.

    python -m distrun.nodes.dial.relay SOCKET NODE COMMAND [ARGUMENT …]

It ends with 255, and a line of words, if the node is not there, or leaves.
"""

from __future__ import annotations

import os
import socket
import sys
import threading
from contextlib import suppress

from distrun.wire import encoded, message_in

_NBYTES = 1 << 16
_LOST = 255
"""As ssh ends when a connection is lost (ssh(1))."""


def main() -> None:
    """Ask the hub for the program, and carry its streams until it ends."""
    path, number, *argv = sys.argv[1:]
    hub = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        hub.connect(path)
        hub.sendall(encoded({"node": int(number), "argv": argv}))
        said, fds, _, _ = socket.recv_fds(hub, 4096, 2)
    except OSError as error:
        _give_up(f"the head does not answer: {error.strerror}")
    if len(fds) != 2:
        problem = (message_in(said.strip()) or {}).get("problem")
        _give_up(str(problem or "the head has ended"))
    talk, words = fds
    threading.Thread(target=_until_hub_ends, args=(hub, number), daemon=True).start()
    threading.Thread(target=_commands, args=(talk,), daemon=True).start()
    of_words = threading.Thread(target=_copy, args=(words, 2), daemon=True)
    of_words.start()
    _copy(talk, 1)
    of_words.join()
    os._exit(0)  # threads wait in reads


def _copy(source: int, target: int) -> None:
    with suppress(OSError):
        while data := os.read(source, _NBYTES):
            view = memoryview(data)
            while view:
                view = view[os.write(target, view) :]


def _commands(talk: int) -> None:
    _copy(0, talk)
    with suppress(OSError), socket.socket(fileno=os.dup(talk)) as stream:
        stream.shutdown(socket.SHUT_WR)  # the program's standard input ends


def _until_hub_ends(hub: socket.socket, number: str) -> None:
    with suppress(OSError):
        hub.recv(1)
    _give_up(f"node {number} has left")


def _give_up(why: str) -> None:
    os.write(2, f"{why}\n".encode())
    os._exit(_LOST)


if __name__ == "__main__":
    main()
