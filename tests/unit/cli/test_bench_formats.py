"""The formats of a report, read again as programs and people read them."""

from __future__ import annotations

import csv
import io
import re

import pytest

from distrun.api.bench_comm import compare
from distrun.cli.bench.formats import as_csv, as_markdown, as_nccl_tests
from distrun.cli.bench.table import cells, change_lines, columns_of, digits, heading, remarks, size
from distrun.spec.bench import BenchReport
from tests.unit.bench import a_report, a_row

NCCL_LINE = re.compile(
    r"^\s+(\d+)\s+(\d+)\s+(\w+)\s+(\w+)\s+(-?\d+)\s+([\d.]+)\s+([\d.]+)\s+([\d.]+)\s+(\S+)"
)
"""As parsers read nccl-tests: size, count, type, redop, root, time, algbw, busbw, #wrong."""


@pytest.fixture
def report() -> BenchReport:
    """Two sizes in both places, a rooted op, one that has a place alone, and a barrier."""
    wrong = [{"rank": 1, "count": 3, "first_index": 16, "source": 0}]
    nothing = {"algbw": None, "busbw": None, "best_busbw": None, "redop": None, "wrong": None}
    model = {"op": "all_reduce", "alpha_s": 93.65e-6, "bytes_per_s": 7.402e9, "error": 0.021}
    return a_report(
        a_row(),
        a_row(place="in", noisy=True),
        a_row(nbytes=2 << 20, count=524288, p50_s=2e-3, p95_s=3.21e-3, algbw=1048.576e6),
        a_row(nbytes=2 << 20, count=524288, place="in"),
        a_row(op="broadcast", redop=None, root=1, dtype="bfloat16"),
        a_row(op="all_gather", redop=None, wrong=wrong),
        a_row(op="barrier", nbytes=0, count=0, **nothing),
        models=[{**model, "half_nbytes": 693248.0}],
        skipped=[{"op": "all_reduce", "nbytes": 8 << 30, "why": "above 1024 MiB"}],
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        (0, "0"),
        (0.0, "0"),
        (1, "1"),
        (1234, "1234"),
        (12.34, "12.34"),
        (123.456, "123.5"),
        (0.001234, "0.001234"),
        (0.0012345678, "0.001235"),
        (0.0001, "0.0001"),
        (0.00012346, "0.0001235"),
        (1.2345e-5, "0.00001234"),
        (1e-9, "0.000000001000"),
        (5.604e-7, "0.0000005604"),
        (9999.4, "9999"),
        (9999.6, "10000"),
        (12345.6, "12346"),
        (123456789.0, "123456789"),
        (1e15, "1000000000000000"),
    ],
)
def test_a_number_has_four_significant_digits_and_no_exponent(
    value: float | None, text: str
) -> None:
    assert digits(value) == text


@pytest.mark.parametrize("exponent", range(-15, 16))
def test_a_number_is_never_shown_as_nothing_and_is_off_by_less_than_a_thousandth(
    exponent: int,
) -> None:
    for mantissa in (1.0, 1.0004, 1.9996, 5.5555, 9.9994, 9.9999):
        value = mantissa * 10.0**exponent
        text = digits(value)
        assert re.fullmatch(r"\d+(\.\d+)?", text)
        assert float(text) == pytest.approx(value, rel=1e-3)


@pytest.mark.parametrize(
    ("nbytes", "text"),
    [
        (1, "1 B"),
        (1023, "1023 B"),
        (1024, "1 KiB"),
        (1536, "1.5 KiB"),
        (65536, "64 KiB"),
        (100_000, "97.66 KiB"),
        (1 << 20, "1 MiB"),
        (3 << 29, "1.5 GiB"),
        (1 << 44, "16384 GiB"),
    ],
)
def test_a_size_is_told_in_the_unit_that_fits(nbytes: int, text: str) -> None:
    assert size(nbytes) == text


