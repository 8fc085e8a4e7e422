"""MaPLe: its prompts in both towers against hooks on open_clip's modules, the coupling, the ablations, transfer."""

import pytest
import torch
import torch.nn.functional as F

from vlmcourse.backbone.features import image_features
from vlmcourse.methods.baselines.zero_shot import ZeroShot
from vlmcourse.methods.text_prompts.coop import CoOp
from vlmcourse.methods.text_visual_prompts.maple import PROMPTING, MaPLe
from vlmcourse.methods.vision_prompts import TOKENS, normal_prompts

SHORT = {"epochs": 4, "lr": 0.01, "batch_size": 4}
PHOTO = "a photo of a {}."


def untrained(backbone, train, **arguments):
    """A MaPLe at its first step, what it learns open for gradients."""
    method = MaPLe(backbone, epochs=0, **arguments).fit(train)
    method.ctx, method.deep_ctx = method.ctx.requires_grad_(), method.deep_ctx.requires_grad_()
    for net in method.coupling:
        net.requires_grad_(True)
    return method


def logits_with_hooks(backbone, method, images):
    """The same classifier by forward hooks on the blocks of open_clip, text padded to the whole context length."""
    model, count, hooks = backbone.model, method.n_ctx, []
    text, image = method.text_prompts(), method.visual_prompts()

    def in_text(prompts):
        return lambda block, args: (torch.cat([args[0][:, :1], prompts.expand(len(args[0]), -1, -1),
                                               args[0][:, 1 + count :]], dim=1), *args[1:])  # fmt: skip

    def in_image(prompts):
        return lambda block, args: (torch.cat([args[0][:, :-count], prompts.expand(len(args[0]), -1, -1)], dim=1),)

    def at_ln_pre(module, args):
        return (torch.cat([args[0], image[0].expand(len(args[0]), -1, -1)], dim=1),)

    hooks.append(model.visual.ln_pre.register_forward_pre_hook(at_ln_pre))
    for i in range(1, method.depth):
        hooks.append(model.transformer.resblocks[i].register_forward_pre_hook(in_text(text[i])))
        hooks.append(model.visual.transformer.resblocks[i].register_forward_pre_hook(in_image(image[i])))
    try:
        ids = backbone.tokenize([PHOTO.format(name.replace("_", " ")) for name in method.class_names])
        embeddings = model.token_embedding(ids)
        embeddings = torch.cat([embeddings[:, :1], text[0].expand(len(ids), -1, -1), embeddings[:, 1 + count :]], dim=1)
        x = model.transformer(embeddings + model.positional_embedding, attn_mask=model.attn_mask)
        w = model.ln_final(x)[torch.arange(len(ids)), ids.argmax(dim=-1)] @ model.text_projection
        f = model.visual(backbone.preprocess(images))
    finally:
        for hook in hooks:
            hook.remove()
    return model.logit_scale.exp() * F.normalize(f, dim=-1) @ F.normalize(w, dim=-1).T


@pytest.mark.parametrize("depth", [1, 2, 3])
def test_prompts_reach_both_towers_as_hooks_on_the_blocks_do(vit_backbone, train, test_split, depth):
    method = MaPLe(vit_backbone, depth=depth, **SHORT).fit(train)
    with torch.no_grad():
        frozen = vit_backbone.encode_image(test_split.images)
        expected = logits_with_hooks(vit_backbone, method, test_split.images)
        assert torch.equal(vit_backbone.encode_image(test_split.images), frozen), "the hooks are gone again"
    torch.testing.assert_close(method.logits(test_split), expected, atol=1e-4, rtol=0)


def test_at_the_start_shallow_text_is_the_hand_written_prompt(vit_backbone, train):
    method = MaPLe(vit_backbone, depth=1, epochs=0).fit(train)
    zero_shot = ZeroShot(vit_backbone, templates=PHOTO).fit(train)
    torch.testing.assert_close(method.text, zero_shot.text, atol=1e-6, rtol=0)
    assert method.deep_ctx.shape == (0, 2, 32) and len(method.coupling) == len(method.visual_prompts()) == 1
    deeper = MaPLe(vit_backbone, depth=3, epochs=0).fit(train)
    assert (deeper.text - zero_shot.text).abs().max() > 1e-4


