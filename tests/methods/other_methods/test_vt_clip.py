"""VT-CLIP: starts at zero-shot, equals the formula, classes do not see each other, order of positions is nothing."""

import math

import pytest
import torch
import torch.nn.functional as F

import vlmcourse.methods.other_methods.vt_clip as vt_clip
from vlmcourse.methods.baselines.zero_shot import ZeroShot
from vlmcourse.methods.class_text import class_features
from vlmcourse.methods.other_methods.vt_clip import VTCLIP

SHORT = {"epochs": 6, "lr": 0.01, "batch_size": 8}


@pytest.mark.parametrize("options", [{}, {"ffn": True}, {"layer_norm": False}, {"n_heads": 4}])
def test_training_starts_at_zero_shot(tower, train, test_split, options):
    method = VTCLIP(tower, epochs=0, **options).fit(train)
    torch.testing.assert_close(method.logits(test_split), ZeroShot(tower).fit(train).logits(test_split))


def test_gamma_zero_stays_there(vit_backbone, train, test_split):
    expected = ZeroShot(vit_backbone).fit(train).logits(test_split)
    torch.testing.assert_close(VTCLIP(vit_backbone, gamma=0, **SHORT).fit(train).logits(test_split), expected)
    assert (VTCLIP(vit_backbone, **SHORT).fit(train).logits(test_split) - expected).abs().max() > 0.1


@pytest.mark.parametrize("ffn", [False, True])
@pytest.mark.parametrize("n_heads", [1, 4])
def test_it_is_cross_attention_by_torch(vit_backbone, train, test_split, n_heads, ffn):
    method = VTCLIP(vit_backbone, n_heads=n_heads, ffn=ffn, gamma=0.7, **SHORT).fit(train)
    w, features = method.weights, method.inputs(test_split)
    block = torch.nn.MultiheadAttention(16, n_heads, bias=False, batch_first=True)
    block.in_proj_weight.data = torch.cat([w["query"].T, w["key"].T, w["value"].T])
    block.out_proj.weight.data = w["out"].T.contiguous()

    def norm(name, x):
        return F.layer_norm(x, (16,), w[name], w[name + "_bias"])

    text, image = method.text.expand(20, -1, -1), norm("image_norm", features[:, 1:])
    heard, shares = block(norm("text_norm", text), image, image, average_attn_weights=False)
    text = text + 0.7 * heard
    if ffn:
        hidden = F.gelu(norm("ffn_norm", text) @ w["expand"] + w["expand_bias"])
        text = text + hidden @ w["contract"] + w["contract_bias"]
    text = F.normalize(text, dim=-1)
    torch.testing.assert_close(method.guided_text(test_split), text, atol=1e-5, rtol=0)
    torch.testing.assert_close(method.attention(test_split), shares, atol=1e-5, rtol=0)
    expected = vit_backbone.logit_scale * torch.einsum("be,bce->bc", features[:, 0], text)
    torch.testing.assert_close(method.logits(test_split), expected, atol=1e-3, rtol=1e-4)
    assert (text - method.text).norm(dim=-1).min() > 0.01


def test_attention_sums_to_one_over_positions(tower, train, test_split):
    shares = VTCLIP(tower, n_heads=2, **SHORT).fit(train).attention(test_split)
    assert shares.shape == (20, 2, 4, 16 if tower.is_vit else 4)
    torch.testing.assert_close(shares.sum(-1), torch.ones(20, 2, 4))


def test_texts_depend_on_the_image_but_not_on_the_order_of_positions(vit_backbone, train, test_split):
    method = VTCLIP(vit_backbone, **SHORT).fit(train)
    features = method.inputs(test_split)
    order = [0, *(1 + torch.randperm(16, generator=torch.Generator().manual_seed(0))).tolist()]
    torch.testing.assert_close(method.logits(features[:, order]), method.logits(features), atol=1e-4, rtol=0)
    text = method.guided_text(test_split)
    assert (text[0] - text[7]).abs().max() > 1e-3


def test_an_image_that_is_equal_everywhere_gives_every_class_the_same_shift(vit_backbone, train, test_split):
    method = VTCLIP(vit_backbone, **SHORT).fit(train)
    features = method.inputs(test_split)
    even = features[:, 1:2].expand(-1, 9, -1)
    shift = method._guided(even) - method.text
    torch.testing.assert_close(shift, shift[:, :1].expand_as(shift), atol=1e-6, rtol=0)
    assert shift.abs().max() > 1e-3