def test_csv_is_read_again_with_the_numbers_that_were_measured(report: BenchReport) -> None:
    lines = list(csv.DictReader(io.StringIO(as_csv(report))))
    assert len(lines) == len(report.rows)
    for line, row in zip(lines, report.rows, strict=True):
        assert None not in line
        assert None not in line.values()
        assert (line["op"], line["place"], line["dtype"]) == (row.op, row.place, row.dtype)
        for name in ("nbytes", "count", "iterations"):
            assert int(line[name]) == getattr(row, name)
        for name in ("min_s", "p50_s", "p95_s", "max_s", "mad_s", "cv"):
            assert float(line[name]) == getattr(row, name)
        for name in ("p99_s", "algbw", "busbw", "best_busbw", "wire", "root"):
            value = getattr(row, name)
            assert line[name] == "" if value is None else float(line[name]) == value
        assert line["noisy"] == str(row.noisy)
        assert line["wrong"] == ("" if row.wrong is None else str(row.wrong_count))


def test_markdown_has_as_many_cells_in_every_line(report: BenchReport) -> None:
    head, rule, *lines = as_markdown(report).splitlines()
    assert len(lines) == len(report.rows)
    assert len({line.count("|") for line in (head, rule, *lines)}) == 1
    assert all(line.startswith("|") and line.endswith("|") for line in (head, rule, *lines))
    assert re.fullmatch(r"\|(-{3}:?\|)+", rule)
    assert [cell.strip() for cell in lines[2].split("|")][1:4] == ["all_reduce", "2 MiB", "out"]


def test_p99_and_wire_have_a_column_only_where_there_are_such_numbers(
    report: BenchReport,
) -> None:
    assert not {"p99", "wire"} & set(columns_of(report))
    with_both = a_report(a_row(), a_row(place="in", p99_s=150e-6, wire=5e9))
    names = columns_of(with_both)
    first, second = (dict(zip(names, row, strict=True)) for row in cells(with_both))
    assert (first["p99"], first["wire"]) == ("-", "-")
    assert (second["p99"], second["wire"]) == ("150", "5")


def test_a_table_row_says_what_was_measured(report: BenchReport) -> None:
    names = columns_of(report)
    table = [dict(zip(names, row, strict=True)) for row in cells(report)]
    assert list(table[2].values()) == [
        *("all_reduce", "2 MiB", "out", "90", "2000", "3210", "104", "2"),
        *("1.049", "0.00064", "0.000711", "0", ""),
    ]
    assert table[1][""] == "noisy"
    assert table[5]["#wrong"] == "3"
    assert [table[6][name] for name in ("size", "busbw GB/s", "#wrong")] == ["", "-", "-"]


def test_the_columns_of_nccl_tests_are_read_by_the_parsers_of_nccl_tests(
    report: BenchReport,
) -> None:
    text = as_nccl_tests(report)
    found = [found.groups() for line in text.splitlines() if (found := NCCL_LINE.match(line))]
    assert found == [
        ("64", "16", "float", "sum", "-1", "100", "0.00064", "0.00064", "0"),
        ("2097152", "524288", "float", "sum", "-1", "2000", "1.049", "0.00064", "0"),
        ("64", "16", "bfloat16", "none", "1", "100", "0.00064", "0.00064", "0"),
        ("64", "8", "float", "none", "-1", "100", "0.00064", "0.00064", "3"),
    ]
    others = [line for line in text.splitlines() if not NCCL_LINE.match(line)]
    assert all(line.startswith("#") for line in others)
    assert "# Out of bounds values : 3 FAILED" in others
    average = next(line for line in others if line.startswith("# Avg bus bandwidth"))
    assert float(average.partition(":")[2]) == pytest.approx(0.00064)


