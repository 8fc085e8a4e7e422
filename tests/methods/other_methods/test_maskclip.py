"""MaskCLIP: the value path, both refinements with the official values, both towers, free texts, errors."""

import pytest
import torch
import torch.nn.functional as F

from vlmcourse.methods.class_text import class_features
from vlmcourse.methods.other_methods.maskclip import DROPPED, PAPER_TEMPLATES, MaskCLIP, denoise, smooth


def table(n, d, a, b):
    i, j = torch.arange(1, n + 1).double()[:, None], torch.arange(1, d + 1).double()
    return torch.sin(a * i * j + b * i)


def unit(x):
    return F.normalize(x, dim=-1)


FEATURES, TEXT, KEYS = table(6, 8, 0.37, 0.11), table(3, 8, 0.23, 0.5), table(6, 5, 0.29, 0.7)[None]
SCORES = (0.02 * unit(TEXT) @ unit(FEATURES).T)[None]  # (1, 3, 6)


def test_official_values_of_the_refinements():
    probabilities = (100 * SCORES).softmax(dim=1)
    torch.testing.assert_close(
        probabilities.amax(2)[0], torch.tensor([0.7688, 0.6110, 0.5966]).double(), atol=1e-4, rtol=0
    )
    kept = denoise(SCORES, 0.75, 100)
    assert torch.equal(kept[:, 0], SCORES[:, 0]) and (kept[:, 1:] == DROPPED).all()
    smoothed = smooth(SCORES, KEYS, 1.0, 100, "code")[0]
    expected = [
        [0.80879, -0.0833, -0.4768, 0.03536, 0.11447, 0.10762],
        [0.13575, 0.14245, -0.14128, -0.20114, 0.12707, 0.16429],
        [-0.35304, 0.05137, 0.12605, -0.09332, 0.10183, 0.11037],
    ]
    torch.testing.assert_close(smoothed, torch.tensor(expected).double(), atol=1e-4, rtol=0)
    assert smoothed.argmax(0).tolist() == [0, 1, 2, 0, 1, 1]


def test_paper_and_code_differ_in_the_keys():
    full = 50 * SCORES
    code, paper = (smooth(full, KEYS, 1.0, 100, source)[0].argmax(0).tolist() for source in ("code", "paper"))
    assert code == [0, 1, 2, 0, 2, 1] and paper == [0, 1, 2, 2, 2, 1]


def test_a_higher_threshold_drops_more():
    dropped = [(denoise(SCORES, pd, 100) == DROPPED).all(2)[0] for pd in (0.0, 0.6, 0.65, 1.0)]
    assert [int(d.sum()) for d in dropped] == [0, 1, 2, 3]
    assert all((later | ~earlier).all() for earlier, later in zip(dropped, dropped[1:], strict=False))
    assert denoise(SCORES, 1.0, 100).argmax(1).eq(0).all(), "if all are dropped, the first class wins"


def test_smoothing_with_orthogonal_keys_is_the_softmax():
    expected = (100 * SCORES).softmax(dim=1)
    torch.testing.assert_close(smooth(SCORES, torch.eye(6).double()[None], 1.0, 100), expected)
    low = smooth(SCORES, KEYS, 0.5, 100)
    sure = expected.amax(1) >= 0.5
    assert sure.any() and torch.equal(low.mT[sure], expected.mT[sure])


@pytest.mark.parametrize("path", ["value", "full", None])
def test_scores_are_cosines_of_the_towers_values(tower, mask_splits, path):
    split = mask_splits(3, size=tower.image_size)
    method = MaskCLIP(tower, path=path).fit(split)
    dense = tower.dense_features(split.images, method.path)  # (B, E, h, w), normalised
    text = class_features(tower, split.class_names, split.templates)
    maps = method.score_maps(split)
    torch.testing.assert_close(maps, torch.einsum("behw,ce->bchw", dense, text), atol=1e-5, rtol=0)
    assert maps.abs().max() <= 1 + 1e-5
    assert method.path == (path or ("value+residual" if tower.is_vit else "value"))


