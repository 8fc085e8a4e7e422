"""Multi-label tasks: labels with unknowns, partial labels, class columns, the seen/unseen cut, composed scenes."""

import pytest
import torch

from vlmcourse.backbone.features import image_features
from vlmcourse.tasks import get_task
from vlmcourse.tasks.emoji import artwork, drawings
from vlmcourse.tasks.multi_label import ABSENT, PRESENT, UNKNOWN, MultiLabelSplit, MultiLabelTask, scene_split
from vlmcourse.world.concepts import load_concepts

NAMES = ("ant", "bee", "cat", "dog")
LABELS = torch.tensor([[1, 0, 0, 1], [0, 1, 0, 0], [1, 1, 1, 0], [0, 0, 0, 1], [0, 0, 1, 0]])


def make_split(labels=LABELS, name="toy/train", boxes=None) -> MultiLabelSplit:
    images = torch.arange(len(labels), dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 4, 4)
    return MultiLabelSplit(images, labels, NAMES, ("a {}.",), name, boxes=boxes)


def test_labels_are_a_table():
    split = make_split()
    assert split.labels.shape == (5, 4) and split.labels.dtype == torch.int64 and len(split) == 5
    assert split.counts.tolist() == [2, 2, 2, 2] and split.known.all()
    image, label = split[2]
    assert image.shape == (3, 4, 4) and label.tolist() == [1, 1, 1, 0]
    assert torch.equal(make_split(LABELS.bool()).labels, LABELS)


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (torch.zeros(5), ValueError, r"shape \(N, 4\)"),
        (torch.zeros(5, 3).long(), ValueError, r"got \(5, 3\)"),
        (torch.zeros(0, 4).long(), ValueError, "N >= 1"),
        (torch.zeros(5, 4), TypeError, "float32"),
        (torch.full((5, 4), 2), ValueError, r"1, 0 or -1, got \[2\]"),
    ],
)
def test_wrong_labels_are_named(labels, error, message):
    with pytest.raises(error, match=message):
        make_split(labels)


def test_subsets_keep_rows_and_know_their_pictures():
    split = make_split()
    part = split.subset(torch.tensor([True, False, True, False, False]))
    assert torch.equal(part.labels, LABELS[[0, 2]]) and part.images[:, 0, 0, 0].tolist() == [0, 2]
    assert isinstance(part, MultiLabelSplit)
    assert part.image_fingerprint != split.image_fingerprint == split.fingerprint
    with pytest.raises(ValueError, match=r"shape \(5,\)"):
        split.subset(torch.ones(5, 4, dtype=torch.bool))


def test_hidden_labels_are_unknown_and_nothing_else_changes():
    split = make_split(LABELS.repeat(400, 1))
    masks = {}
    for share in (0.1, 0.5, 0.9):
        hidden = split.hide_labels(share, seed=3)
        masks[share] = hidden.known
        assert torch.equal(hidden.labels[hidden.known], split.labels[hidden.known])
        assert (hidden.labels[~hidden.known] == UNKNOWN).all()
        for value in (PRESENT, ABSENT):  # positives and negatives alike
            assert hidden.known[split.labels == value].double().mean().item() == pytest.approx(share, abs=0.04)
        assert torch.equal(hidden.images, split.images)
        assert hidden.image_fingerprint == split.image_fingerprint and hidden.fingerprint != split.fingerprint
    assert masks[0.9][masks[0.5]].all() and masks[0.5][masks[0.1]].all(), "masks of one seed are nested"
    assert torch.equal(split.hide_labels(0.5, 3).labels, split.hide_labels(0.5, 3).labels)
    assert not torch.equal(split.hide_labels(0.5, 3).labels, split.hide_labels(0.5, 4).labels)
    assert torch.equal(split.hide_labels(1, 3).labels, split.labels)


def test_features_are_computed_once_whatever_labels_are_known(vit_backbone, tmp_path, monkeypatch):
    monkeypatch.setenv("VLMCOURSE_CACHE", str(tmp_path))
    split = make_split()
    features = image_features(vit_backbone, split)
    assert torch.equal(image_features(vit_backbone, split.hide_labels(0.5, 0)), features)
    assert torch.equal(image_features(vit_backbone, split.subset([3, 0])), features[[3, 0]])
    assert len(list((tmp_path / "features").glob("*.safetensors"))) == 1


