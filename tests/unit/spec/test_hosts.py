"""What people type for machines: names, logins, addresses, Slurm's ranges, tables; and what not."""

from __future__ import annotations

import string
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from distrun.errors import UsageError
from distrun.spec.base import Refused
from distrun.spec.host_ranges import names_in
from distrun.spec.hosts import HostSpec, hosts_of
from distrun.spec.job import Settings

SHELL = ";|&$`'\"\\<>(){}*?!~#^=/ \t\n\r\0\x1b\x7f\u00e9\u202e\udcff"
"""Each of these is no part of a name: for a shell, a terminal or ssh it is something else."""


def labels(value: object) -> list[str]:
    return [host.label for host in hosts_of(value)]


def refusal(value: object) -> UsageError:
    with pytest.raises(UsageError) as refused:
        hosts_of(value)
    return refused.value


@pytest.mark.parametrize(
    ("typed", "host"),
    [
        ("a", HostSpec(name="a")),
        (" a\t", HostSpec(name="a")),
        ("node-1_x.example.com.", HostSpec(name="node-1_x.example.com.")),
        ("10.0.0.2", HostSpec(name="10.0.0.2")),
        ("ada@a", HostSpec(name="a", user="ada")),
        ("ada@corp.example@a", HostSpec(name="a", user="ada@corp.example")),
        ("a:2222", HostSpec(name="a", port=2222)),
        ("ada@a:22", HostSpec(name="a", user="ada", port=22)),
        ("::1", HostSpec(name="::1")),
        ("2001:db8::1:22", HostSpec(name="2001:db8::1:22")),
        ("[2001:db8::1]", HostSpec(name="2001:db8::1")),
        ("[2001:db8::1]:2222", HostSpec(name="2001:db8::1", port=2222)),
        ("ada@[fe80::1%eth0]:2222", HostSpec(name="fe80::1%eth0", user="ada", port=2222)),
        ("ada@fe80::1%eth0", HostSpec(name="fe80::1%eth0", user="ada")),
    ],
)
def test_a_number_after_a_host_is_the_port_of_sshd(typed: str, host: HostSpec) -> None:
    assert hosts_of(typed) == (host,)


@pytest.mark.parametrize(
    ("typed", "names"),
    [
        ("n[1]", ["n1"]),
        ("n[01-04]", ["n01", "n02", "n03", "n04"]),
        ("n[8-11]", ["n8", "n9", "n10", "n11"]),
        ("n[098-101]", ["n098", "n099", "n100", "n101"]),
        ("n[1,3-5]", ["n1", "n3", "n4", "n5"]),
        ("n[1-2].x", ["n1.x", "n2.x"]),
        ("[1-2]n", ["1n", "2n"]),
        ("rack[1-2]n[1-2]", ["rack1n1", "rack1n2", "rack2n1", "rack2n2"]),
        ("10.0.0.[1-2]", ["10.0.0.1", "10.0.0.2"]),
        ("ada@n[1-2]:22", ["ada@n1:22", "ada@n2:22"]),
        ("a,n[1,3],b", ["a", "n1", "n3", "b"]),
        (["n[1-2],a", "b"], ["n1", "n2", "a", "b"]),
    ],
)
def test_ranges_are_those_of_slurm(typed: object, names: list[str]) -> None:
    assert labels(typed) == names


def test_a_list_holds_texts_tables_and_hosts() -> None:
    table = {"name": "n[1-2]", "slots": 4, "port": 2222, "python": "/opt/my venv/bin/python"}
    found = hosts_of(["a", table, HostSpec(name="b", user="ada")])
    assert [host.label for host in found] == ["a", "n1:2222", "n2:2222", "ada@b"]
    assert [host.slots for host in found] == [None, 4, 4, None]
    assert hosts_of([{"name": "[::1]", "address": "[::2]"}]) == (
        HostSpec(name="::1", address="::2"),
    )


