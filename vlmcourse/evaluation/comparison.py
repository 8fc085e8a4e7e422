"""The table of a chapter: a row per method, with what it reaches, what it costs and what it asks of the model.

comparison(records, ["zero_shot", "coop"], "office", {"16 shots": ("domain_generalisation", "source")})
"""

from collections.abc import Iterable, Mapping, Sequence

from vlmcourse.evaluation.metrics import format_mean_std, mean_std
from vlmcourse.evaluation.records import Record
from vlmcourse.methods import get_method

MISSING = "–"


def values(records: Iterable[Record], method: str, task: str, protocol: str, metric: str) -> list[float]:
    """One metric over the seeds, in their order; [] where nothing was measured."""
    found = [r for r in records if (r.method, r.task, r.protocol) == (method, task, protocol)]
    return [r.metrics[metric] for r in sorted(found, key=lambda r: (r.draw_seed, r.init_seed))]


def fit_seconds(records: Iterable[Record], method: str, task: str, protocol: str) -> float:
    """Mean seconds of one fit. Raises ValueError where nothing was measured."""
    found = [r.fit_seconds for r in records if (r.method, r.task, r.protocol) == (method, task, protocol)]
    return mean_std(found)[0]


def comparison(
    records: Sequence[Record], methods: Iterable[str], task: str, columns: Mapping[str, tuple[str, str]]
) -> list[dict[str, str]]:
    """Rows for `text_table`. columns: {head: (protocol, metric)}, shown in % as mean ± std over the seeds.

    Then come seconds of a fit under the first column's protocol, learned numbers, and what the card says of where a
    method acts and what it needs.
    """
    protocol = next(iter(columns.values()))[0]
    rows = []
    for name in methods:
        card, row = get_method(name).card, {"method": name}
        for head, (kind, metric) in columns.items():
            measured = values(records, name, task, kind, metric)
            row[head] = format_mean_std(measured) if measured else MISSING
        learned = max(r.n_learned for r in records if (r.method, r.task) == (name, task))
        row |= {"seconds": f"{fit_seconds(records, name, task, protocol):.1f}", "learned": f"{learned:,}"}
        rows.append(row | {"acts on": card.acts_on, "needs": card.needs})
    return rows
