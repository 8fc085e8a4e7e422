import json
import multiprocessing
import sys
import time
import warnings

import pytest
import torch

from vlmcourse.evaluation import run as run_module
from vlmcourse.evaluation.records import Job, load_records, read_record, record_path
from vlmcourse.evaluation.run import grid, run_jobs, run_one

JOB = Job("pixels", "toy", shots=4, backbone="none")


@pytest.fixture
def run(pixels, backbone, tmp_path, monkeypatch):
    """run(job, …) -> Record with the fake backbone; run.draws has the images of each training."""
    fit = pixels.fit

    def logged(self, train, val=None):
        run.draws.append(train.origin[1].tolist())
        return fit(self, train, val)

    def run(job, folder=tmp_path, **settings):
        return run_one(job, folder, backbone=backbone, **settings)

    monkeypatch.setattr(pixels, "fit", logged)
    monkeypatch.setattr(run_module, "_backbone", lambda name, pretrained, dtype, device: backbone)
    run.draws = []
    return run


def test_record(run, task, pixels, backbone, tmp_path):
    record = run(JOB)
    assert record.job == JOB and read_record(record_path(JOB, tmp_path)) == record
    assert record.metrics["top1"] == pixels(backbone, seed=1).fit(*task.few_shot(4, 1)).score(task.test)
    assert record.fingerprints == {"backbone": "0" * 16, "toy": task.fingerprint}
    assert record.n_learned == 60 and record.seconds >= record.fit_seconds >= 0
    assert record.versions["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert {"vlmcourse", "python", "open_clip_torch", "device"} <= record.versions.keys()


def test_seeds_are_separate(run):
    first = run(JOB)
    other_init = run(Job(**{**vars(JOB), "init_seed": 2}))
    other_draw = run(Job(**{**vars(JOB), "draw_seed": 2}))
    assert run.draws[0] == run.draws[1] != run.draws[2]
    assert first.metrics != other_init.metrics and first.metrics != other_draw.metrics


def test_initialisation_seed_leaves_the_draw_alone_in_every_protocol(run):
    for protocol, options in (
        ("base_to_new", {"split_seed": 1}),
        ("domain_generalisation", {}),
        ("cross_task", {"targets": ["toy2"]}),
    ):
        run.draws.clear()
        for seed in (1, 2):
            run(Job("pixels", "toy", protocol, 3, 1, seed, "none", options=options))
        assert run.draws[0] == run.draws[1]


def test_hyper_parameters_reach_the_method(run):
    assert run(JOB).metrics != run(Job(**{**vars(JOB), "hyper": {"noise": 50.0}})).metrics
    with pytest.raises(TypeError, match="speed"):
        run(Job(**{**vars(JOB), "hyper": {"speed": 1}}))


def test_what_is_there_is_not_run_again(run, tmp_path):
    first = run(JOB)
    assert run(JOB) == first and len(run.draws) == 1
    again = run(JOB, fresh=True)
    assert len(run.draws) == 2 and again.metrics == first.metrics  # deterministic
    assert len(load_records(tmp_path)) == 1


def test_damaged_record_is_measured_again(run, tmp_path):
    first = run(JOB)
    record_path(JOB, tmp_path).write_text("{")
    with pytest.warns(UserWarning, match="was moved to"):
        assert run(JOB).metrics == first.metrics
    assert read_record(record_path(JOB, tmp_path)).metrics == first.metrics


def test_record_of_other_weights_is_measured_again(run, backbone):
    run(JOB)
    backbone.fingerprint = "1" * 16
    with pytest.warns(UserWarning, match="other weights or data"):
        assert run(JOB).fingerprints["backbone"] == "1" * 16
    assert run(JOB) and len(run.draws) == 2


def test_fingerprints_of_all_tasks_in_use(run):
    record = run(Job("pixels", "toy", "cross_task", 2, backbone="none", options={"targets": ["toy2"]}))
    assert record.fingerprints.keys() == {"backbone", "toy", "toy2"}


def test_backbone_must_be_the_jobs(run):
    for change in ({"backbone": "other"}, {"dtype": "float16"}):
        with pytest.raises(ValueError, match="the job wants"):
            run(Job(**{**vars(JOB), **change}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"protocol": "zero"}, "protocol must be one of few_shot, base_to_new"),
        ({"method": "pixel"}, "did you mean.*pixels"),
        ({"task": "toyy"}, "did you mean 'toy"),
    ],
)
def test_unknown_names(run, tmp_path, change, message):
    job = Job(**{**vars(JOB), **change})
    with pytest.raises(ValueError, match=message):
        run(job)
    with pytest.raises(ValueError, match=message):
        run_jobs([JOB, job], tmp_path)
    assert not run.draws


