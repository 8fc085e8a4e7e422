import pickle

import pytest
import torch

from vlmcourse.tasks import Split
from vlmcourse.tasks.split import permutation

IMAGES = torch.arange(4 * 3 * 2 * 2, dtype=torch.uint8).view(4, 3, 2, 2)
LABELS = [0, 1, 1, 0]


def build(images=IMAGES, labels=LABELS, names=("ant", "bee"), templates=("a {}.",), **more) -> Split:
    return Split(images, labels, names, templates, **more)


def test_contents():
    split = build(name="s")
    image, label = split[1]
    assert len(split) == 4 and split.num_classes == 2 and split.counts.tolist() == [2, 2]
    assert torch.equal(image, IMAGES[1]) and label == 1 and type(label) is int
    assert split.labels.dtype == torch.int64 and repr(split) == "Split('s', 4 images, 2 classes)"
    assert [label for _, label in split] == LABELS  # iteration ends at the last image


def test_images_are_loaded_once_and_only_when_needed():
    calls = []

    def load():
        calls.append(1)
        return IMAGES

    split = build(load, fingerprint="given")
    part = split.subset([3, 0]).keep_classes([0])
    assert part.fingerprint and len(part) == 2 and not calls  # neither labels nor fingerprints need images
    assert torch.equal(part.images, IMAGES[[3, 0]]) and torch.equal(split.images, IMAGES)
    assert part.images is part.images and calls == [1]


def test_loader_that_brings_something_else():
    with pytest.raises(ValueError, match=r"must have shape \(4, 3, H, W\), got \(2, 3, 2, 2\)"):
        _ = build(lambda: IMAGES[:2]).images
    with pytest.raises(TypeError, match="uint8"):
        _ = build(lambda: IMAGES.float()).images


def test_subset_and_keep_classes_know_where_they_come_from():
    split = build()
    part = split.subset([2, 3, 0]).subset(torch.tensor([True, False, True]))
    root, indices = part.origin
    assert root is split and indices.tolist() == [2, 0] and part.labels.tolist() == [1, 0]
    bees = split.keep_classes([1])
    assert bees.class_names == ("bee",) and bees.labels.tolist() == [0, 0] and bees.origin[1].tolist() == [1, 2]
    swapped = split.keep_classes([1, 0])
    assert swapped.class_names == ("bee", "ant") and swapped.labels.tolist() == [1, 0, 0, 1]


def test_fingerprint_identifies_images_labels_and_order():
    prints = [build().fingerprint, build(labels=[0, 1, 1, 1]).fingerprint, build(IMAGES.flip(0)).fingerprint]
    prints += [
        build().subset([0, 1]).fingerprint,
        build().subset([1, 0]).fingerprint,
        build().keep_classes([1, 0]).fingerprint,
    ]
    assert len(set(prints)) == len(prints) and all(len(p) == 16 for p in prints)
    assert build().fingerprint == build(name="other", templates=("my {}.",)).fingerprint
    by_two_steps, in_one = build().subset([3, 2, 1]).subset([2, 0]), build().subset([1, 3])
    assert by_two_steps.fingerprint == in_one.fingerprint


def test_fingerprint_of_a_part_does_not_depend_on_when_it_is_asked_for():
    early, late = build(), build()
    first = early.subset([1]).fingerprint
    assert late.fingerprint and late.subset([1]).fingerprint == first


@pytest.mark.parametrize(
    ("wrong", "error", "message"),
    [
        ({"labels": [0, 1, 2, 0]}, ValueError, r"2 is outside 0\.\.1"),
        ({"labels": [0, -1, 1, 0]}, ValueError, r"-1 is outside 0\.\.1"),
        ({"labels": [0.0, 1.0, 0.0, 1.0]}, TypeError, "integers"),
        ({"labels": [True, False, True, False]}, TypeError, "integers"),
        ({"labels": [0, 1]}, ValueError, r"shape \(2, 3, H, W\)"),
        ({"labels": []}, ValueError, "N >= 1"),
        ({"labels": [[0], [1], [1], [0]]}, ValueError, "N >= 1"),
        ({"names": ()}, ValueError, "class_names must not be empty"),
        ({"names": ("ant", "ant")}, ValueError, r"distinct, but \['ant'\]"),
        ({"names": ("ant", " ")}, ValueError, "non-empty string"),
        ({"names": "ab"}, TypeError, "sequence of strings"),
        ({"templates": ("a photo.",)}, ValueError, 'exactly one "{}"'),
        ({"templates": ("{} {}.",)}, ValueError, 'exactly one "{}"'),
        ({"templates": "a {}."}, TypeError, "sequence of strings"),
        ({"images": IMAGES.float()}, TypeError, "uint8"),
        ({"images": IMAGES[:, :1]}, ValueError, "must have shape"),
        ({"images": IMAGES[0]}, ValueError, "must have shape"),
        ({"images": [1, 2]}, TypeError, "images must be"),
    ],
)
def test_wrong_arguments(wrong, error, message):
    with pytest.raises(error, match=message):
        build(**wrong)


@pytest.mark.parametrize(
    "indices", [[], [4], [-1], [[0]], torch.zeros(4, dtype=torch.bool), torch.ones(3, dtype=torch.bool)]
)
def test_wrong_indices(indices):
    with pytest.raises(ValueError, match="indices"):
        build().subset(indices)


@pytest.mark.parametrize("classes", [[], [0, 0], [2], [-1]])
def test_wrong_classes(classes):
    with pytest.raises(ValueError, match="distinct labels"):
        build().keep_classes(classes)


def test_float_indices():
    with pytest.raises(TypeError, match="indices must be integers"):
        build().subset([0.0])


def test_labels_are_a_copy():
    labels = torch.tensor(LABELS)
    split = build(labels=labels)
    labels[0] = 1
    assert split.labels.tolist() == LABELS


def test_splits_travel_between_processes():
    part = pickle.loads(pickle.dumps(build().subset([1, 2])))
    assert torch.equal(part.images, IMAGES[[1, 2]]) and part.fingerprint == build().subset([1, 2]).fingerprint


def test_another_kind_of_label():
    class MultiHot(Split):
        def check_labels(self, labels):
            return labels.long()

    part = MultiHot(IMAGES, torch.eye(4)[:, :2], ("ant", "bee")).subset([1, 3])
    assert type(part) is MultiHot and part[0][1].tolist() == [0, 1]


def test_permutation_is_fixed_for_all_time():
    """A shipped result depends on these orders: they must not change with a release of NumPy."""
    assert permutation(8, "task", "train", 4, 1, 0).tolist() == [2, 3, 7, 4, 0, 5, 1, 6]
    assert (
        sorted(permutation(50, "a")) == list(range(50))
        and permutation(50, "a").tolist() != permutation(50, "b").tolist()
    )
