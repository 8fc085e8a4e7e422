"""TaI-DPT: the ranking loss, captions as images, both branches, merging with other scores, errors."""

import pytest
import torch
import torch.nn.functional as F

from vlmcourse.backbone.features import image_features
from vlmcourse.methods.context import ClassPrompts
from vlmcourse.methods.text_prompts import tai_dpt
from vlmcourse.methods.text_prompts.tai_dpt import TaIDPT, merge_scores, ranking_loss

NAMES = ("tabby cat", "dog", "hot air balloon", "red_fox")
CAPTIONS = (
    "a dog and a tabby cat", "two dogs in the park", "hot air balloons over a town", "a red fox beside a dog",
    "a tabby cat on a mat, near a red fox", "nothing to see", "a dog",
)  # fmt: skip
SHORT = {"n_ctx": 2, "epochs": 3, "batch_size": 8, "captions": CAPTIONS, "templates": ("a photo of a {}.", "a {}")}


@pytest.fixture(scope="module")
def train(multi_label):
    return multi_label(8, seed=1, name="train")


@pytest.fixture(scope="module")
def test_split(multi_label):
    return multi_label(12, seed=2, name="test")


def test_the_ranking_loss():
    z, y = torch.tensor([[2, 0.5, -1], [0, 1, 3]]), torch.tensor([[1, 0, 1], [0, 1, 0]])
    assert ranking_loss(z, y).item() == pytest.approx(2.75)
    assert ranking_loss(torch.tensor([[2, 0.5, 1, -1]]), torch.tensor([[1, 0, 1, 0]])).item() == pytest.approx(0.5)
    assert ranking_loss(z + 7, y).item() == pytest.approx(2.75), "an equal shift changes nothing"
    for same in (torch.zeros_like(y), torch.ones_like(y)):
        assert ranking_loss(z, same).item() == 0
    assert ranking_loss(torch.tensor([[5.0, 1.0, 4.0]]), torch.tensor([[1, 0, 1]])).item() == 0
    before = z.clone()
    ranking_loss(z, y, margin=2.0)
    assert torch.equal(z, before)


def test_merged_scores_lie_between_nought_and_one():
    tai, other = torch.tensor([[1.0, 3.0], [2.0, 5.0]]), torch.tensor([[-2.0, 2.0], [0.0, 1.0]])
    scaled = torch.tensor([[0, 0.5], [0.25, 1]]), torch.tensor([[0, 1.0], [0.5, 0.75]])
    torch.testing.assert_close(merge_scores(tai, other, 0.9), 0.1 * scaled[0] + 0.9 * scaled[1])
    torch.testing.assert_close(merge_scores(tai, other, 0.0), scaled[0])
    with pytest.raises(ValueError, match="one shape"):
        merge_scores(tai, other[:1])
    with pytest.raises(ValueError, match="weight=2"):
        merge_scores(tai, other, 2)


