"""DenseCLIP: texts that look at the image, score maps, both losses, what is learned, both towers, errors."""

import pytest
import torch
import torch.nn.functional as F

from vlmcourse.methods.class_text import class_features
from vlmcourse.methods.text_prompts.denseclip import ContextDecoder, DenseCLIP

SMALL = {"width": 8, "n_ctx": 3, "decoder": {"width": 16, "layers": 1}, "batch_size": 4, "lr": 3e-3}


def untrained(backbone, split, **arguments):
    method = DenseCLIP(backbone, **(SMALL | {"epochs": 0} | arguments))
    return method.fit(split)


def batch(method, split):
    return method.inputs(split), split.labels


def test_the_decoder_has_the_size_of_the_official_one():
    assert sum(p.numel() for p in ContextDecoder(1024, 1024).parameters()) == 3_948_800


def test_the_decoder_does_not_care_about_the_order_of_the_classes():
    decoder, draw = ContextDecoder(16, 16, width=16, layers=2).eval(), torch.Generator().manual_seed(0)
    text, memory = torch.randn(2, 5, 16, generator=draw), torch.randn(2, 7, 16, generator=draw)
    order = [3, 0, 4, 1, 2]
    torch.testing.assert_close(decoder(text[:, order], memory), decoder(text, memory)[:, order], atol=1e-5, rtol=1e-4)
    assert (decoder(text, memory) - decoder(text, memory.flip(0))).abs().max() > 1e-4


def test_official_value_of_the_score_loss():
    loss = F.cross_entropy(torch.tensor([[0.3, 0.1, 0.2]]) / 0.07, torch.tensor([0]))
    assert loss.item() == pytest.approx(0.260118, abs=1e-5)


def test_gamma_zero_leaves_the_texts_alone(tower, mask_splits):
    split = mask_splits(3, size=tower.image_size)
    method, fixed = untrained(tower, split, gamma=0.0), untrained(tower, split, prompting="none")
    torch.testing.assert_close(method.pixel_text(split), fixed.pixel_text(split), atol=1e-6, rtol=0)
    joint = method.pyramid(method.twin.model.visual, method.inputs(split))[1]
    texts = method.image_texts(joint)
    assert torch.equal(texts, method.text.expand_as(texts))
    moved = untrained(tower, split, gamma=1e-4)
    delta = moved.new["context"](moved.text.expand(3, -1, -1), joint)
    torch.testing.assert_close(moved.image_texts(joint) - moved.text, 1e-4 * delta, atol=1e-7, rtol=0)
    assert delta.abs().max() > 1e-3


def test_scores_are_cosines_of_every_token(tower, mask_splits):
    split = mask_splits(3, size=tower.image_size)
    method = untrained(tower, split, prompting="none")
    scores = method.pixel_text(split)
    dense = tower.dense_features(split.images, "full")
    torch.testing.assert_close(scores, torch.einsum("behw,ce->bchw", dense, method.text), atol=1e-4, rtol=1e-4)
    assert scores.abs().max() <= 1 + 1e-5
    joint = method.pyramid(method.twin.model.visual, method.inputs(split))[1]
    if tower.is_vit:
        pooled = tower.encode_image(split.images)
        torch.testing.assert_close(F.normalize(joint[:, 0], dim=-1), pooled, atol=1e-5, rtol=1e-4)


def test_the_value_path_starts_as_maskclip(tower, mask_splits):
    split = mask_splits(3, size=tower.image_size)
    method = untrained(tower, split, prompting="none", path="value", ctx_init="a photo of a")
    assert method.n_ctx == 4
    dense = tower.dense_features(split.images, "value")
    text = class_features(tower, split.class_names, "a photo of a {}.")
    expected = torch.einsum("behw,ce->bchw", dense, text)
    torch.testing.assert_close(method.pixel_text(split), expected, atol=1e-4, rtol=1e-4)


def test_class_names_permute_the_scores(vit_backbone, mask_splits):
    split = mask_splits(3)
    order = [2, 0, 3, 1]
    turned = split.keep_classes(order)
    for prompting in ("post", "pre"):
        one, two = (untrained(vit_backbone, s, prompting=prompting).pixel_text(s) for s in (split, turned))
        torch.testing.assert_close(two, one[:, order], atol=1e-5, rtol=1e-4)


def test_pre_model_texts_are_those_of_the_images_own_context(vit_backbone, mask_splits):
    split = mask_splits(3)
    method = untrained(vit_backbone, split, prompting="pre")
    joint = method.pyramid(method.twin.model.visual, method.inputs(split))[1]
    texts = method.image_texts(joint)
    queries = method.new["learned"]["ctx"].expand(3, -1, -1)
    contexts = method.new["context"](queries, joint)  # (B, M, D)
    for text, ctx in zip(texts, contexts, strict=True):
        torch.testing.assert_close(text, method.prompts.encode(ctx), atol=1e-5, rtol=1e-4)
    assert (texts[0] - texts[1]).abs().max() > 1e-6


