import json

import pytest

from vlmcourse.errors import DataError
from vlmcourse.evaluation.records import Job, Record, find_record, load_records, read_record, record_path, write_record

JOB = Job("coop", "toy", shots=4, hyper={"n_ctx": 4, "lr": 0.002, "words": ["a", "photo"]}, options={"split_seed": 1})


def record(job: Job = JOB, **metrics: float) -> Record:
    return Record(**vars(job), metrics=metrics or {"top1": 0.5}, seconds=1.5, fingerprints={"backbone": "b"})


def test_hyper_parameters_are_sorted_and_frozen():
    assert JOB.hyper == (("lr", 0.002), ("n_ctx", 4), ("words", ("a", "photo")))
    twin = Job(
        "coop", "toy", shots=4, hyper={"words": ("a", "photo"), "lr": 0.002, "n_ctx": 4}, options=[("split_seed", 1)]
    )
    assert twin == JOB and hash(twin) == hash(JOB) and twin.hash == JOB.hash


def test_every_field_is_part_of_the_identity():
    changes = {
        "method": "x",
        "task": "x",
        "protocol": "x",
        "shots": 5,
        "draw_seed": 2,
        "init_seed": 2,
        "backbone": "x",
        "pretrained": "x",
        "dtype": "x",
        "profile": "x",
        "hyper": {"n_ctx": 5},
        "options": {},
    }
    assert changes.keys() == Job.__dataclass_fields__.keys()
    hashes = {Job(**{**vars(JOB), name: value}).hash for name, value in changes.items()}
    assert len(hashes | {JOB.hash}) == len(changes) + 1


def test_hash_is_fixed_for_all_time():
    """File names depend on it: the same in every process, on every machine, in every release."""
    assert Job("a", "b", hyper={"y": 1, "x": [2.5, None]}).hash == "8c7236d2e159e816"


def test_results_are_not_part_of_the_identity():
    assert record(top1=0.1).hash == record(top1=0.2).hash == JOB.hash and record().job == JOB


def test_round_trip(tmp_path):
    path = write_record(record(top1=0.625, ece=0.1), tmp_path / "new" / "folder")
    assert path == record_path(JOB, tmp_path / "new" / "folder") and path.name == f"{JOB.hash}.json"
    back = read_record(path)
    assert back == record(top1=0.625, ece=0.1) and find_record(JOB, path.parent) == back
    text = json.loads(path.read_text())
    assert text["hyper"] == {"lr": 0.002, "n_ctx": 4, "words": ["a", "photo"]} and text["metrics"]["top1"] == 0.625


def test_get_finds_fields_settings_and_metrics():
    r = record(top1=0.5)
    assert [r.get(n) for n in ("method", "n_ctx", "split_seed", "top1", "nothing")] == ["coop", 4, 1, 0.5, None]


def test_no_record(tmp_path):
    assert find_record(JOB, tmp_path) is None and find_record(JOB, tmp_path / "none") is None
    assert load_records(tmp_path) == []


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b"null", b"{}", b"\xff\xfe", "half", "metrics", "other job", "text"]
)
def test_damaged_record_is_moved_aside(tmp_path, damage):
    path = write_record(record(), tmp_path)
    content = path.read_bytes()
    if damage == "half":
        damage = content[: len(content) // 2]
    elif damage == "metrics":
        damage = content.replace(b'"top1": 0.5', b"")
    elif damage == "text":
        damage = content.replace(b'"top1": 0.5', b'"top1": "0.5"')
    elif damage == "other job":
        damage = content.replace(b'"shots": 4', b'"shots": 5')
    path.write_bytes(damage)
    with pytest.raises(DataError, match="delete it and run its job again"):
        read_record(path)
    with pytest.warns(UserWarning, match="was moved to"):
        assert find_record(JOB, tmp_path) is None
    assert not path.exists() and path.with_name(path.name + ".damaged").read_bytes() == damage
    assert load_records(tmp_path) == []  # what was moved aside is not looked at


def test_load_reports_damaged_files_and_keeps_the_rest(tmp_path):
    good = write_record(record(), tmp_path)
    (tmp_path / "0000000000000000.json").write_text("{")
    (tmp_path / ".hidden.json").write_text("{")
    with pytest.warns(UserWarning, match="1 of 2 records left out:\n.*0000000000000000.json") as warned:
        assert load_records(tmp_path) == [read_record(good)]
    assert len(warned) == 1


def test_not_a_number_is_never_written(tmp_path):
    with pytest.raises(ValueError, match="JSON"):
        write_record(record(top1=float("nan")), tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"method": ""}, "method must be a non-empty string"),
        ({"task": None}, "task must be a non-empty string"),
        ({"shots": 0}, "shots must be an integer >= 1, got 0"),
        ({"shots": 1.0}, "shots must be an integer"),
        ({"draw_seed": -1}, "draw_seed must be an integer >= 0"),
        ({"init_seed": True}, "init_seed must be an integer"),
        ({"pretrained": 3}, "pretrained must be"),
        ({"hyper": {"a": object()}}, "hyper must be a dict of numbers"),
        ({"hyper": {"a": float("inf")}}, "hyper must be a dict of numbers"),
        ({"hyper": {"a": {"b": 1}}}, "hyper must be a dict of numbers"),
        ({"hyper": {1: 2}}, "names as keys"),
        ({"hyper": 3}, "hyper must be a dict"),
        ({"options": ["ab", "c"]}, "options must be"),
    ],
)
def test_wrong_jobs(wrong, message):
    with pytest.raises(ValueError, match=message):
        Job(**{"method": "m", "task": "t", **wrong})
