"""A hostfile in every dialect, and where exactly it is wrong."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distrun.errors import UsageError
from distrun.spec.hostfile import hosts_in, read_hostfile
from distrun.spec.hosts import HostSpec
from tests.unit.spec.test_hosts import HOSTS


def refusal(data: str | bytes) -> UsageError:
    with pytest.raises(UsageError) as refused:
        hosts_in(data.encode() if isinstance(data, str) else data, "hosts.txt")
    return refused.value


@pytest.mark.parametrize(
    ("line", "host"),
    [
        ("a", HostSpec(name="a")),
        ("  a  ", HostSpec(name="a")),
        ("a slots=4", HostSpec(name="a", slots=4)),
        ("a\t\tslots=4\t", HostSpec(name="a", slots=4)),
        ("a slots = 4", HostSpec(name="a", slots=4)),
        ("a slots=4 max_slots=8", HostSpec(name="a", slots=4)),
        ("a max-slots=8", HostSpec(name="a")),
        ("a:4", HostSpec(name="a", slots=4)),
        ("10.0.0.1:4", HostSpec(name="10.0.0.1", slots=4)),
        ("ada@a:4", HostSpec(name="a", user="ada", slots=4)),
        ("[2001:db8::1]:4", HostSpec(name="2001:db8::1", slots=4)),
        ("2001:db8::1", HostSpec(name="2001:db8::1")),
        ("a port=2222 user=ada", HostSpec(name="a", user="ada", port=2222)),
        ("a python=/opt/x#1/bin/python", HostSpec(name="a", python="/opt/x#1/bin/python")),
        ("a python=/opt/a=b/python", HostSpec(name="a", python="/opt/a=b/python")),
        ("a address=10.0.0.2", HostSpec(name="a", address="10.0.0.2")),
        ("a address=[fe80::1%eth0]", HostSpec(name="a", address="fe80::1%eth0")),
        ("a slots=4 # fast", HostSpec(name="a", slots=4)),
        ("a #slots=x", HostSpec(name="a")),
        ("a\r", HostSpec(name="a")),
        ("a slots=4\r", HostSpec(name="a", slots=4)),
    ],
)
def test_every_dialect_is_read(line: str, host: HostSpec) -> None:
    assert hosts_in(line.encode(), "hosts.txt") == (host,)


def test_a_whole_file_is_read_in_its_order() -> None:
    text = "\ufeff# the rack\r\n\r\nb slots=4\r\n\t\r\n  # spares\r\nn[01-02]:2 port=22\r\na"
    found = hosts_in(text.encode(), "hosts.txt")
    assert [(host.label, host.slots) for host in found] == [
        *(("b", 4), ("n01:22", 2), ("n02:22", 2), ("a", None)),
    ]


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ("a\nb\nnode01 slots=x", "hosts.txt:3:8: 'slots=x' is not a number of ranks", ""),
        ("a slots=", "hosts.txt:1:3: 'slots=' is not a number of ranks", ""),
        ("a slots=-1", "hosts.txt:1:3: 'slots=-1' is not a number of ranks", ""),
        ("a slots=0", "hosts.txt:1:3: 'slots=0' is not a number of ranks from 1 to 1024", ""),
        ("a slots=" + "9" * 5000, "is not a number of ranks", ""),
        ("a max_slots=x", "hosts.txt:1:3: 'max_slots=x' is not a number of ranks", ""),
        ("a:", "hosts.txt:1:1: 'a:' is not a number of ranks", ""),
        (
            "a:2222",
            "'a:2222' is not a number of ranks from 1 to 1024",
            "for example slots=4; port=",
        ),
        ("a port=x", "hosts.txt:1:3: 'port=x' is not a port number", ""),
        ("a port=65536", "hosts.txt:1:3: 'port=65536' is not a port from 1 to 65535", ""),
        ("a 4", "hosts.txt:1:3: '4' is not KEY=VALUE", ""),
        ("a b", "hosts.txt:1:3: 'b' is not KEY=VALUE", ""),
        ("\u00e9", "hosts.txt:1:1: '\u00e9' is not a host name: it holds '\u00e9'", ""),
        ("a slot=4", "hosts.txt:1:3: unknown key 'slot'", "did you mean 'slots'?"),
        ("a prot=22", "hosts.txt:1:3: unknown key 'prot'", "did you mean 'port'?"),
        ("a ifname=ib0", "hosts.txt:1:3: unknown key 'ifname'", ""),
        ("a name=b", "hosts.txt:1:3: unknown key 'name'", ""),
        ("a slots=1 slots=2", "hosts.txt:1:11: 'slots=2' gives slots twice on this line", ""),
        ("a:1 slots=1", "hosts.txt:1:5: 'slots=1' gives slots twice on this line", ""),
        ("ada@a user=bob", "hosts.txt:1:7: 'user=bob' gives user twice on this line", ""),
        ("a user=-x", "hosts.txt:1:3: 'user=-x' is not a user name: it begins with '-'", ""),
        ("a user=x;y", "hosts.txt:1:3: 'user=x;y' is not a user name: it holds ';'", ""),
        ("a python=", "hosts.txt:1:3: 'python=' is not an interpreter: it is empty", ""),
        ("a address=1:2", "hosts.txt:1:3: 'address=1:2' is not an address or a host name", ""),
        ("a\n\t-oProxyCommand=x", "hosts.txt:2:2: '-oProxyCommand=x' is not a host name", ""),
        ("a,b", "hosts.txt:1:1: 'a,b' is not a host name: it holds ','", ""),
        ("a\rb", r"hosts.txt:1:1: 'a\rb' is not a host name: it holds '\r'", ""),
        ("a\0", r"hosts.txt:1:1: 'a\x00' is not a host name: it holds '\x00'", ""),
        ("a\u2028b", r"hosts.txt:1:1: 'a\u2028b' is not a host name", ""),
        ("^a", "hosts.txt:1:1: '^a' is not a host name: it holds '^'", ""),
        ("x\nn[1-2", "hosts.txt:2:1: 'n[1-2' has a bracket without its counterpart", ""),
        ("x\nn[1-4096]", "hosts.txt:2:1: 'n[1-4096]' makes more than 4096 hosts in all", ""),
        ("\n".join(f"n{i}" for i in range(5000)), "hosts.txt:4097:1: 'n4096' makes more than", ""),
        ("", "hostfile hosts.txt names no host", "--hostfile names a file with a host on each"),
        (" \n# a\n\r\n", "hostfile hosts.txt names no host", ""),
        (b"a\nb \xe9", "hosts.txt:2:3: the byte 0xe9 is not UTF-8", ""),
        (b"\xef\xbb\xbfa\xff", "hosts.txt:1:2: the byte 0xff is not UTF-8", ""),
        ("a\n".encode("utf-16"), "hosts.txt:1:1: the byte 0xff is not UTF-8", ""),
    ],
)
def test_a_wrong_line_is_named_with_line_and_column(
    text: str | bytes, said: str, hint: str
) -> None:
    error = refusal(text)
    assert said in error.message
    assert error.hint and error.hint.startswith(hint)
    assert error.message.isprintable() and len(error.message) < 300


@pytest.mark.parametrize(
    ("text", "said", "hint"),
    [
        ("a\na", "hosts.txt:2:1: 'a' is on line 1 already", "for 2 ranks on it: a slots=2"),
        ("a\nb\na\n A", "hosts.txt:3:1: 'a' is on line 1 already", "for 3 ranks on it: a slots=3"),
        ("u@a port=1\n\nu@a port=1", "hosts.txt:3:1: 'u@a:1'", "for 2 ranks on it: u@a port=1 slo"),
        ("a slots=2\na slots=2", "hosts.txt:2:1: 'a' is on line 1", "leave one of them out"),
        ("n[1-3] slots=2\n  n2", "hosts.txt:2:3: 'n2' is on line 1 already", "leave one of them"),
        ("n[1,1]", "hosts.txt:1:1: 'n1' is on line 1 already", "for 2 ranks on it: n1 slots=2"),
        (
            "[::1]\n::1",
            "hosts.txt:2:1: '::1' is on line 1 already",
            "for 2 ranks on it: ::1 slots=2",
        ),
    ],
)
def test_a_host_on_two_lines_is_refused_with_both(text: str, said: str, hint: str) -> None:
    error = refusal(text)
    assert error.message.startswith(said)
    assert error.hint.startswith(hint)


def test_hosts_may_have_different_slots_and_the_same_name_another_port() -> None:
    found = hosts_in(b"a slots=4\nb slots=2\na port=2222\nu@a\n", "hosts.txt")
    assert [host.label for host in found] == ["a", "b", "a:2222", "u@a"]


# --- the file ----------------------------------------------------------------------------


def fifo(path: Path) -> None:
    os.mkfifo(path)


def bound_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))


@pytest.mark.timeout(10)
@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: None, ": No such file or directory"),
        (lambda path: path.mkdir(), " is a directory"),
        (fifo, " is not a regular file"),
        (bound_socket, ": No such device or address"),
        (lambda path: path.symlink_to("/dev/zero"), " is not a regular file"),
        (lambda path: path.symlink_to(path), ": Too many levels of symbolic links"),
        (lambda path: path.write_bytes(b"#" * ((1 << 20) + 1)), " is longer than 1 MiB"),
    ],
    ids=["missing", "directory", "fifo", "socket", "device", "loop", "too long"],
)
def test_what_is_no_file_of_lines_is_refused_at_once(
    make: Callable[[Path], object], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    make(Path("h"))
    before = sorted(Path("/dev/fd").iterdir())
    with pytest.raises(UsageError) as refused:
        read_hostfile(Path("h"))
    assert refused.value.message == f"hostfile 'h'{said}"
    assert refused.value.hint.startswith("--hostfile names a file")
    assert sorted(Path("/dev/fd").iterdir()) == before


@pytest.mark.parametrize("name", ["a\0b", "\ud800", "x" * 300])
def test_a_path_that_no_file_can_have_is_refused(name: str) -> None:
    with pytest.raises(UsageError) as refused:
        read_hostfile(Path(name))
    assert refused.value.message.startswith("hostfile ") and refused.value.message.isprintable()


def test_a_hostile_file_name_is_told_without_its_line_breaks(tmp_path: Path) -> None:
    path = tmp_path / "a\n\x1b[2J"
    path.write_text("-x")
    with pytest.raises(UsageError) as refused:
        read_hostfile(path)
    assert refused.value.message.isprintable()
    assert r"a\n\x1b[2J':1:1: '-x' is not a host name" in refused.value.message


def test_a_file_of_1_mib_is_read(tmp_path: Path) -> None:
    path = tmp_path / "h"
    path.write_bytes(b"a slots=2 ".ljust(1 << 20, b"#"))
    assert read_hostfile(path) == (HostSpec(name="a", slots=2),)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "data",
    [b"a" + b" " * 1_000_000 + b"b", b"= " * 500_000, b"a" + b" =" * 500_000, b"a[1-2]" * 150_000],
    ids=["gap", "equals", "gaps and equals", "ranges"],
)
def test_no_line_takes_long(data: bytes) -> None:
    assert refusal(data)


# --- whatever is in it -------------------------------------------------------------------


def line_of(host: HostSpec) -> str:
    name = f"[{host.name}]" if ":" in host.name else host.name
    fields = host.model_dump(exclude={"name"}, exclude_none=True)
    return " ".join([name, *(f"{key}={value}" for key, value in fields.items())])


FULL_HOSTS = st.builds(
    HostSpec,
    name=HOSTS.map(lambda host: host.name),
    user=HOSTS.map(lambda host: host.user),
    port=st.none() | st.integers(1, 65535),
    slots=st.none() | st.integers(1, 1024),
    python=st.none() | st.from_regex(r"/[!-~\u00e9\u4e16]{0,30}", fullmatch=True),
    address=st.none() | st.ip_addresses().map(str),
)


@given(
    st.lists(FULL_HOSTS, min_size=1, max_size=8, unique_by=lambda host: host.login),
    st.sampled_from(["\n", "\r\n", "\n\n", " # x\n", "\t\n#\n"]),
)
def test_a_host_that_is_written_is_read_as_that_host(hosts: list[HostSpec], ending: str) -> None:
    text = "".join(line_of(host) + ending for host in hosts)
    assert hosts_in(text.encode(), "hosts.txt") == tuple(hosts)


WORDS = st.sampled_from(["a", "n[1-3]", "slots=", "slots", "=", ":", "4", "user=u", "#", "@", "["])


@given(
    st.binary()
    | st.text().map(lambda text: text.encode(errors="surrogatepass"))
    | st.lists(WORDS | st.sampled_from([" ", "\t", "\n", "\r\n"])).map(
        lambda w: "".join(w).encode()
    )
)
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        assert hosts_in(data, "hosts.txt")
    except UsageError as error:
        assert error.message.isprintable() and error.hint
