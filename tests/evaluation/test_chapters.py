"""The grids of the chapters: every method of the part is in, and the shipped records belong to them."""

import pytest

from vlmcourse.backbone.load import load_backbone
from vlmcourse.evaluation import chapters
from vlmcourse.evaluation.records import load_records
from vlmcourse.methods import list_methods
from vlmcourse.tasks import get_task


def test_every_text_prompt_for_single_labels_is_compared():
    registered = {n for n, cls in list_methods("text prompt").items() if "multi-label" not in cls.card.setup}
    assert registered - set(chapters.TEXT_PROMPTS) <= {"plot_pp"}  # its tower runs once per set of visual prompts
    jobs = chapters.text_prompts()
    assert len(set(jobs)) == len(jobs)


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
