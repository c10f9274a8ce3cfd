"""Of a long traceback the user's own frames stay on the screen, and nothing fills it."""

from __future__ import annotations

import json
import sys
import traceback
from collections.abc import Callable

import pytest

from distrun.cli.screen.traceback_lines import traceback_lines

OWN, LIBRARY = "/home/me/train.py", "/usr/lib/python3.11/json/decoder.py"


def frame(file: str, number: int) -> str:
    return f'  File "{file}", line {number}, in f{number}\n    call_{number}(x)\n    ~~~^^^\n'


def text(*frames: str, message: str = "ValueError: no") -> str:
    return "Traceback (most recent call last):\n" + "".join(frames) + message + "\n"


def shown(written: str) -> str:
    return "\n".join(traceback_lines(written))


def test_a_short_one_is_shown_as_it_is() -> None:
    short = text(frame(OWN, 1), frame(LIBRARY, 2))
    assert shown(short) == short.rstrip()


def test_frames_of_libraries_go_first_and_are_counted() -> None:
    libraries = [frame(LIBRARY, number) for number in range(20, 40)]
    said = shown(text(frame(OWN, 1), *libraries[:3], frame(OWN, 2), *libraries))
    assert said == "\n".join(
        [
            "Traceback (most recent call last):",
            *(f'  File "{OWN}", line 1, in f1', "    call_1(x)"),
            "  … 3 frames of libraries",
            *(f'  File "{OWN}", line 2, in f2', "    call_2(x)"),
            "  … 20 frames of libraries",
            "ValueError: no",
        ]
    )


def test_ten_frames_of_the_users_own_stay_among_any_number_of_others() -> None:
    frames = [frame(OWN, n) + frame(LIBRARY, 100 + n) * 5 for n in range(10)]
    said = shown(text(*frames))
    assert all(f"call_{n}(x)" in said for n in range(10))
    assert LIBRARY not in said and len(said.splitlines()) <= 32


def test_of_many_own_frames_the_first_and_the_last_stay() -> None:
    said = shown(text(*(frame(OWN, number) for number in range(1000))))
    assert "call_0(x)" in said and "call_999(x)" in said and "990 frames left out" in said
    assert len(said.splitlines()) < 25


@pytest.mark.parametrize(
    "message",
    ["a" * 5_000_000, "line\n" * 1_000_000, "    File\n" * 100_000, "\n" * 100_000, "^" * 9999],
)
def test_a_long_message_leaves_type_and_frames(message: str) -> None:
    said = shown(text(frame(OWN, 1), message="ValueError: begin" + message + "\nend"))
    assert "call_1(x)" in said and "ValueError: begin" in said and said.endswith("end")
    assert len(said) < 3000 and ("left out" in said or not message.strip())


def grouped() -> None:
    def one(value: str) -> None:
        json.loads(value)

    errors = []
    for value in ("{", "[,", "nope"):
        try:
            one(value)
        except ValueError as error:
            errors.append(error)
    raise ExceptionGroup("some", errors) from errors[0]  # noqa: F821 - of Python 3.11


def caused() -> None:
    try:
        json.loads("{")
    except ValueError as error:
        raise KeyError("the other") from error


@pytest.mark.parametrize(
    "raises",
    [
        pytest.param(
            grouped,
            marks=pytest.mark.skipif(sys.version_info < (3, 11), reason="no ExceptionGroup"),
        ),
        caused,
    ],
)
def test_each_exception_of_several_keeps_its_line(raises: Callable[[], None]) -> None:
    try:
        raises()
    except Exception as error:
        names = {"grouped": ["some", "sub-exceptions", "JSONDecodeError"], "caused": ["KeyError"]}
        said = shown(traceback.format_exc())
        assert raises.__name__ in said and f"{type(error).__name__}: " in said
        assert "json.decoder.JSONDecodeError: " in said and "direct cause" in said
        assert all(word in said for word in names[raises.__name__])
        assert "decoder.py" not in said