def test_classes_do_not_look_at_each_other(vit_backbone, train, test_split):
    method = VTCLIP(vit_backbone, **SHORT).fit(train)
    logits = method.logits(test_split)
    other = method.for_classes(["yak", "red_fox", "tabby cat"])
    assert torch.equal(other.text, class_features(vit_backbone, other.class_names, train.templates))
    torch.testing.assert_close(other.logits(test_split)[:, [2, 1]], logits[:, [0, 3]], atol=1e-4, rtol=0)
    assert torch.equal(method.logits(test_split), logits)


@pytest.mark.parametrize("options", [{}, {"ffn": True, "n_heads": 2}, {"layer_norm": False, "path": "value"}])
def test_fitting_lowers_the_loss_and_moves_every_weight(tower, splits, options):
    train = splits(per_class=8, seed=1)
    start = VTCLIP(tower, epochs=0, **options).fit(train).weights
    method = VTCLIP(tower, epochs=15, lr=0.01, batch_size=16, **options).fit(train)
    assert method.history["loss"][-1] < method.history["loss"][0] - 0.1
    assert start.keys() == method.weights.keys()
    assert all((w - start[name]).abs().max() > 1e-4 for name, w in method.weights.items())


def test_the_count_of_what_is_learned(vit_backbone, train):
    def count(**options):
        return VTCLIP(vit_backbone, epochs=0, **options).fit(train).n_learned

    E = 16
    assert count(layer_norm=False) == 4 * E * E
    assert count() == 4 * E * E + 4 * E
    assert count(ffn=True) == 4 * E * E + 8 * E * E + 5 * E + 6 * E


def test_parts_and_single_images_agree_with_the_whole(vit_backbone, train, test_split, monkeypatch):
    method = VTCLIP(vit_backbone, **SHORT).fit(train)
    whole = method.logits(test_split)
    monkeypatch.setattr(vt_clip, "ENTRIES", 400)
    torch.testing.assert_close(method.logits(test_split), whole)
    torch.testing.assert_close(method.logits(test_split.images[7]), whole[7:8], atol=1e-4, rtol=0)


@pytest.mark.parametrize("batch_size", [1, 3, 100])
@pytest.mark.parametrize("views", [1, 3, None])
def test_odd_batches_and_every_kind_of_view(vit_backbone, train, batch_size, views):
    method = VTCLIP(vit_backbone, epochs=1, batch_size=batch_size, views=views).fit(train)
    assert len(method.history["loss"]) == 1 and all(torch.isfinite(w).all() for w in method.weights.values())


def test_seeds_and_start(vit_backbone, train, test_split):
    torch.manual_seed(0)
    one = VTCLIP(vit_backbone, seed=1, **SHORT).fit(train).logits(test_split)
    torch.manual_seed(1)
    assert torch.equal(one, VTCLIP(vit_backbone, seed=1, **SHORT).fit(train).logits(test_split))
    assert (one - VTCLIP(vit_backbone, seed=2, **SHORT).fit(train).logits(test_split)).abs().max() > 1e-4
    query = VTCLIP(vit_backbone, epochs=0).fit(train).weights["query"]
    assert query.abs().max() <= 0.25 and query.std().item() == pytest.approx(0.25 / math.sqrt(3), rel=0.1)


def test_scores_stay_on_the_backbones_device(vit_backbone, fake_cuda):
    backbone = fake_cuda(vit_backbone)
    method = VTCLIP(backbone, ffn=True)
    method.text = class_features(backbone, ("cat", "dog"), "a {}")
    method.weights = method._start()
    assert method._scores(torch.randn(3, 17, 16, device="cuda")).device.type == "cuda"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"gamma": -1}, "gamma=-1"),
        ({"gamma": float("nan")}, "gamma=nan"),
        ({"n_heads": 3}, "n_heads=3"),
        ({"n_heads": 0}, "n_heads=0"),
        ({"path": "all"}, "path='all'"),
        ({"templates": "no slot"}, "no slot"),
        ({"lr": 0}, "lr=0"),
    ],
)
def test_bad_arguments_are_named(vit_backbone, train, arguments, message):
    with pytest.raises(ValueError, match=message):
        VTCLIP(vit_backbone, **arguments).fit(train)


def test_before_fit(vit_backbone):
    for call in (VTCLIP(vit_backbone).attention, VTCLIP(vit_backbone).guided_text):
        with pytest.raises(RuntimeError, match="fit"):
            call(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