def test_every_line_of_nccl_tests_has_the_columns_of_both_places(report: BenchReport) -> None:
    lines = [line.split() for line in as_nccl_tests(report).splitlines() if NCCL_LINE.match(line)]
    assert [len(line) for line in lines] == [13] * 4
    assert lines[0][9:] == ["100", "0.00064", "0.00064", "0"]
    assert lines[2][9:] == ["0", "0", "0", "N/A"]  # a time is never N/A


@pytest.mark.parametrize(
    ("dtype", "redop", "told"),
    [
        ("float32", "mean", ("float", "avg")),
        ("float64", "sum", ("double", "sum")),
        ("float16", "prod", ("half", "prod")),
        ("bfloat16", "max", ("bfloat16", "max")),
        ("int8", "min", ("int8", "min")),
    ],
)
def test_types_and_reductions_have_the_names_of_nccl_tests(
    dtype: str, redop: str, told: tuple[str, str]
) -> None:
    text = as_nccl_tests(a_report(a_row(dtype=dtype, redop=redop)))
    (found,) = (found for line in text.splitlines() if (found := NCCL_LINE.match(line)))
    assert found.groups()[2:4] == told
    assert "# Out of bounds values : 0 OK" in text


def test_the_heading_says_how_it_was_measured_and_what_the_columns_mean(
    report: BenchReport,
) -> None:
    text = "\n".join(heading(report))
    assert "2 ranks, gloo on x86_64, float32, torch 2.11" in text
    assert "latency mode: each iteration after a barrier" in text
    assert "all_reduce: size = bytes on each rank; busbw = algbw x 2(n-1)/n" in text
    text = "\n".join(heading(a_report(mode="throughput", nnodes=2)))
    assert "2 ranks on 2 nodes" in text
    assert "throughput mode: iterations queued" in text


def test_remarks_name_the_model_the_noise_what_was_left_out_and_what_was_wrong(
    report: BenchReport,
) -> None:
    lines = list(remarks(report))
    for line in (
        "all_reduce: T = 93.65 µs + S / 7.402 GB/s (± 2 %); half of that bandwidth at 677 KiB",
        "left out: all_reduce of 8 GiB: above 1024 MiB",
        "WRONG: all_gather of 64 B: 3 elements on rank 1, the first is [16], "
        "which came from rank 0",
    ):
        assert line in lines
    assert any(line.startswith("1 of 7 rows are noisy") for line in lines)
    assert not any("incomplete" in line for line in lines)


def test_an_element_that_came_from_all_names_no_rank_but_its_own() -> None:
    wrong = [{"rank": rank, "count": 1, "first_index": 0, "source": None} for rank in (0, 2)]
    lines = [line for line in remarks(a_report(a_row(wrong=wrong))) if "WRONG" in line]
    assert lines == [
        f"WRONG: all_reduce of 64 B: 1 elements on rank {rank}, the first is [0]" for rank in (0, 2)
    ]


def test_a_calm_and_right_report_has_no_complaints_and_an_unfinished_one_says_so() -> None:
    complaint = re.compile("noisy|WRONG|left out|incomplete")
    assert not [line for line in remarks(a_report()) if complaint.search(line)]
    assert "incomplete: 1 rows were done" in list(remarks(a_report(complete=False)))


def test_a_report_without_rows_can_be_shown_in_every_format() -> None:
    report = a_report(rows=[])
    assert list(csv.DictReader(io.StringIO(as_csv(report)))) == []
    assert len(as_markdown(report).splitlines()) == 2
    assert all(line.startswith("#") for line in as_nccl_tests(report).splitlines())
    assert list(remarks(report)) == []


def test_of_a_comparison_only_what_moved_is_printed_and_the_rest_is_counted() -> None:
    before = [a_row(nbytes=64 << i) for i in range(5)]
    factors = (2.0, 0.5, 1.0, 1.0, 1.0)
    after = [
        row.model_copy(update={"p50_s": f * row.p50_s})
        for row, f in zip(before, factors, strict=True)
    ]
    after[4] = after[4].model_copy(update={"noisy": True})
    assert list(change_lines(compare(a_report(*before), a_report(*after), 0.1))) == [
        "SLOWER: all_reduce of 64 B, out of place: p50 100 -> 200 µs, x 2 (tolerance 10 %)",
        "faster: all_reduce of 128 B, out of place: p50 100 -> 50 µs, x 0.5 (tolerance 10 %)",
        "2 rows as before, 1 too noisy to be judged",
    ]


