"""The table of a chapter: seeds in order, gaps shown as gaps, costs and cards beside the accuracies."""

import pytest

from vlmcourse.evaluation.comparison import comparison, fit_seconds, values
from vlmcourse.evaluation.records import Record


def record(method, seed, top1, protocol="few_shot", n_learned=0, seconds=1.0):
    metrics = {"top1": top1, "average": top1 / 2}
    return Record(
        method, "digits", protocol, 4, seed, seed, metrics=metrics, fit_seconds=seconds, n_learned=n_learned
    )  # fmt: skip


RECORDS = [
    record("coop", 2, 0.6, n_learned=768, seconds=3.0),
    record("coop", 1, 0.5, n_learned=768),
    record("zero_shot", 1, 0.4),
    record("zero_shot", 1, 0.3, protocol="domain_generalisation"),
]


def test_values_come_in_the_order_of_the_seeds():
    assert values(RECORDS, "coop", "digits", "few_shot", "top1") == [0.5, 0.6]
    assert values(RECORDS, "coop", "digits", "domain_generalisation", "top1") == []


def test_a_row_per_method():
    columns = {"4 shots": ("few_shot", "top1"), "under shift": ("domain_generalisation", "average")}
    zero, coop = comparison(RECORDS, ["zero_shot", "coop"], "digits", columns)
    assert zero == {
        "method": "zero_shot", "4 shots": "40.0", "under shift": "15.0", "seconds": "1.0", "learned": "0",
        "acts on": "text only", "needs": "outputs",
    }  # fmt: skip
    assert coop["4 shots"] == "55.0 ± 5.0" and coop["under shift"] == "–"
    assert (coop["seconds"], coop["learned"], coop["needs"]) == ("2.0", "768", "inputs")


def test_what_was_not_measured_has_no_seconds():
    with pytest.raises(ValueError, match="values must not be empty"):
        fit_seconds(RECORDS, "coop", "digits", "base_to_new")
