"""SVL-Adapter: the blend and its ends, both choices of lambda, pseudo-labels, the encoder, inputs, errors."""

import pytest
import torch
import torch.nn.functional as F

from vlmcourse.backbone.features import image_features
from vlmcourse.methods.adapters.svl_adapter import GRID, SVLAdapter, confidence_lambda
from vlmcourse.methods.baselines.zero_shot import ZeroShot
from vlmcourse.methods.meta_net import MetaNet
from vlmcourse.methods.self_supervised import SimCLR
from vlmcourse.tasks import get_task

QUICK = {"epochs": 4, "lr": 0.01, "ssl_epochs": 1, "size": 16, "ssl_batch_size": 8}


@pytest.fixture(scope="module")
def encoder(splits):
    return SimCLR(size=16, epochs=2, batch_size=8).fit(splits(per_class=4, seed=1).images)


@pytest.mark.parametrize("weight", [0.0, 0.35, 1.0])
def test_logits_are_the_blend(tower, encoder, train, test_split, weight):
    method = SVLAdapter(tower, fusion=weight, simclr=encoder, epochs=3).fit(train)
    if tower.image_size == test_split.images.shape[-1]:
        h = encoder.features(test_split.images)
    else:
        h = encoder.features(tower.transform.resize(test_split.images))
    zero_shot = ZeroShot(tower).fit(train).logits(test_split)
    expected = weight * method.mlp(h) + (1 - weight) * zero_shot
    torch.testing.assert_close(method.logits(test_split), expected, atol=1e-3, rtol=1e-3)
    if weight == 0:
        torch.testing.assert_close(method.logits(test_split), zero_shot, atol=1e-4, rtol=0)


def test_the_adapter_has_the_official_size():
    assert sum(p.numel() for p in MetaNet(2048, 10, 256).parameters()) == 527_114


def test_lambda_is_the_first_best_on_validation(tower, encoder, train, val):
    method = SVLAdapter(tower, simclr=encoder, epochs=5).fit(train, val)
    fixed = [SVLAdapter(tower, fusion=a, simclr=encoder, epochs=5).fit(train, val) for a in (0.0, 0.4, 1.0)]
    assert [round(float(method.searched[i]), 6) for i in (0, 8, 20)] == [round(m.score(val), 6) for m in fixed]
    assert method.score(val) == pytest.approx(method.searched.max())
    assert method.fusion_weight == GRID[int(method.searched.argmax())].item()
    assert method.score(val) >= max(ZeroShot(tower).fit(train).score(val), fixed[2].score(val))
    assert fixed[0].searched is None


def test_confidence_gives_lambda_between_0_and_1_minus_1_over_c():
    assert confidence_lambda(torch.full((5, 4), 0.25)) == pytest.approx(0.75)
    assert confidence_lambda(F.one_hot(torch.arange(4)).float()) == 0.0
    assert 0 < confidence_lambda(torch.randn(50, 4, generator=torch.Generator().manual_seed(0)).softmax(-1)) < 0.75


def test_the_starred_form_reads_no_validation_labels(tower, encoder, train, val, test_split, splits):
    method = SVLAdapter(tower, fusion="confidence", simclr=encoder, epochs=2).fit(train, val)
    zero_shot = ZeroShot(tower).fit(train)
    probabilities = torch.cat([zero_shot.probabilities(train), zero_shot.probabilities(val)])
    assert method.fusion_weight == pytest.approx(1 - probabilities.max(dim=1).values.mean().item(), abs=1e-5)
    wrong = splits(per_class=3, seed=2)
    wrong.labels = wrong.labels.roll(5)
    again = SVLAdapter(tower, fusion="confidence", simclr=encoder, epochs=2).fit(train, wrong)
    assert again.fusion_weight == pytest.approx(method.fusion_weight, abs=1e-6)
    assert SVLAdapter(tower, simclr=encoder, epochs=1).fit(train).searched is None, "no validation: the starred form"
    moved = method.with_confidence_of(test_split)
    expected = 1 - zero_shot.probabilities(test_split).max(dim=1).values.mean().item()
    assert moved.fusion_weight == pytest.approx(expected, abs=1e-5) and moved.mlp is method.mlp
    assert method.fusion_weight != moved.fusion_weight


def test_raw_confidence_depends_on_the_length_of_features(tower, encoder, train):
    method = SVLAdapter(tower, fusion="confidence", simclr=encoder, epochs=1, confidence_features="raw").fit(train)
    raw = image_features(tower, train, normalise=False)
    p = (tower.logit_scale * raw @ method.text.T).softmax(-1)
    assert method.fusion_weight == pytest.approx(confidence_lambda(p), abs=1e-5)
    plain = SVLAdapter(tower, fusion="confidence", simclr=encoder, epochs=1).fit(train)
    assert plain.fusion_weight != pytest.approx(method.fusion_weight, abs=1e-3)