def test_without_thresholds_nothing_changes(tower, mask_splits):
    split = mask_splits(3, size=tower.image_size)
    plain, never = MaskCLIP(tower).fit(split), MaskCLIP(tower, pd=1e-9).fit(split)
    assert torch.equal(plain.score_maps(split), never.score_maps(split))


@pytest.mark.parametrize("source", ["paper", "code"])
def test_refinements_in_the_method(tower, mask_splits, source):
    split = mask_splits(3, size=tower.image_size)
    plain = MaskCLIP(tower, faithful_to=source).fit(split)
    method = MaskCLIP(tower, pd=0.26, ks=1.0, scale=30.0, faithful_to=source).fit(split)
    keys = method.keys(tower, split.images)
    scores = plain.score_maps(split).flatten(2)
    expected = smooth(denoise(scores, 0.26, 30.0), keys, 1.0, 30.0, source)
    for x in (split, split.images, tower.preprocess(split.images), method.inputs(split)):
        torch.testing.assert_close(method.score_maps(x).flatten(2), expected, atol=1e-4, rtol=1e-4)
    assert not torch.equal(method.score_maps(split), plain.score_maps(split))


def test_keys_are_those_of_the_last_layer(vit_backbone, mask_splits):
    split, seen = mask_splits(2), {}
    last = vit_backbone.model.visual.transformer.resblocks[-1]
    hook = last.ln_1.register_forward_hook(lambda module, inputs, output: seen.update(x=output))
    vit_backbone.encode_image(split.images)
    hook.remove()
    width = last.attn.embed_dim
    weight, bias = last.attn.in_proj_weight[width : 2 * width], last.attn.in_proj_bias[width : 2 * width]
    expected = seen["x"][:, 1:] @ weight.T + bias
    torch.testing.assert_close(MaskCLIP(vit_backbone).keys(vit_backbone, split.images), expected, atol=1e-5, rtol=1e-4)
    code = MaskCLIP(vit_backbone, faithful_to="code").keys(vit_backbone, split.images)
    torch.testing.assert_close(code, last.attn.out_proj(expected), atol=1e-5, rtol=1e-4)


def test_free_texts(vit_backbone, mask_splits):
    split = mask_splits(3)
    method = MaskCLIP(vit_backbone, templates="a {}").fit(split)
    moved = method.for_classes(["dog", "a red thing", "sky"])
    assert moved.score_maps(split).shape[1] == 3
    torch.testing.assert_close(moved.score_maps(split)[:, 0], method.score_maps(split)[:, 1], atol=1e-5, rtol=0)
    assert len(PAPER_TEMPLATES) == 85 == len(set(PAPER_TEMPLATES)) and all(t.count("{}") == 1 for t in PAPER_TEMPLATES)
    assert method.n_learned == 0 and not any(p.requires_grad for p in vit_backbone.model.parameters())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"path": "keys"}, "path='keys'"),
        ({"pd": 1.5}, "pd=1.5"),
        ({"ks": -1}, "ks=-1"),
        ({"faithful_to": "me"}, "faithful_to='me'"),
        ({"side": 0}, "side=0"),
        ({"templates": "photo"}, "photo"),
    ],
)
def test_bad_arguments_are_named(vit_backbone, arguments, message):
    with pytest.raises(ValueError, match=message):
        MaskCLIP(vit_backbone, **arguments)


def test_a_resnet_has_no_residual(resnet_backbone, mask_splits):
    with pytest.raises(ValueError, match="path='value\\+residual'"):
        MaskCLIP(resnet_backbone, path="value+residual")
    with pytest.raises(RuntimeError, match="fit"):
        MaskCLIP(resnet_backbone).segment(mask_splits(1, size=64))
