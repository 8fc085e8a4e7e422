"""MaskCLIP+: what the network is taught, the folded head, its three uses, seeds, errors."""

import pytest
import torch

from vlmcourse.methods.other_methods.maskclip import MaskCLIP
from vlmcourse.methods.other_methods.maskclip_plus import MaskCLIPPlus, Student
from vlmcourse.tasks.segmentation import IGNORE

SHORT = {"epochs": 3, "batch_size": 4, "width": 8, "lr": 0.05}


def test_texts_can_be_folded_into_the_head():
    student, text = Student(3, 16, width=8), torch.randn(5, 16, generator=torch.Generator().manual_seed(1))
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(2))
    dense = student(x)
    assert dense.shape == (2, 16, 4, 4)
    torch.testing.assert_close(
        student.scores(x, text), torch.einsum("behw,ce->bchw", dense, text), atol=1e-5, rtol=1e-4
    )


def test_annotation_free_targets_are_the_teachers_masks(tower, mask_splits):
    split = mask_splits(6, size=tower.image_size)
    method = MaskCLIPPlus(tower, **SHORT).fit(split)
    targets, free = method.pseudo_labels(split)
    assert torch.equal(targets.long(), MaskCLIP(tower).fit(split).segment(split)) and free.all()
    other = split.__class__(split.images, torch.full_like(split.labels, IGNORE), split.class_names, split.templates)
    again = MaskCLIPPlus(tower, **SHORT).fit(other)
    assert torch.equal(method.segment(split), again.segment(split)), "no mask was read"
    reading = MaskCLIPPlus(tower, read_ignore=True, **SHORT).fit(split).pseudo_labels(split)[0]
    assert torch.equal(reading == IGNORE, split.labels == IGNORE)


def test_unlabelled_classes_get_labels_among_themselves(vit_backbone, mask_splits):
    split = mask_splits(8)
    method = MaskCLIPPlus(vit_backbone, unlabelled=("dog", "red_fox"), **SHORT).fit(split)
    targets, free = method.pseudo_labels(split)
    truth = split.labels
    assert method.self_training == 0.1
    assert torch.equal(free, (truth == 1) | (truth == 3)) and torch.equal(targets[~free], truth[~free])
    assert set(targets[free].tolist()) <= {1, 3}


def test_fit_lowers_what_it_optimises(tower, mask_splits):
    split = mask_splits(12, size=tower.image_size)
    for arguments in ({}, {"loss": "distil"}, {"unlabelled": ("dog",), "self_training": 1.0}):
        method = MaskCLIPPlus(tower, **(SHORT | {"epochs": 12} | arguments)).fit(split)
        losses = method.history["loss"]
        assert losses[-1] < losses[0] - (0.002 if arguments.get("loss") else 0.1)
        assert method.n_learned == sum(p.numel() for p in method.student.parameters()) > 0
        assert not any(p.requires_grad or p.grad is not None for p in tower.model.parameters())


def test_self_training_asks_the_network(vit_backbone, mask_splits):
    split = mask_splits(8)
    taught, own = (MaskCLIPPlus(vit_backbone, self_training=s, **SHORT).fit(split) for s in (1.0, 0.0))
    assert own.history["agreement"][-1] > 0.999 > taught.history["agreement"][-1]


def test_texts_can_change(vit_backbone, mask_splits):
    split = mask_splits(6)
    method = MaskCLIPPlus(vit_backbone, **SHORT).fit(split)
    moved = method.for_classes(split.class_names[::-1])
    torch.testing.assert_close(moved.score_maps(split).flip(1), method.score_maps(split), atol=1e-4, rtol=1e-4)
    images = split.images
    torch.testing.assert_close(
        method.score_maps(vit_backbone.preprocess(images)), method.score_maps(images), atol=1e-4, rtol=1e-4
    )


def test_seeds(vit_backbone, mask_splits):
    split = mask_splits(6)

    def run(seed):
        return MaskCLIPPlus(vit_backbone, seed=seed, **SHORT).fit(split).score_maps(split)

    torch.manual_seed(0)
    one, state = run(1), torch.get_rng_state()
    torch.manual_seed(0)
    assert torch.equal(one, run(1)) and torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(one, run(2))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"loss": "l2"}, "loss='l2'"),
        ({"trunk": "vgg"}, "trunk='vgg'"),
        ({"trunk": "stem"}, "trunk='stem' needs"),
        ({"self_training": 2}, "self_training=2"),
        ({"loss": "distil", "self_training": 0.5}, "distil"),
        ({"unlabelled": ("yak",)}, "unlabelled=\\('yak',\\)"),
        ({"unlabelled": "dog"}, "unlabelled='dog'"),
        ({"teacher": {"pd": 3}}, "pd=3"),
    ],
)
def test_bad_arguments_are_named(vit_backbone, mask_splits, arguments, message):
    with pytest.raises(ValueError, match=message):
        MaskCLIPPlus(vit_backbone, epochs=1, **arguments).fit(mask_splits(4))


def test_masks_are_asked_for_only_where_needed(vit_backbone, train):
    method = MaskCLIPPlus(vit_backbone, **SHORT).fit(train)
    assert method.segment(train).shape == (16, 32, 32)
    with pytest.raises(TypeError, match="must be a MaskSplit"):
        MaskCLIPPlus(vit_backbone, unlabelled=("dog",), **SHORT).fit(train)
