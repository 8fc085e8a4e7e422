"""The grids of the chapters: every method of the part is in, and the shipped records belong to them."""

import pytest

from vlmcourse.backbone.load import load_backbone
from vlmcourse.evaluation import chapters
from vlmcourse.evaluation.records import load_records
from vlmcourse.methods import list_methods
from vlmcourse.tasks import get_task

PARTS = {  # families, the grid, and methods that answer another question or cost too much
    "text_prompts": (["text prompt"], chapters.TEXT_PROMPTS, {"plot_pp"}),
    "visual_prompts": (["visual prompt", "text-visual prompt"], chapters.VISUAL_PROMPTS, set()),
    "adapters": (["adapter"], chapters.ADAPTERS, set()),
    "other_methods": (["other"], chapters.OTHER_METHODS, set()),
}


@pytest.mark.parametrize("part", PARTS)
def test_every_single_label_method_of_the_part_is_compared(part):
    families, grid, left_out = PARTS[part]
    setups = {n: cls.card.setup for family in families for n, cls in list_methods(family).items()}
    single_label = {n for n, s in setups.items() if not s.startswith(("multi-label", "dense")) and "taxonomy" not in s}
    assert single_label - set(grid) == left_out
    jobs = chapters.CHAPTERS[part]()
    assert len(set(jobs)) == len(jobs) and {job.method for job in jobs} == set(grid)


def test_a_method_that_needs_the_tasks_name_gets_it():
    jobs = [job for job in chapters.adapters() if job.method == "svl_adapter"]
    assert jobs and all(dict(job.hyper)["unlabelled"] == job.task for job in jobs)


@pytest.mark.parametrize("chapter", chapters.CHAPTERS)
def test_the_shipped_records_are_whole_and_up_to_date(chapter):
    jobs, records = chapters.CHAPTERS[chapter](), load_records(chapters.records_dir(chapter))
    assert {r.job for r in records} == set(jobs)
    tasks = {job.task: get_task(job.task).fingerprint for job in jobs}
    weights = load_backbone().fingerprint
    assert all(r.fingerprints == {"backbone": weights, r.task: tasks[r.task]} for r in records)


def test_the_command_measures_and_names_its_folder(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(chapters, "records_dir", lambda chapter: tmp_path)
    few = [job for job in chapters.text_prompts() if job.method == "zero_shot"][:1]
    monkeypatch.setitem(chapters.CHAPTERS, "text_prompts", lambda: few)
    chapters.main(["text_prompts", "--workers", "1"])
    assert "1 of 1 records" in capsys.readouterr().out
    assert [path.stem for path in tmp_path.glob("*.json")] == [few[0].hash]
    with pytest.raises(SystemExit):
        chapters.main(["astrology"])
