"""Metrics, protocols, result records, sweeps and tables.

Start with `run_one(Job("coop", "fashion_mnist"))`, or with `grid`, `run_jobs` and `table`.
"""

from vlmcourse.evaluation.metrics import ece, format_mean_std, harmonic_mean, mean_std, top1
from vlmcourse.evaluation.records import Job, Record, load_records
from vlmcourse.evaluation.run import Sweep, grid, run_jobs, run_one
from vlmcourse.evaluation.tables import table, text_table

__all__ = [
    "Job",
    "Record",
    "Sweep",
    "ece",
    "format_mean_std",
    "grid",
    "harmonic_mean",
    "load_records",
    "mean_std",
    "run_jobs",
    "run_one",
    "table",
    "text_table",
    "top1",
]
