import pytest

from vlmcourse.evaluation.metrics import harmonic_mean
from vlmcourse.evaluation.records import Job, Record
from vlmcourse.evaluation.tables import Cell, cell, table, text_table


def record(method="coop", task="a", shots=4, seed=1, hyper=(), fingerprints=None, **metrics) -> Record:
    protocol = "base_to_new" if "h" in metrics else "few_shot"
    job = Job(method, task, protocol, shots, seed, seed, hyper=hyper)
    return Record(**vars(job), metrics=metrics, fingerprints=fingerprints or {"backbone": "b", task: "t"})


def halves(task: str, seed: int, base: float, new: float, method="coop") -> Record:
    return record(method, task, seed=seed, base=base, new=new, h=harmonic_mean(base, new))


CURVE = [
    record("zero_shot", shots=4, top1=0.4),
    record(shots=16, seed=1, top1=0.8),
    record(shots=4, seed=1, top1=0.70),
    record(shots=4, seed=2, top1=0.72),
    record(shots=4, seed=3, top1=0.74),
]
HALVES = [
    halves("a", 1, 0.8, 0.4),
    halves("a", 2, 0.6, 0.8),
    halves("b", 1, 0.9, 0.9),
]


def test_mean_and_std_over_seeds():
    lines = table(CURVE, rows="method", columns="shots")
    assert [line["method"] for line in lines] == ["zero_shot", "coop"]  # names in the order of the records
    assert list(lines[1]) == ["method", 4, 16]  # numbers sorted
    assert str(lines[1][4]) == "72.0 ± 1.6" and str(lines[1][16]) == "80.0" and lines[1][4].n == 3
    assert lines[0][16] is None and float(lines[0][4]) == 0.4


def test_text():
    assert text_table(table(CURVE)).splitlines() == [
        "| method    |          4 |   16 |",
        "|-----------|-----------:|-----:|",
        "| zero_shot |       40.0 |    – |",
        "| coop      | 72.0 ± 1.6 | 80.0 |",
    ]
    with pytest.raises(ValueError, match="must not be empty"):
        text_table([])


def test_h_of_a_cell_is_h_of_the_means():
    lines = table(HALVES, rows="task", columns="metric", metric=("base", "new", "h"))
    assert list(lines[0]) == ["task", "base", "new", "h"]
    assert lines[0]["h"].mean == pytest.approx(harmonic_mean(0.7, 0.6))
    assert lines[0]["h"].std == pytest.approx((harmonic_mean(0.6, 0.8) - harmonic_mean(0.8, 0.4)) / 2)


def test_average_row_is_h_of_the_averages_and_weighs_tasks_equally():
    average = table(HALVES, rows="task", columns="metric", metric=("base", "new", "h"), average="task")[-1]
    assert average["task"] == "average" and average["base"] == Cell(pytest.approx(0.8), None, 2)
    assert average["new"].mean == pytest.approx(0.75) and average["h"].mean == pytest.approx(harmonic_mean(0.8, 0.75))
    means = [harmonic_mean(0.7, 0.6), 0.9]
    assert average["h"].mean != pytest.approx(sum(means) / 2)
    assert str(average["base"]) == "80.0"


def test_average_column_and_average_in_every_cell():
    both = [*HALVES, halves("a", 1, 0.5, 0.5, "zero_shot"), halves("b", 1, 0.3, 0.3, "zero_shot")]
    column = table(both, rows="method", columns="task", metric="base", average="task")
    assert list(column[0]) == ["method", "a", "b", "average"] and column[1]["average"].mean == pytest.approx(0.4)
    inside = table(both, rows="method", columns="metric", metric=("base", "h"), average="task")
    assert inside[0]["base"].mean == pytest.approx(0.8) and inside[0]["h"].mean == pytest.approx(
        harmonic_mean(0.8, 0.75)
    )


def test_no_average_over_a_part_of_the_tasks():
    """A method that was not run on every task has no average: it would not be comparable."""
    some = [*HALVES, halves("a", 1, 0.5, 0.5, "zero_shot")]
    column = table(some, rows="method", columns="task", metric="base", average="task")
    assert column[0]["average"].n == 2 and column[1]["a"].mean == 0.5
    assert column[1]["b"] is None and column[1]["average"] is None
    assert text_table(column).splitlines()[-1].count("–") == 2


def test_rows_and_columns_may_be_hyper_parameters():
    runs = [record(hyper={"n_ctx": n}, seed=s, top1=n / 100) for n in (16, 4) for s in (1, 2)]
    lines = table(runs, rows="n_ctx", columns="task")
    assert [line["n_ctx"] for line in lines] == [4, 16] and lines[1]["a"].mean == pytest.approx(0.16)


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (record(shots=8, seed=2, top1=0.5), r"differ in shots \(4 and 8\)"),
        (record(hyper={"lr": 0.1}, seed=2, top1=0.5), "differ in hyper lr"),
        (record(seed=2, top1=0.5, fingerprints={"backbone": "c", "a": "t"}), "differ in fingerprint of backbone"),
        (record(seed=1, top1=0.5), "the same record is there twice"),
    ],
)
def test_only_seeds_may_differ_in_a_cell(other, message):
    with pytest.raises(ValueError, match=message):
        table([record(top1=0.5), other], rows="method", columns="task")


def test_splits_of_the_classes_count_as_seeds():
    jobs = [Job("coop", "a", "base_to_new", options={"split_seed": s}) for s in range(5)]
    records = [Record(**vars(j), metrics={"base": 0.5 + 0.1 * i}) for i, j in enumerate(jobs)]
    assert cell(records, "base") == Cell(pytest.approx(0.7), pytest.approx(0.1 * 2**0.5), 5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"records": []}, "must not be empty"),
        ({"metric": "speed"}, "has no 'speed'; it has top1"),
        ({"columns": "speed"}, "no record has a field, hyper-parameter or option 'speed'"),
        ({"columns": "method"}, "other than columns"),
        ({"rows": "metric"}, "rows must be"),
        ({"metric": ("top1", "ece")}, 'need columns="metric"'),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        table(**{"records": CURVE, **arguments})