def test_pseudo_labels_read_no_labels(tower, encoder, train, val, test_split, splits):
    options = {"pseudo_labels": 2, "simclr": encoder, "epochs": 3}
    method = SVLAdapter(tower, **options).fit(train, val)
    zero_shot = ZeroShot(tower).fit(train)
    assert torch.equal(method.selection.labels, zero_shot.predict(train)[method.selection.indices])
    assert torch.bincount(method.selection.labels).max() <= 2 and method.searched is None
    shuffled = splits(per_class=4, seed=1)
    shuffled.labels = shuffled.labels.roll(5)
    assert torch.equal(SVLAdapter(tower, **options).fit(shuffled, val).logits(test_split), method.logits(test_split))
    assert method.logits(test_split).shape[1] == 4, "classes never predicted keep their column"


def test_fit_trains_encoder_and_adapter(vit_backbone, train, val, splits):
    unlabelled = splits(per_class=6, seed=9)
    method = SVLAdapter(vit_backbone, unlabelled=unlabelled, **QUICK | {"epochs": 30}).fit(train, val)
    assert method.history["loss"][-1] < method.history["loss"][0]
    assert {n.split(".")[0] for n in method.learned_parameters()} == {"adapter", "encoder"}
    expected = SimCLR(size=16, epochs=1, batch_size=8, lr=0.03).fit(unlabelled.images)
    torch.testing.assert_close(method.simclr.features(val.images), expected.features(val.images))
    own = SVLAdapter(vit_backbone, **QUICK).fit(train, val)
    both = SimCLR(size=16, epochs=1, batch_size=8, lr=0.03).fit(torch.cat([train.images, val.images]))
    torch.testing.assert_close(own.simclr.features(val.images), both.features(val.images))


def test_unlabelled_images_by_the_name_of_a_task(vit_backbone):
    pool = SVLAdapter(vit_backbone, unlabelled="digits", **QUICK)._pool()
    assert [split.name for split in pool] == [get_task("digits").train.name, get_task("digits").val.name]


def test_images_in_every_form_and_no_single_features(tower, encoder, train, test_split):
    method = SVLAdapter(tower, simclr=encoder, epochs=1).fit(train)
    logits = method.logits(test_split)
    images = test_split.images
    for x in (images, tower.preprocess(images), method.inputs(test_split)):
        torch.testing.assert_close(method.logits(x), logits, atol=1e-3, rtol=1e-3)
    torch.testing.assert_close(method.logits(images[0]), logits[:1], atol=1e-3, rtol=1e-3)
    with pytest.raises(ValueError, match="features of one encoder; SVL-Adapter has a second"):
        method.logits(image_features(tower, test_split))


def test_scale_seeds_and_classes(vit_backbone, encoder, train, test_split):
    official = SVLAdapter(vit_backbone, fusion=0.0, simclr=encoder, epochs=1, logit_scale=100.0).fit(train)
    own = SVLAdapter(vit_backbone, fusion=0.0, simclr=encoder, epochs=1).fit(train)
    ratio = 100.0 / vit_backbone.logit_scale
    torch.testing.assert_close(official.logits(test_split), ratio * own.logits(test_split), atol=1e-3, rtol=1e-4)
    one, same, other = (SVLAdapter(vit_backbone, seed=s, **QUICK).fit(train).logits(test_split) for s in (1, 1, 2))
    assert torch.equal(one, same) and not torch.allclose(one, other)
    with pytest.raises(ValueError, match="cannot move to classes it was not fitted on"):
        own.for_classes(["dog", "yak"])


@pytest.mark.parametrize("batch_size", [1, 7, 300])
def test_odd_batches(tower, encoder, train, val, batch_size):
    method = SVLAdapter(tower, simclr=encoder, epochs=1, batch_size=batch_size).fit(train, val)
    assert torch.isfinite(method.logits(val)).all()


def test_bad_arguments_are_named(vit_backbone, train):
    for arguments, message in (
        ({"fusion": 1.2}, "fusion=1.2 must be one of"),
        ({"fusion": "test"}, "fusion='test'"),
        ({"fusion": True}, "fusion=True"),
        ({"pseudo_labels": 0}, "pseudo_labels=0"),
        ({"pseudo_labels": 4, "fusion": "validation"}, "fusion='validation' needs labels"),
        ({"confidence_features": "long"}, "confidence_features='long'"),
        ({"logit_scale": 0}, "logit_scale=0"),
        ({"simclr": SimCLR()}, r"simclr must be trained: call its fit\(images\)"),
        ({"unlabelled": [train.images]}, "unlabelled must be a Split, the name of a task"),
        ({"temperature": 0}, "temperature=0"),
        ({"templates": ["no place"]}, "'no place'"),
    ):
        with pytest.raises(ValueError, match=message):
            SVLAdapter(vit_backbone, **arguments)
    with pytest.raises(TypeError, match="ssl_speed"):
        SVLAdapter(vit_backbone, ssl_speed=3)
    with pytest.raises(ValueError, match="no task 'dogs'"):
        SVLAdapter(vit_backbone, unlabelled="dogs", **QUICK).fit(train)