def test_couplings_start_as_copies_but_the_first_has_its_own_start(vit_backbone, train):
    method = untrained(vit_backbone, train, depth=3)
    first, second, third = (dict(net.named_parameters()) for net in method.coupling)
    assert all(torch.equal(second[name], third[name]) and not torch.equal(first[name], second[name]) for name in first)
    assert first["0.weight"].shape == (48, 32)
    for prompts, net, visual in zip(method.text_prompts(), method.coupling, method.visual_prompts(), strict=True):
        torch.testing.assert_close(visual, F.linear(prompts, net[0].weight, net[0].bias))
    assert 0 < first["0.weight"].abs().max() <= 32**-0.5


def test_number_of_learned_parameters(vit_backbone, train):
    def count(J, M, D, Dv):
        return J * M * D + J * (D * Dv + Dv)

    assert count(9, 2, 512, 768) == 3_555_072, "the official model's, ViT-B"
    for depth in (1, 3):
        assert MaPLe(vit_backbone, depth=depth, epochs=0).fit(train).n_learned == count(depth, 2, 32, 48)
    sizes = {p: MaPLe(vit_backbone, depth=2, prompting=p, epochs=0).fit(train).n_learned for p in PROMPTING}
    assert sizes["independent"] == sizes["language"] + sizes["vision"] == 2 * 2 * 32 + 2 * 2 * 48


def test_the_gradient_reaches_text_prompts_through_the_image_tower(vit_backbone, train):
    method = untrained(vit_backbone, train, depth=3)
    tokens = image_features(vit_backbone, train, encoder=TOKENS, normalise=False)
    text = method.text_features().detach()
    loss = F.cross_entropy(vit_backbone.logit_scale * method._image_features(tokens) @ text.T, train.labels)
    loss.backward()
    assert method.ctx.grad.norm() > 1e-4
    assert (method.deep_ctx.grad.flatten(1).norm(dim=1) > 1e-4).all()
    assert all(p.grad.abs().max() > 0 for net in method.coupling for p in net.parameters())
    assert all(p.grad is None for p in vit_backbone.model.parameters())


def test_language_only_with_all_words_learned_is_coop(tower, train, test_split):
    ours = MaPLe(tower, prompting="language", depth=1, n_ctx=4, **SHORT).fit(train)
    coop = CoOp(tower, ctx_init="a photo of a", **SHORT).fit(train)
    torch.testing.assert_close(ours.ctx, coop.ctx, atol=1e-6, rtol=0)
    torch.testing.assert_close(ours.logits(test_split), coop.logits(test_split), atol=1e-4, rtol=0)


def test_independent_prompts_are_parameters_and_start_from_noise(vit_backbone, train):
    method = MaPLe(vit_backbone, prompting="independent", depth=2, epochs=0, seed=5).fit(train)
    expected = normal_prompts(vit_backbone, 2, 2, seed=3_000_008)
    assert torch.equal(torch.stack(method.visual_prompts()), expected) and method.coupling == []
    assert set(method.learned_parameters()) == {"ctx", "deep_ctx", "ctx_vision"}


def test_vision_only_leaves_the_text_at_the_hand_written_prompt(vit_backbone, train, test_split):
    method = MaPLe(vit_backbone, prompting="vision", **SHORT).fit(train)
    zero_shot = ZeroShot(vit_backbone, templates=PHOTO).fit(train)
    torch.testing.assert_close(method.text, zero_shot.text, atol=1e-6, rtol=0)
    assert set(method.learned_parameters()) == {"ctx_vision"}
    assert (method.logits(test_split) - zero_shot.logits(test_split)).abs().max() > 1e-3
    moved = method.for_classes(["owl", "yak"])
    torch.testing.assert_close(moved.text, zero_shot.for_classes(["owl", "yak"]).text, atol=1e-6, rtol=0)


