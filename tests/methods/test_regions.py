"""Regions of both kinds of towers, windows of the grid, pooling by a softmax."""

import math

import pytest
import torch
import torch.nn.functional as F

from vlmcourse.methods.regions import default_path, pool_regions, region_encoder, region_map, windows


@pytest.fixture(scope="module")
def images(multi_label):
    return multi_label(3).images


def test_windows_cover_the_grid():
    cells = windows((8, 8))
    assert cells.shape == (9, 64) and (cells.sum(dim=1) == 16).all() and cells.any(dim=0).all()
    assert windows((4, 4)).shape == (9, 16) and windows((1, 1)).tolist() == [[True]]
    for grid in ((7, 7), (14, 14), (3, 5), (2, 2)):
        cells = windows(grid)
        assert cells.any(dim=0).all() and len({tuple(row.tolist()) for row in cells}) == len(cells)


def test_a_window_is_the_tower_on_its_patches_alone(vit_backbone, images):
    from vlmcourse.backbone import vision

    found = region_encoder(vit_backbone)(vit_backbone, images)
    assert found.shape == (3, 10, 16)
    torch.testing.assert_close(found[:, 0], vit_backbone.encode_image(images, normalise=False), atol=1e-5, rtol=0)
    visual = vit_backbone.model.visual
    tokens, grid = vision.embed(visual, vit_backbone.preprocess(images))
    chosen = [0] + [1 + i for i in windows(grid)[4].nonzero().squeeze(1).tolist()]
    expected = vision.read_out(visual, vision.run_blocks(visual, tokens[:, chosen]))
    torch.testing.assert_close(found[:, 5], expected, atol=1e-5, rtol=0)


def test_patches_of_a_vit(vit_backbone, images):
    for path in ("value", "value+residual", "full"):
        found = region_encoder(vit_backbone, path)(vit_backbone, images)
        dense = vit_backbone.dense_features(images, path, normalise=False).flatten(2).transpose(1, 2)
        torch.testing.assert_close(found[:, 1:], dense, atol=1e-5, rtol=0)


def test_a_resnets_two_recipes(resnet_backbone, images):
    backbone, pool = resnet_backbone, resnet_backbone.model.visual.attnpool
    plain = region_encoder(backbone, positions=False)(backbone, images)
    dense = backbone.dense_features(images, "value", normalise=False).flatten(2).transpose(1, 2)
    torch.testing.assert_close(plain[:, 1:], dense, atol=1e-5, rtol=0)
    placed = region_encoder(backbone)(backbone, images)
    shift = pool.v_proj(pool.positional_embedding) @ pool.c_proj.weight.T - pool.v_proj.bias @ pool.c_proj.weight.T
    torch.testing.assert_close(placed[:, 1:], dense + shift[1:], atol=1e-4, rtol=0)
    torch.testing.assert_close(placed[:, 0], dense.mean(dim=1) + shift[0], atol=1e-4, rtol=0)  # the mean token
    before = pool.positional_embedding.data.clone()
    pool.positional_embedding.data.zero_()
    try:
        torch.testing.assert_close(plain[:, 0], backbone.encode_image(images, normalise=False), atol=1e-5, rtol=0)
    finally:
        pool.positional_embedding.data.copy_(before)


def test_the_batch_does_not_matter(tower, images):
    encoder = region_encoder(tower)
    torch.testing.assert_close(encoder(tower, images, 1), encoder(tower, images, 256), atol=1e-5, rtol=0)


def test_wrong_paths_are_named(vit_backbone, resnet_backbone):
    with pytest.raises(ValueError, match="path='windows' must be one of"):
        region_encoder(resnet_backbone, "windows")
    with pytest.raises(ValueError, match="path='patches'"):
        region_encoder(vit_backbone, "patches")
    assert (default_path(vit_backbone), default_path(resnet_backbone)) == ("windows", "value")


def test_pooling_golden_values():
    cosine = torch.tensor([[[0.3, 0.1, 0.2]]])
    for scale, expected in ((50.0, 1.197287), (40.0, 1.192544), (4.0, 0.903917)):
        assert 4 * pool_regions(cosine, scale)[0].item() == pytest.approx(expected, abs=1e-5)
    absent = torch.tensor([[[0.1, 0.2, 0.3]]])
    pooled, weights = pool_regions(absent, 20.0, by=cosine)
    assert weights.flatten().tolist() == pytest.approx([0.866813, 0.015876, 0.117310], abs=1e-5)
    assert 100 * pooled.item() == pytest.approx(12.50497, abs=1e-4)
    assert 100 * pool_regions(cosine, 20.0)[0].item() == pytest.approx(28.50937, abs=1e-4)


def test_pooling_at_its_ends_masked_and_permuted():
    cosine = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(pool_regions(cosine, 0.0)[0], cosine.mean(dim=-1))
    torch.testing.assert_close(pool_regions(cosine, 1e4)[0], cosine.amax(dim=-1), atol=1e-3, rtol=0)
    order = torch.tensor([3, 1, 5, 0, 2, 4])
    torch.testing.assert_close(pool_regions(cosine[..., order], 7.0)[0], pool_regions(cosine, 7.0)[0])
    mask = torch.tensor([[True] * 4 + [False] * 2] * 2)
    torch.testing.assert_close(pool_regions(cosine, 7.0, mask=mask)[0], pool_regions(cosine[..., :4], 7.0)[0])


def test_maps_keep_the_weight(vit_backbone):
    weights = F.softmax(torch.randn(2, 3, 9), dim=-1)
    heat = region_map(weights, vit_backbone)
    assert heat.shape == (2, 3, 4, 4)
    torch.testing.assert_close(heat.sum(dim=(-2, -1)), torch.ones(2, 3))
    one = region_map(torch.eye(9)[4], vit_backbone)
    assert (one > 0).flatten().tolist() == windows((4, 4))[4].tolist()
    assert region_map(torch.arange(16.0), vit_backbone, "value")[1].tolist() == [4.0, 5.0, 6.0, 7.0]
    with pytest.raises(ValueError, match="9 windows"):
        region_map(torch.ones(10) / math.e, vit_backbone)