@pytest.mark.parametrize("prompting", ["post", "pre", "none"])
def test_the_loss_has_two_parts_and_reaches_what_is_learned(tower, mask_splits, prompting):
    split = mask_splits(4, size=tower.image_size)
    method = DenseCLIP(tower, **(SMALL | {"decoder": {"width": 16, "dropout": 0.0}}), prompting=prompting)
    method.class_names = split.class_names
    method._build()
    loss, parts = method._loss(*batch(method, split))
    logits, scores = method._forward(method.inputs(split))
    size, labels = split.labels.shape[1:], split.labels.long()
    big = [F.interpolate(m, size=size, mode="bilinear") for m in (logits, scores / 0.07)]
    head, aux = (F.cross_entropy(m, labels, ignore_index=255) for m in big)
    torch.testing.assert_close(loss, head + 0.4 * aux)
    torch.testing.assert_close(parts["pixel_text"], aux)
    loss.backward()
    names = {name for name, p in method.new.named_parameters() if p.grad is None or not p.grad.abs().sum() > 0}
    assert not names, names
    reached = [name for name, p in method.own.items() if p.grad is not None and p.grad.abs().sum() > 0]
    assert len(reached) > 0.8 * len(method.own)
    assert all(p.grad is None for p in tower.model.parameters())


def test_ignored_pixels_have_no_loss(vit_backbone, mask_splits):
    split = mask_splits(2)
    method = untrained(vit_backbone, split)
    features, labels = batch(method, split)
    with torch.no_grad():
        one = method._loss(features, labels)[0]
        few = labels.clone()
        few[:, :, 16:] = 255
        two = method._loss(features, few)[0]
    assert one.item() != pytest.approx(two.item(), abs=1e-4)


def test_fitting_lowers_both_losses_and_leaves_the_backbone(tower, mask_splits):
    split = mask_splits(8, size=tower.image_size)
    before = {name: tensor.clone() for name, tensor in tower.model.state_dict().items()}
    for prompting in ("post", "pre"):
        method = DenseCLIP(tower, **SMALL, prompting=prompting, epochs=12).fit(split)
        assert method.history["loss"][-1] < method.history["loss"][0] - 0.3
        assert method.history["pixel_text"][-1] < method.history["pixel_text"][0]
        assert not any(t.requires_grad for t in method.learned_parameters().values())
        assert method.score(split) > 0.3
    assert all(torch.equal(tensor, before[name]) for name, tensor in tower.model.state_dict().items())
    changed = [name for name, tensor in method.own.items() if not torch.equal(tensor, before[name])]
    assert len(changed) > 0.8 * len(method.own) and all(name.startswith("visual.") for name in changed)


def test_rates_and_decay(vit_backbone, mask_splits):
    method = DenseCLIP(vit_backbone, **SMALL)
    method.class_names = mask_splits(2).class_names
    method._build()
    tower, rest, norms = method._groups()
    assert tower["lr_scale"] == 0.1 and norms["weight_decay"] == 0.0 and all(p.ndim == 1 for p in norms["params"])
    assert len(tower["params"]) == len(method.own) and method.recipe["weight_decay"] == 1e-4
    frozen = DenseCLIP(vit_backbone, **SMALL, tune_backbone=False)
    frozen.class_names = method.class_names
    frozen._build()
    assert len(frozen._groups()) == 2 and not frozen.own


def test_without_language_it_is_a_plain_segmenter(vit_backbone, mask_splits):
    split = mask_splits(6)
    method = DenseCLIP(vit_backbone, **SMALL, language=False, epochs=2).fit(split)
    assert set(method.history) == {"loss", "head", "lr"} and not hasattr(method, "prompts")
    with pytest.raises(ValueError, match="language=False"):
        method.pixel_text(split)
    torch.testing.assert_close(
        method.score_maps(vit_backbone.preprocess(split.images)), method.score_maps(split), atol=1e-4, rtol=1e-4
    )


def test_classes_can_only_be_left_out(vit_backbone, mask_splits):
    split = mask_splits(4)
    method = untrained(vit_backbone, split)
    few = method.for_classes(["dog", "tabby cat"])
    assert torch.equal(few.score_maps(split), method.score_maps(split)[:, [1, 0]])
    with pytest.raises(ValueError, match="'yak'"):
        method.for_classes(["yak"])


def test_seeds_and_the_start_of_the_contexts(vit_backbone, mask_splits):
    split = mask_splits(5)

    def run(seed):
        return DenseCLIP(vit_backbone, **SMALL, seed=seed, epochs=1).fit(split).score_maps(split)

    state = torch.get_rng_state()
    one = run(1)
    assert torch.equal(torch.get_rng_state(), state) and torch.equal(one, run(1)) and not torch.equal(one, run(2))
    start = untrained(vit_backbone, split, n_ctx=8).new["learned"]["ctx"]
    assert start.abs().max() <= 2 and 0.75 < start.std() < 1.0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompting": "both"}, "prompting='both'"),
        ({"n_ctx": 0}, "n_ctx=0"),
        ({"width": 6}, "width=6"),
        ({"tau": 0}, "tau=0"),
        ({"path": "keys"}, "path='keys'"),
    ],
)
def test_bad_arguments_are_named(vit_backbone, arguments, message):
    with pytest.raises(ValueError, match=message):
        DenseCLIP(vit_backbone, **(SMALL | arguments))


def test_masks_are_needed(vit_backbone, train):
    with pytest.raises(TypeError, match="must be a MaskSplit"):
        DenseCLIP(vit_backbone, **SMALL).fit(train)