@pytest.mark.parametrize(
    ("typed", "said", "hint"),
    [
        ("", "'' is not a host name: it is empty", ""),
        ("a,,b", "'' is not a host name: it is empty", ""),
        ("a,", "'' is not a host name: it is empty", ""),
        (":22", "'' is not a host name: it is empty", ""),
        ("ada@", "'' is not a host name: it is empty", ""),
        ("@a", "'' is not a user name: it is empty", ""),
        ("a b", "'a b' is not a host name: it holds ' '", "a host name has letters"),
        ("-oProxyCommand=x", "'-oProxyCommand=x' is not a host name: it begins with '-'", ""),
        ("a,-v", "'-v' is not a host name: it begins with '-'", ""),
        ("-v@a", "'-v' is not a user name: it begins with '-'", "a user name has"),
        ("ada;x@a", "'ada;x' is not a user name: it holds ';'", ""),
        ("a..b", "'a..b' is not a host name: it has an empty part", ""),
        (".", "'.' is not a host name: it has an empty part", ""),
        ("a" * 64, "it has a part of more than 63 characters", ""),
        ("a." * 128, "it is longer than 255 characters", ""),
        ("2", "'2' is not a host name: it is a number, but no IPv4 address", ""),
        ("10.0.0.300", "'10.0.0.300' is not a host name: it is a number", ""),
        ("1:2:3", "'1:2:3' is not a host name: it is no IPv6 address", ""),
        ("[::g]", "'::g' is not a host name: it is no IPv6 address", ""),
        ("fe80::1%e;x", "'fe80::1%e;x' is not a host name: it is no IPv6 address", ""),
        ("a:", "'a:' is not a port number", ""),
        ("a:x", "'a:x' is not a port number", ""),
        ("a:0", "'a:0' is not a port from 1 to 65535", ""),
        ("a:65536", "'a:65536' is not a port from 1 to 65535", ""),
        ("a:\u0664", "'a:\u0664' is not a port number", ""),
        ("n[1-2", "'n[1-2' has a bracket without its counterpart", "for example n[01-04]"),
        ("n1-2]", "'n1-2]' has a bracket without its counterpart", ""),
        ("n[1[2]]", "has a bracket without its counterpart", ""),
        ("n[]", "'' in 'n[]' is not a range", ""),
        ("n[a-b]", "'a-b' in 'n[a-b]' is not a range", ""),
        ("n[1-2-3]", "'1-2-3' in 'n[1-2-3]' is not a range", ""),
        ("n[2-1]", "'2-1' in 'n[2-1]' counts down", ""),
        ("n[\u0661-\u0662]", "is not a range", ""),
        ("n[" + "9" * 5000 + "]", "is not a range", ""),
        ("n[1-4097]", "'n[1-4097]' makes more than 4096 hosts in all", "4096 is the limit"),
        ("a,n[1-4096]", "'n[1-4096]' makes more than 4096 hosts in all", ""),
        ("n[0-99]m[0-99]", "makes more than 4096 hosts in all", ""),
        ("n[1-999999999999999999]" * 50, "makes more than 4096 hosts in all", ""),
        ("a,a", "'a' is named twice", "leave one of them out"),
        ("a,A", "'A' is named twice", ""),
        ("n[1-3],n2", "'n2' is named twice", ""),
        ("ada@a:22,ada@a:22", "'ada@a:22' is named twice", ""),
        (5, "5 is not a list of hosts such as a,b", "for example a,user@b:2222"),
        (True, "True is not a list of hosts such as a,b", ""),
        (None, "None is not a list of hosts", ""),
        ({"name": "a"}, "{'name': 'a'} is not a list of hosts", ""),
        (["a", 5], "5 is neither the name nor the table of a host", ""),
        ([["a"]], "['a'] is neither the name nor the table of a host", ""),
        ([{"name": "a", "slot": 4}], "unknown key 'slot' of a host", "did you mean 'slots'?"),
        ([{"slots": 4}], "{'slots': 4} has no name", 'for example {name = "b", slots = 4}'),
        ([{"name": 5}], "{'name': 5} has no name", ""),
        ([{"name": "ada@a"}], "'ada@a' is not a host name: it holds '@'", ""),
        ([{"name": "a", "slots": 0}], "0 is not a number of ranks from 1 to 1024", ""),
        ([{"name": "a", "slots": "x"}], "'x' is not a number of ranks", ""),
        ([{"name": "a", "slots": True}], "True is not a number of ranks", ""),
        ([{"name": "a", "slots": 1.5}], "1.5 is not a number of ranks", ""),
        ([{"name": "a", "port": -1}], "-1 is not a port from 1 to 65535", ""),
        ([{"name": "a", "user": 5}], "5 is not a user name: it is not a string", ""),
        ([{"name": "a", "user": ["x"]}], "['x'] is not a user name: it is not a string", ""),
        ([{"name": "a", "python": "-c"}], "'-c' is not an interpreter: it begins with '-'", ""),
        ([{"name": "a", "python": "p\n"}], r"'p\n' is not an interpreter: it holds '\n'", ""),
        ([{"name": "a", "python": ""}], "'' is not an interpreter: it is empty", ""),
        ([{"name": "a", "address": "b:1"}], "'b:1' is not an address or a host name", ""),
    ],
)
def test_what_is_no_host_is_named_with_its_fault(typed: object, said: str, hint: str) -> None:
    error = refusal(typed)
    assert said in error.message
    assert error.hint and error.hint.startswith(hint)
    assert error.message.isprintable() and len(error.message) < 300