@pytest.mark.parametrize("prompting", PROMPTING)
def test_fitting_lowers_the_loss_and_leaves_the_towers(vit_backbone, splits, prompting):
    train = splits(per_class=8, seed=1)
    before = {name: tensor.clone() for name, tensor in vit_backbone.model.state_dict().items()}
    start = untrained(vit_backbone, train, prompting=prompting).learned_parameters()
    method = MaPLe(vit_backbone, prompting=prompting, epochs=8, lr=0.01, batch_size=8).fit(train)
    assert method.history["loss"][-1] < method.history["loss"][0] - 0.02
    assert all(not torch.equal(tensor, start[name]) for name, tensor in method.learned_parameters().items())
    assert all(torch.equal(tensor, before[name]) for name, tensor in vit_backbone.model.state_dict().items())
    again = MaPLe(vit_backbone, prompting=prompting, epochs=8, lr=0.01, batch_size=8).fit(train)
    assert torch.equal(again.text, method.text)


def test_the_recipe_is_the_papers(vit_backbone, train, monkeypatch):
    seen = {}

    def spy(parameters, loss_fn, n, **settings):
        seen.update(settings, shapes=[tuple(p.shape) for p in parameters])
        return {"loss": [0.0]}

    monkeypatch.setattr("vlmcourse.methods.text_prompts.coop.training.fit", spy)
    MaPLe(vit_backbone).fit(train)
    assert seen["epochs"] == 5 and seen["batch_size"] == 4 and seen["lr"] == 3.5e-3
    assert seen["shapes"][:2] == [(2, 32), (2, 2, 32)] and len(seen["shapes"]) == 2 + 2 * 3


def test_words_of_the_prompt_that_are_not_learned_stay(vit_backbone, train):
    for n_ctx, words in ((1, "photo of a"), (2, "of a"), (4, ""), (6, "")):
        method = MaPLe(vit_backbone, n_ctx=n_ctx, epochs=0).fit(train)
        assert method.rest == words and method.ctx.shape == (n_ctx, 32)
        assert (method.start is None) == (n_ctx == 6), "too few words: noise"


def test_new_classes_get_the_learned_prompts_in_both_towers(vit_backbone, train, test_split):
    method = MaPLe(vit_backbone, **SHORT).fit(train)
    reversed_names = method.class_names[::-1]
    moved = method.for_classes(reversed_names)
    torch.testing.assert_close(moved.logits(test_split), method.logits(test_split).flip(1), atol=1e-5, rtol=0)
    other = method.for_classes(["owl", "yak", "elk"])
    assert other.logits(test_split).shape == (20, 3) and method.text.shape == (4, 16)
    chunks = torch.cat([method.logits(test_split.images[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(chunks, method.logits(test_split)[:3], atol=1e-5, rtol=0)


def test_bad_arguments_are_named(vit_backbone, resnet_backbone, train):
    for arguments, message in (
        ({"prompting": "both"}, "prompting='both' must be one of"),
        ({"depth": 0}, "depth=0 must be a whole number from 1 to 3"),
        ({"depth": 4}, "depth=4 must be a whole number from 1 to 3"),
        ({"depth": True}, "depth=True"),
        ({"csc": True}, "csc=True"),
        ({"class_token_position": "front"}, "class_token_position='front'"),
        ({"n_ctx": 0}, "n_ctx=0"),
    ):
        with pytest.raises(ValueError, match=message):
            MaPLe(vit_backbone, **arguments)
    with pytest.raises(ValueError, match="needs a ViT"):
        MaPLe(resnet_backbone)
    method = MaPLe(vit_backbone, epochs=1).fit(train)
    with pytest.raises(ValueError, match="maple needs the tokens of images"):
        method.logits(torch.zeros(3, 16))


def test_half_precision_backbones_learn_in_float32(vit_backbone, train):
    method = MaPLe(vit_backbone.to(dtype=torch.bfloat16), epochs=1).fit(train)
    assert {t.dtype for t in method.learned_parameters().values()} == {torch.float32}
    assert method.logits(train).dtype == torch.float32
