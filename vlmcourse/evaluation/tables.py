"""Tables as views of records: mean ± std over seeds in each cell, and averages over tasks as the papers build them.

    print(text_table(table(records, rows="method", columns="shots", metric="top1")))
    print(text_table(table(records, rows="task", columns="metric", metric=("base", "new", "h"), average="task")))

Only seeds may differ inside a cell (draw, initialisation, split of the classes), else a ValueError names what differs:
a mean over different shots or backbones is not a result. "h" of a cell is H of the mean base and the mean new accuracy,
and in an average over tasks H of the averages, not the mean of the Hs; its std is that of the Hs of the single seeds.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from vlmcourse.evaluation.metrics import harmonic_mean, mean_std
from vlmcourse.evaluation.records import Record

SETTINGS = ("method", "task", "protocol", "shots", "backbone", "pretrained", "dtype", "profile")
SEEDS = ("draw_seed", "init_seed", "split_seed")
AVERAGE = "average"


@dataclass(frozen=True)
class Cell:
    """mean and std are fractions; n is the number of records, or of averaged cells (then std is None)."""

    mean: float
    std: float | None
    n: int

    def __str__(self) -> str:
        return f"{100 * self.mean:.1f}" + (f" ± {100 * self.std:.1f}" if self.std is not None and self.n > 1 else "")

    __repr__ = __str__

    def __float__(self) -> float:
        return self.mean


def table(
    records: Sequence[Record],
    rows: str = "method",
    columns: str = "shots",
    metric: str | Sequence[str] = "top1",
    average: str | None = None,
) -> list[dict[Any, Any]]:
    """One dict per row, {rows: its value, every column's value: Cell, or None where there is no record}.

    rows, columns: names of record fields, hyper-parameters or options; columns="metric" has one column for each name in
    `metric`. average: a field to average over, giving every value the same weight; a cell that lacks one of the values
    is None. If it is `rows` or `columns`, the row or column "average" is added at the end. Raises ValueError if records
    in one cell differ in more than seeds or lack the metric.
    """
    metrics = (metric,) if isinstance(metric, str) else tuple(metric)
    if not records or not metrics:
        raise ValueError("records and metric must not be empty")
    if columns != "metric" and len(metrics) != 1:
        raise ValueError(f'several metrics {metrics} need columns="metric", got columns={columns!r}')
    if rows == "metric" or rows == columns:
        raise ValueError(f"rows must be the name of a field other than columns, got rows={rows!r}, columns={columns!r}")
    across = metrics if columns == "metric" else _values(records, columns)
    down = _values(records, rows)
    every = set(_values(records, average)) if average else set()
    result = []
    for row in [*down, *([AVERAGE] if average == rows else [])]:
        line = {rows: row}
        for column in [*across, *([AVERAGE] if average == columns else [])]:
            group = [r for r in records if row is AVERAGE or r.get(rows) == row]
            if columns != "metric" and column is not AVERAGE:
                group = [r for r in group if r.get(columns) == column]
            over = average if AVERAGE in (row, column) or average not in (rows, columns) else None
            complete = over is None or every == {r.get(over) for r in group}
            line[column] = (
                cell(group, column if columns == "metric" else metrics[0], over) if group and complete else None
            )
        result.append(line)
    return result


def cell(records: Sequence[Record], metric: str, over: str | None = None) -> Cell:
    """Mean and std over seeds; with `over`, the mean over the values of that field, each with the same weight."""
    if over is not None:
        groups = [[r for r in records if r.get(over) == value] for value in _values(records, over)]
        return Cell(_mean(metric, lambda name: [cell(g, name).mean for g in groups]), None, len(groups))
    _check_equal(records)
    return Cell(_mean(metric, lambda name: _take(records, name)), mean_std(_take(records, metric))[1], len(records))


def text_table(lines: Sequence[dict[Any, Any]]) -> str:
    """The table as aligned markdown; "–" where there is no record."""
    if not lines:
        raise ValueError("lines must not be empty")
    heads = list(dict.fromkeys(name for line in lines for name in line))
    texts = [
        [str(h) for h in heads],
        *(["–" if line.get(h) is None else str(line[h]) for h in heads] for line in lines),
    ]
    widths = [max(len(row[i]) for row in texts) for i in range(len(heads))]
    out = [
        "| " + " | ".join(t.ljust(w) if i == 0 else t.rjust(w) for i, (t, w) in enumerate(zip(row, widths))) + " |"
        for row in texts
    ]
    rule = "|" + "|".join("-" * (w + 2) if i == 0 else "-" * (w + 1) + ":" for i, w in enumerate(widths)) + "|"
    return "\n".join([out[0], rule, *out[1:]])


def _mean(metric: str, values: Callable[[str], list[float]]) -> float:
    if metric == "h":
        return harmonic_mean(mean_std(values("base"))[0], mean_std(values("new"))[0])
    return mean_std(values(metric))[0]


def _take(records: Sequence[Record], metric: str) -> list[float]:
    for record in records:
        if metric not in record.metrics:
            raise ValueError(
                f"metric: a {record.protocol!r} record has no {metric!r}; it has {', '.join(record.metrics)}"
            )
    return [record.metrics[metric] for record in records]


def _check_equal(records: Sequence[Record]) -> None:
    def settings(record: Record) -> dict[str, Any]:
        extra = {
            f"{kind} {name}": value
            for kind in ("hyper", "options")
            for name, value in getattr(record, kind)
            if name not in SEEDS
        }
        prints = {f"fingerprint of {name}": value for name, value in record.fingerprints.items()}
        return {name: getattr(record, name) for name in SETTINGS} | extra | prints

    first, seen = settings(records[0]), set()
    for record in records:
        here = settings(record)
        for name in first.keys() | here.keys():
            if first.get(name) != here.get(name):
                raise ValueError(
                    f"records of one cell differ in {name} ({first.get(name)!r} and {here.get(name)!r}): "
                    "make it the rows or columns, or choose the records first"
                )
        seeds = tuple(record.get(name) for name in SEEDS)
        if seeds in seen:
            raise ValueError(f"the same record is there twice: {record.job}")
        seen.add(seeds)


def _values(records: Sequence[Record], name: str) -> list[Any]:
    """The distinct values of a field: numbers sorted, others in the order of their first record, None last."""
    values = list(dict.fromkeys(r.get(name) for r in records))
    present = [v for v in values if v is not None]
    if not present:
        raise ValueError(f"no record has a field, hyper-parameter or option {name!r}")
    if all(isinstance(v, int | float) for v in present):
        present.sort()
    return [*present, *([None] if None in values else [])]