@pytest.mark.parametrize(("share", "seed"), [(0, 1), (1.1, 1), ("half", 1), (True, 1), (0.5, 1.5)])
def test_wrong_shares_and_seeds_are_named(share, seed):
    with pytest.raises(ValueError, match="share_known=|seed must"):
        make_split().hide_labels(share, seed)


def test_some_classes_only():
    kept = make_split().keep_classes([3, 0])
    assert kept.class_names == ("dog", "ant")
    assert kept.labels.tolist() == [[1, 1], [0, 1], [1, 0]] and kept.images[:, 0, 0, 0].tolist() == [0, 2, 3]
    for classes in ([], [0, 0], [4]):
        with pytest.raises(ValueError, match="classes must be distinct"):
            make_split().keep_classes(classes)
    with pytest.raises(ValueError, match="no image"):
        make_split(LABELS[:2]).keep_classes([2])


def test_boxes_follow_images_and_classes():
    table = torch.arange(5 * 4 * 4).reshape(5, 4, 4).float()
    split = make_split(boxes=lambda: table)
    assert torch.equal(split.boxes, table)
    assert torch.equal(split.hide_labels(0.5, 0).subset([4, 1]).boxes, table[[4, 1]])
    assert torch.equal(split.keep_classes([2]).boxes, table[[2, 4]][:, [2]])
    with pytest.raises(RuntimeError, match="has no boxes"):
        _ = make_split().boxes


def toy_task(**more) -> MultiLabelTask:
    parts = {
        part: make_split(LABELS.repeat(n, 1), f"toy/{part}") for part, n in (("train", 8), ("val", 2), ("test", 4))
    }
    return MultiLabelTask("toy", "Toy", **parts, licence="CC0", kind="multi-label", **more)


def test_draws_take_scenes_not_images_of_a_class():
    task = toy_task()
    train, val = task.few_shot(5, seed=1)
    assert len(train) == 20 and len(val) == 10 and train.class_names == NAMES
    assert torch.equal(train.labels, task.few_shot(5, 1).train.labels)
    assert not torch.equal(train.origin[1], task.few_shot(5, 2).train.origin[1])
    for shots in (0, 11, True, 2.0):
        with pytest.raises(ValueError, match="shots must"):
            task.few_shot(shots, 1)
    with pytest.raises(ValueError, match="seed must"):
        task.few_shot(1, "a")


def test_seen_and_unseen_classes():
    seen, unseen = toy_task(unseen_classes=("cat",)).seen_unseen()
    assert seen.class_names == ("ant", "bee", "dog") and unseen.class_names == ("cat",)
    assert seen.name == "toy/seen" and seen.train.labels.shape[1] == 3 and len(unseen.test) == 8
    assert len(seen.few_shot(2, 0).train) == 6
    with pytest.raises(ValueError, match="no unseen classes"):
        toy_task().seen_unseen()
    with pytest.raises(ValueError, match="base_to_new is defined for single-label"):
        toy_task().base_to_new()


def test_the_embedded_tasks():
    for name, count in (("scenes", 24), ("scenes_85", 85)):
        task = get_task(name)
        assert task.num_classes == count and task.kind == "multi-label" and task.name in task.card
        for split in task.splits.values():
            objects = split.labels.sum(dim=1)
            assert objects.min() == 2 and objects.max() == 5 and (split.counts > 3).all()
        seen, unseen = task.seen_unseen()
        assert unseen.num_classes == count // 3 and not set(seen.class_names) & set(unseen.class_names)
        assert len({split.fingerprint for split in task.splits.values()}) == 3


def test_scenes_show_what_their_labels_say():
    names = ("bus", "cat", "key", "pen", "flag", "book")
    pools = [drawings(artwork(), load_concepts().by_name(name), "shared")["test"] for name in names]
    split = scene_split(pools, 20, names, "toy", seed=5)
    again = scene_split(pools, 20, names, "toy", seed=5)
    assert torch.equal(split.images, again.images) and split.fingerprint == again.fingerprint
    assert split.images.shape == (20, 3, 64, 64)
    seen = split.boxes[..., 2] > split.boxes[..., 0]
    assert torch.equal(seen, split.labels == PRESENT), "every object can be seen"
