"""Output of a rank that flushes each line is written in as few pieces as it is read in."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from distrun.supervise.logs import joined

EVENTS = st.fixed_dictionaries(
    {"event": st.sampled_from(["output", "output", "output", "rank_started", "metrics"])},
    optional={"rank": st.integers(0, 1), "stream": st.sampled_from(["stdout", "stderr"])},
)


@given(st.lists(st.tuples(EVENTS, st.binary(min_size=1, max_size=5)), max_size=30))
def test_what_a_stream_printed_in_a_row_is_one_piece_and_nothing_else_changes(
    sent: list[tuple[dict[str, Any], bytes]],
) -> None:
    wanted: list[tuple[dict[str, Any], bytes]] = []
    for event, data in sent:
        if wanted and event["event"] == "output" and wanted[-1][0] == event:
            wanted[-1] = event, wanted[-1][1] + data
        else:
            wanted.append((event, data))
    messages = [(event, memoryview(data)) for event, data in sent]
    assert [(event, bytes(data)) for event, data in joined(messages)] == wanted


def test_a_message_without_a_name_passes() -> None:
    assert [event for event, _ in joined([({"schema": 99}, memoryview(b""))])] == [{"schema": 99}]
