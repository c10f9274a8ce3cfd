"""Receives a project on a node, for `launch --sync`.

Nothing is deleted, and nothing is written outside of the directory, neither by a name nor through
a link. The messages:

    what it gets                                    what it answers
    {"into": "/home/ada/job", "workdir": "…",       {"wanted": [0, 7], "rsync": true},
     "from": […], "files": [[name, …], …]}          or {"here": true}: it is the same directory
    {"tar": true}, and an archive whose members     {"done": true}, or {"problem": "…"}
    have the numbers of the wanted files as names
    {"tar": false}: rsync has brought them          the same
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import tarfile
import threading
import time
from pathlib import Path
from typing import Any

from distrun.agent.received_file import ReceivedFile, Refused
from distrun.identity import directory_id
from distrun.silence import BEAT_S
from distrun.wire import BEAT_LINE, Message, encoded, greet


def main() -> None:
    """Receive one project."""
    for signum in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(signum, lambda *_: sys.exit(1))  # so that the file in work is removed
    greet(1)
    threading.Thread(target=_beat, daemon=True).start()
    try:
        answer = _receive()
    except Refused as why:
        answer = {"problem": str(why)}
    except OSError as error:
        where = f"{os.fsdecode(error.filename)!r}: " if error.filename else ""
        answer = {"problem": f"{where}{error.strerror or error}"}
    except (tarfile.TarError, EOFError):
        answer = {"problem": "the connection ended before the last file"}
    _write(BEAT_LINE + encoded(answer))


def _receive() -> Message:
    order = _message()
    if same_directory(order["from"], order["into"]):
        return {"here": True}
    for directory in (order["into"], order["workdir"]):
        Path(directory).mkdir(parents=True, exist_ok=True)
    root = Path(order["into"]).resolve()
    files = [ReceivedFile(root, *each) for each in order["files"]]
    wanted = [at for at, file in enumerate(files) if file.differs()]
    rsync = shutil.which("rsync") is not None
    _write(BEAT_LINE + encoded({"wanted": wanted, "rsync": rsync, "into": str(root)}))
    by_archive = _message()["tar"]
    if by_archive:
        _take_archive({at: files[at] for at in wanted if not files[at].is_link})
    for at in wanted:
        files[at].finish()
    return {"done": True}


def _take_archive(awaited: dict[int, ReceivedFile]) -> None:
    with tarfile.open(fileobj=sys.stdin.buffer, mode="r|") as archive:
        for member in archive:
            content = archive.extractfile(member)
            if content is None:
                raise Refused(f"{member.name!r} is no file")
            awaited.pop(int(member.name)).write(content)
    if awaited:
        raise EOFError


def _message() -> Message:
    line = sys.stdin.buffer.readline()
    if not line.endswith(b"\n"):
        raise EOFError
    message: Message = json.loads(line)
    return message


def same_directory(sent: list[Any], path: str) -> bool:
    """Return whether the project is sent onto itself."""
    return bool(sent) and sent == directory_id(Path(path))


def _beat() -> None:
    while True:
        time.sleep(BEAT_S)
        _write(BEAT_LINE)


def _write(data: bytes) -> None:
    try:
        os.write(1, data)
    except OSError:
        os._exit(1)  # nobody reads any more


if __name__ == "__main__":
    main()