@pytest.mark.parametrize("char", SHELL)
@pytest.mark.parametrize("login", ["a{}b", "{}b", "a{}", "ada{}x@a", "[fe80::1%{}]:22"])
def test_no_odd_character_gets_into_a_name(char: str, login: str) -> None:
    if login in ("{}b", "a{}") and char in " \t":
        return  # spaces around a name are left out
    error = refusal(["x", login.format(char)])
    assert error.message.isprintable()


@pytest.mark.parametrize("field", ["name", "user", "address", "python"])
@pytest.mark.parametrize("value", ["", "-x", "a\0", "a\n", "\x1b[2J", "x" * 5000, 5])
def test_a_host_that_is_built_directly_is_refused_too(field: str, value: Any) -> None:
    with pytest.raises(ValidationError):
        HostSpec(**{"name": "a", field: value})


def test_4096_hosts_are_read() -> None:
    assert len(hosts_of("n[1-4096]")) == len(hosts_of(",".join(f"n{i}" for i in range(4096))))
    assert "more than 4096 hosts" in refusal([HostSpec(name=f"n{i}") for i in range(4097)]).message


def test_the_same_name_for_another_user_or_port_is_another_host() -> None:
    assert labels("a,ada@a,a:22,ada@a:22") == ["a", "ada@a", "a:22", "ada@a:22"]


def test_the_schema_knows_every_field_of_a_host() -> None:
    listed, text = Settings.model_json_schema()["properties"]["hosts"]["anyOf"]
    assert text == {"type": "string"}
    _, table = listed["items"]["anyOf"]
    assert set(table["properties"]) == set(HostSpec.model_fields)


# --- whatever is typed -----------------------------------------------------------------


NAMES = st.from_regex(r"[a-z0-9_][a-z0-9_-]{0,20}(\.[a-z][a-z0-9-]{0,20}){0,3}\.?", fullmatch=True)
HOSTS = st.builds(
    HostSpec,
    name=NAMES.filter(lambda name: not name.rstrip(".").isdigit())
    | st.ip_addresses().map(str)
    | st.ip_addresses(v=6).map("{}%eth0".format),
    user=st.none() | st.from_regex(r"[a-z_.+][a-z0-9_.@+-]{0,10}", fullmatch=True),
    port=st.none() | st.integers(1, 65535),
)


@given(st.lists(HOSTS, min_size=1, max_size=8, unique_by=lambda host: host.login))
def test_the_label_of_a_host_is_read_as_that_host(hosts: list[HostSpec]) -> None:
    assert hosts_of(",".join(host.label for host in hosts)) == tuple(hosts)
    assert hosts_of([host.model_dump() for host in hosts]) == tuple(hosts)


@given(st.text() | st.text(string.ascii_lowercase + "[]-,:@%.019 "))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        found = hosts_of(text)
    except UsageError as error:
        assert error.message.isprintable() and error.hint
    else:
        assert hosts_of(",".join(host.label for host in found)) == found


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.sampled_from(["name", "user", "slots"]), inner)
    ),
    max_leaves=5,
)


@given(JSON | st.lists(st.fixed_dictionaries({"name": st.text()}, optional={"python": JSON})))
def test_anything_in_a_config_file_is_read_or_refused(value: object) -> None:
    try:
        hosts_of(value)
    except UsageError as error:
        assert error.message.isprintable() and error.hint


@given(st.text("n[]-,01 "))
def test_any_pattern_makes_names_or_is_refused(pattern: str) -> None:
    try:
        assert names_in(pattern)
    except Refused:
        assert set(pattern) & set("[]")
