"""What the feature cache can keep besides pooled features: local ones, those of other encoders, and not too much."""

import pytest
import torch
import torch.nn.functional as F

from vlmcourse.backbone import features
from vlmcourse.backbone.features import POOLED, Encoder, image_features, local
from vlmcourse.tasks.base import Split


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("VLMCOURSE_CACHE", str(tmp_path))
    return tmp_path / "features"


@pytest.fixture
def split(images):
    return Split(images, [0, 1, 0, 1, 0], ("cat", "dog"))


@pytest.fixture(params=["vit_backbone", "resnet_backbone"])
def backbone(request):
    return request.getfixturevalue(request.param)


def files(folder):
    return [p for p in folder.iterdir() if p.suffix == ".safetensors"]


@pytest.mark.parametrize("path", ["value", "full"])
def test_local_features_are_dense_features_row_by_row_and_kept(backbone, split, folder, path):
    got = image_features(backbone, split, encoder=local(path))
    dense = backbone.dense_features(split.images, path)  # (B, E, H, W)
    width = dense.shape[3]
    for row, column in ((0, 0), (0, 1), (1, 0)):
        torch.testing.assert_close(got[:, row * width + column], dense[:, :, row, column], atol=1e-6, rtol=0)
    assert len(files(folder)) == 1
    assert torch.equal(image_features(backbone, split, encoder=local(path)), got) and len(files(folder)) == 1


def test_the_pooled_feature_can_stand_in_front(backbone, split):
    both = image_features(backbone, split, encoder=local("full", with_pooled=True))
    torch.testing.assert_close(both[:, 0], image_features(backbone, split), atol=1e-6, rtol=0)
    torch.testing.assert_close(both[:, 1:], image_features(backbone, split, encoder=local("full")), atol=1e-6, rtol=0)


def test_encoders_do_not_share_files_and_views_work(backbone, split, folder):
    for encoder in (POOLED, local("value"), local("full"), local("full", with_pooled=True)):
        image_features(backbone, split, encoder=encoder)
        crops = image_features(backbone, split, encoder=encoder, views=2)
        assert crops.shape[:2] == (2, 5) and crops.ndim == 1 + encoder.ndim
    assert len(files(folder)) == 8


def test_raw_values_and_own_encoders(vit_backbone, split):
    mean = Encoder("mean colour", lambda backbone, images, batch_size: images.float().mean((-1, -2)), unit=False)
    raw = image_features(vit_backbone, split, encoder=mean, normalise=False)
    torch.testing.assert_close(raw, split.images.float().mean((-1, -2)))
    assert torch.equal(mean(vit_backbone, split.images), raw)
    local_raw = image_features(vit_backbone, split, encoder=local("full"), normalise=False)
    unit = image_features(vit_backbone, split, encoder=local("full"))
    torch.testing.assert_close(F.normalize(local_raw, dim=-1), unit, atol=1e-6, rtol=0)


def test_what_is_too_large_is_returned_but_not_kept(vit_backbone, split, folder, monkeypatch):
    monkeypatch.setattr(features, "LARGEST", 5 * 16 * 16 * 4 - 1)
    whole = image_features(vit_backbone, split, encoder=local("full"))
    assert whole.shape == (5, 16, 16) and not files(folder)
    image_features(vit_backbone, split)
    assert len(files(folder)) == 1