def test_text_tokens_read_the_whole_caption(vit_backbone):
    tokens, ends = vit_backbone.encode_text_tokens(["a dog", "two dogs in the park"])
    assert ends.tolist() == [3, 6] and tokens.shape[1] == 7
    expected = vit_backbone.encode_text(["a dog", "two dogs in the park"])
    torch.testing.assert_close(tokens[torch.arange(2), ends], expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(tokens[0, 0], tokens[1, 0], atol=1e-6, rtol=0)  # the start token sees nothing


def test_what_it_trains_on(vit_backbone, train):
    sentences, labels, kept = TaIDPT(vit_backbone, **SHORT, template_copies=3).training_text(NAMES)
    assert kept == 6 and "nothing to see" not in sentences[:kept]
    assert labels[0].tolist() == [1, 1, 0, 0] and labels[2].tolist() == [0, 0, 1, 0]
    assert len(sentences) == 6 + 4 * 4 and sentences[6:10] == ["a photo of a tabby cat."] * 3 + ["a tabby cat"]
    assert torch.equal(labels[6:].sum(dim=1), torch.ones(16).long())
    long = TaIDPT(vit_backbone, **{**SHORT, "captions": ["dog " * 50, "a dog"]}).training_text(NAMES)
    assert long[2] == 1, "what the text tower cannot read is left out"
    with pytest.raises(ValueError, match="none of them names a class"):
        TaIDPT(vit_backbone, captions=["a yak"], templates=None).fit(train)


def test_the_worlds_own_captions(vit_backbone):
    sentences, labels, kept = TaIDPT(vit_backbone, n_captions=200, templates=None).training_text(("cat", "bus"))
    assert kept == len(sentences) > 20 and labels.any(dim=1).all()


def test_branches_by_hand(tower, train, test_split):
    method = TaIDPT(tower, **SHORT).fit(train)
    v = F.normalize(image_features(tower, test_split, encoder=method.encoder, normalise=False), dim=-1)
    prompts = ClassPrompts(tower, NAMES, 2)
    whole, parts = (prompts.encode(ctx) for ctx in method.ctx)
    z_global = 4 * v[:, 0] @ whole.T
    cosine = v[:, 1:] @ parts.T  # (B, N, C)
    a = (40 * cosine).softmax(dim=1)
    z_local = 4 * (a * cosine).sum(dim=1)
    torch.testing.assert_close(method.scores(test_split), (z_global + z_local) / 2, atol=1e-4, rtol=0)
    torch.testing.assert_close(method.attention(test_split), a.transpose(1, 2), atol=1e-5, rtol=0)
    for branch, expected in (("global", z_global), ("local", z_local)):
        method.branch = branch
        torch.testing.assert_close(method.scores(test_split), expected, atol=1e-4, rtol=0)
    with pytest.raises(ValueError, match="gives no probabilities"):
        method.predict(test_split)


def test_captions_are_scored_like_images_and_padding_does_not_matter(vit_backbone, train):
    method = TaIDPT(vit_backbone, **SHORT).fit(train)
    alone = method.caption_scores([CAPTIONS[6]])
    beside = method.caption_scores([CAPTIONS[4], CAPTIONS[6]])[1:]
    torch.testing.assert_close(alone, beside, atol=1e-5, rtol=0)
    method.branch = "local"
    tokens, ends = vit_backbone.encode_text_tokens([CAPTIONS[6]])
    cosine = tokens[0, : ends[0] + 1] @ method.text[1].T
    expected = 4 * ((50 * cosine).softmax(dim=0) * cosine).sum(dim=0)
    torch.testing.assert_close(method.caption_scores([CAPTIONS[6]])[0], expected, atol=1e-4, rtol=0)


def test_only_the_contexts_learn_and_the_loss_falls(tower, train):
    before = {name: tensor.clone() for name, tensor in tower.model.state_dict().items()}
    method = TaIDPT(tower, **{**SHORT, "epochs": 12, "lr": 0.01}).fit(train)
    history = method.history
    assert history["loss"][-1] < 0.97 * history["loss"][0]
    assert history["loss"] == pytest.approx(
        [g + p for g, p in zip(history["global"], history["local"], strict=True)], abs=1e-4
    )
    assert all(torch.equal(tensor, before[name]) for name, tensor in tower.model.state_dict().items())
    assert set(method.learned_parameters()) == {"ctx_global", "ctx_local"}
    assert method.n_learned == 2 * 2 * tower.text_width
    assert (method.ctx[0] - method.ctx[1]).abs().max() > 0


def test_no_image_is_looked_at(vit_backbone, train):
    blank = type(train)(torch.zeros_like(train.images), 1 - train.labels, NAMES, train.templates)
    one, two = (TaIDPT(vit_backbone, **SHORT).fit(split).ctx for split in (train, blank))
    assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_captions_batch_by_batch_give_the_same(vit_backbone, train, monkeypatch):
    one = TaIDPT(vit_backbone, **SHORT).fit(train).ctx
    monkeypatch.setattr(tai_dpt, "LARGEST", 0)
    two = TaIDPT(vit_backbone, **SHORT).fit(train).ctx
    for a, b in zip(one, two, strict=True):
        torch.testing.assert_close(a, b, atol=1e-5, rtol=0)


def test_it_moves_to_other_classes_and_seeds_matter(vit_backbone, train, test_split):
    method = TaIDPT(vit_backbone, **SHORT).fit(train)
    moved = method.for_classes(["yak", NAMES[1]])
    torch.testing.assert_close(moved.scores(test_split)[:, 1], method.scores(test_split)[:, 1], atol=1e-4, rtol=0)
    again, other = (TaIDPT(vit_backbone, seed=s, **SHORT).fit(train).scores(test_split) for s in (0, 1))
    assert torch.equal(method.scores(test_split), again) and (again - other).abs().max() > 1e-5
    words = TaIDPT(vit_backbone, **{**SHORT, "ctx_init": "a photo of a", "epochs": 0}).fit(train)
    assert words.ctx[0].shape[0] == 4 and torch.equal(*words.ctx)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"branch": "all"}, "branch='all'"),
        ({"n_ctx": 0}, "n_ctx=0"),
        ({"template_copies": -1}, "template_copies=-1"),
        ({"spatial_scale": -1.0}, "spatial_scale=-1"),
        ({"captions": "a dog"}, "captions='a dog'"),
        ({"templates": "a photo"}, "a photo"),
    ],
)
def test_bad_arguments_are_named(vit_backbone, arguments, message):
    with pytest.raises(ValueError, match=message):
        TaIDPT(vit_backbone, **arguments)