def test_grid():
    jobs = grid(
        method=["zero_shot", "coop"],
        task="toy",
        shots=[1, 4],
        seed=(1, 2),
        hyper={"coop": [{"n_ctx": 4}, {"n_ctx": 16}]},
    )
    assert len(jobs) == len(set(jobs)) == 4 + 8
    assert all(job.draw_seed == job.init_seed for job in jobs)
    assert {dict(j.hyper).get("n_ctx") for j in jobs if j.method == "coop"} == {4, 16}
    assert all(j.hyper == () for j in jobs if j.method == "zero_shot")
    apart = grid(method="coop", task="toy", draw_seed=1, init_seed=range(3), profile="quick", options={"split_seed": 1})
    assert [j.init_seed for j in apart] == [0, 1, 2] and {j.draw_seed for j in apart} == {1}
    assert apart[0].options == (("split_seed", 1),)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"task": "t"}, "needs method and task"),
        ({"method": "m", "task": "t", "speed": 1}, r"unknown: \['speed'\]"),
        ({"method": "m", "task": []}, "task must not be an empty list"),
        ({"method": "m", "task": "t", "seed": 1, "draw_seed": 1}, "give either seed or these"),
        ({"method": "m", "task": "t", "hyper": {"coop": {}}}, "hyper is for the methods of the grid"),
    ],
)
def test_wrong_grids(wrong, message):
    with pytest.raises(ValueError, match=message):
        grid(**wrong)


def test_sweep_goes_on_after_a_failure_and_resumes(run, tmp_path, capsys):
    bad = Job(**{**vars(JOB), "shots": 99})
    jobs = [JOB, bad, *grid(method="pixels", task="toy", shots=[1, 2], seed=[1, 2], backbone="none"), JOB]
    with pytest.warns(UserWarning, match="(?s)1 of 6 jobs failed; the first is .*shots must be at most 12"):
        records, failures = run_jobs(jobs, tmp_path, progress=True)
    assert [r.job for r in records] == [j for j in dict.fromkeys(jobs) if j != bad] and failures.keys() == {bad}
    assert "6/6" in capsys.readouterr().err
    with pytest.warns(UserWarning, match="1 of 6"):
        again = run_jobs(jobs, tmp_path)
    assert again.records == records and len(run.draws) == 5  # nothing was trained again
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("workers", [0, -1, 1.5, True])
def test_wrong_number_of_workers(workers):
    with pytest.raises(ValueError, match="workers must be an integer >= 1"):
        run_jobs([JOB], workers=workers)


def test_sweep_with_a_loaded_backbone(run, backbone, tmp_path, monkeypatch):
    monkeypatch.setattr(run_module, "_backbone", None)  # nothing is loaded
    assert len(run_jobs([JOB], tmp_path, backbone=backbone).records) == 1
    with pytest.raises(ValueError, match="backbone can be given with workers=1 only"):
        run_jobs([JOB], tmp_path, workers=2, backbone=backbone)


def test_no_jobs(tmp_path):
    assert run_jobs([], tmp_path, workers=4) == ([], {})


FAKE = '''
import json, os, signal, time
from vlmcourse.evaluation.records import Record, find_record, write_record

def run(job, folder, device="cpu", fresh=False):
    """Stands for run_one: shots 13 kills its process, shots 14 fails, others write a record that says who wrote it."""
    if job.shots == 13:
        os.kill(os.getpid(), signal.SIGKILL)
    if job.shots == 14:
        raise ValueError("unlucky as well")
    if (found := find_record(job, folder)) is not None and not fresh:
        return found
    record = Record(**vars(job.job), metrics={"top1": 0.5}, versions={"pid": str(os.getpid())})
    for _ in range(job.init_seed):
        write_record(record, folder)
    return record
'''


@pytest.fixture
def fake_run(tmp_path, monkeypatch):
    (tmp_path / "fake_run_one.py").write_text(FAKE)
    monkeypatch.syspath_prepend(tmp_path)
    import fake_run_one

    yield fake_run_one.run
    del sys.modules["fake_run_one"]


@pytest.mark.slow
def test_a_killed_process_loses_only_its_job(fake_run, tmp_path):
    jobs = [Job("m", "t", shots=s) for s in (1, 13, 2, 14, 3, 4)]
    with pytest.warns(UserWarning, match="2 of 6 jobs failed"):
        records, failures = run_jobs(jobs, tmp_path / "runs", workers=2, run=fake_run)
    assert [r.shots for r in records] == [1, 2, 3, 4]
    assert "exit code -9" in failures[jobs[1]] and "unlucky as well" in failures[jobs[3]]
    assert len(load_records(tmp_path / "runs")) == 4
    assert not multiprocessing.active_children()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again = run_jobs([jobs[0], jobs[2]], tmp_path / "runs", run=fake_run)
    assert again.records == records[:2]  # read, not written: the process ids are those of the first time


@pytest.mark.slow
def test_two_processes_write_the_same_record(fake_run, tmp_path):
    job = Job("m", "t", shots=1, init_seed=20)  # each process writes it 20 times
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=fake_run, args=(job, tmp_path), kwargs={"fresh": True}) for _ in range(2)]
    for writer in writers:
        writer.start()
    path, seen = record_path(job, tmp_path), set()
    while any(writer.is_alive() for writer in writers):
        if path.exists():
            seen.add(read_record(path).versions["pid"])  # never half a file
        time.sleep(0.002)
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert seen <= {str(writer.pid) for writer in writers} and json.loads(path.read_text())["metrics"] == {"top1": 0.5}
    assert [p.name for p in tmp_path.glob("*.json")] == [path.name]
    assert not list(tmp_path.glob(".*.part*"))