# As util.cu of nccl-tests 2.19 prints them: a time is a number, and a rank has a pid.
_NUMBER = r"[0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?"
_PLACE = rf"\s+({_NUMBER})\s+({_NUMBER})\s+({_NUMBER})\s+(\d+|N/A)"
NCCL_ROW = re.compile(rf"^\s*(\d+)\s+(\d+)\s+(\w+)\s+(\w+)\s+(-?\d+){_PLACE}{_PLACE}\s*$")
NCCL_RANK = re.compile(
    r"^#\s+Rank\s+(\d+)\s+Group\s+(\d+)\s+Pid\s+(\d+)\s+on\s+(\S+)\s+device\s+(\d+)"
    r"\s+\[(\S+)\]\s+(.*)$"
)


def test_every_row_has_the_numbers_of_both_places(report: BenchReport) -> None:
    rows = [line for line in as_nccl_tests(report).splitlines() if not line.startswith("#")]
    assert len(rows) == 4
    for row in rows:
        found = NCCL_ROW.match(row)
        assert found, row


@pytest.mark.parametrize("op", ["all_gather", "reduce_scatter", "all_to_all", "gather", "scatter"])
def test_the_count_is_that_of_one_rank_where_the_size_is_all_of_them(op: str) -> None:
    text = as_nccl_tests(a_report(a_row(op=op, nbytes=4800, count=1200), world_size=3))
    (row,) = (found for line in text.splitlines() if (found := NCCL_ROW.match(line)))
    assert (row[1], row[2]) == ("4800", "400")


@pytest.mark.parametrize(
    ("bandwidth", "told"),
    [(12.345e9, "12.35"), (0.0123456e9, "0.0123"), (0.001234e9, "0.0012"), (1234.0, "0.000001234")],
)
def test_a_bandwidth_fits_its_column_unless_it_would_be_nothing(
    bandwidth: float, told: str
) -> None:
    text = as_nccl_tests(a_report(a_row(algbw=bandwidth)))
    (row,) = (found for line in text.splitlines() if (found := NCCL_ROW.match(line)))
    assert row[7] == told


def test_a_rank_line_has_pid_device_and_pci_place() -> None:
    rank = {"rank": 9, "node": 1, "host": "box", "device": "NVIDIA H100"}
    old, new = (
        as_nccl_tests(a_report(ranks=[rank | more]))
        for more in ({}, {"pid": 4711, "local_rank": 1, "pci_id": "0000:3b:00"})
    )
    (found,) = (m for line in new.splitlines() if (m := NCCL_RANK.match(line)))
    assert found.groups() == ("9", "0", "4711", "box", "1", "0000:3b:00", "NVIDIA H100")
    assert any(NCCL_RANK.match(line) for line in old.splitlines())  # a report of an older version


def test_sizes_that_were_rounded_are_told() -> None:
    asked = a_report(a_row(nbytes=64), a_row(op="all_gather", nbytes=60)).request
    request = asked.model_copy(update={"sizes": (64, 4, 7)})
    rows = [a_row(op=op, nbytes=n) for op, n in (("all_reduce", 64), ("all_gather", 60))]
    rows += [a_row(op=op, nbytes=4) for op in ("all_reduce", "all_gather")]
    (told,) = (r for r in remarks(a_report(*rows, request=request)) if "rounded" in r)
    assert told.startswith("not measured as asked for: 64 B, 7 B; sizes are rounded")
    even = a_report(*rows, request=asked.model_copy(update={"sizes": (4,)}))
    assert not any("rounded" in remark for remark in remarks(even))
