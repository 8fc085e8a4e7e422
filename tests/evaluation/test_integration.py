"""Real methods through the whole path: task, draw, fit, test, record, table. Random weights: numbers mean nothing."""

import pytest

from vlmcourse.evaluation import Job, grid, load_records, run_jobs, run_one, table, text_table
from vlmcourse.evaluation import run as run_module


@pytest.fixture(autouse=True)
def tiny(vit_backbone, tmp_path, monkeypatch):
    monkeypatch.setenv("VLMCOURSE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(run_module, "_backbone", lambda name, pretrained, dtype, device: vit_backbone)


def test_sweep_to_table(tmp_path):
    settings = {"task": "fashion_mnist", "shots": [1, 2], "seed": [1, 2], "backbone": "tiny"}
    jobs = grid(method=["zero_shot", "coop"], **settings, hyper={"coop": {"n_ctx": 2, "epochs": 2}})
    records, failures = run_jobs(jobs, tmp_path / "runs")
    assert not failures and len(records) == 8 == len(load_records(tmp_path / "runs"))
    assert len({r.metrics["top1"] for r in records if r.method == "zero_shot"}) == 1  # needs no images and no seeds
    assert {r.n_learned for r in records} == {0, 2 * 32}
    lines = table(records, rows="method", columns="shots")
    assert [line["method"] for line in lines] == ["zero_shot", "coop"] and lines[1][2].n == 2
    assert "± 0.0" in text_table(lines).splitlines()[2]
    again = run_one(jobs[-1], tmp_path / "other", fresh=True)
    assert again.metrics == records[-1].metrics  # equal from run to run


def test_base_to_new_and_cross_task_with_coop(tmp_path):
    coop = {"method": "coop", "shots": 1, "backbone": "tiny", "hyper": {"ctx_init": "a photo of a", "epochs": 1}}
    halves = run_one(Job(task="digits", protocol="base_to_new", **coop), tmp_path)
    assert set(halves.metrics) == {"base", "new", "h", "base_ece", "new_ece"}
    moved = run_one(Job(task="digits", protocol="cross_task", options={"targets": ["fashion_mnist"]}, **coop), tmp_path)
    assert moved.metrics["average"] == moved.metrics["fashion_mnist"]
    coop["hyper"] = {"csc": True, "epochs": 1, "n_ctx": 2}
    with pytest.raises(ValueError, match="CSC"):
        run_one(Job(task="digits", protocol="base_to_new", **coop), tmp_path)
    assert len(load_records(tmp_path)) == 2
