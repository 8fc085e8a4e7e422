"""Learnable context: layout of the prompts, init words, every shape, trimming and the shared prefix."""

import pytest
import torch

from vlmcourse.methods.context import ClassPrompts, nearest_words, random_context, words_context

NAMES = ["cat", "hot air balloon", "red_fox", "xylophone"]
RE_ORDERED = {  # "a photo of a" moved around the class name, and an odd number of tokens
    ("a photo of a", "end"): "a photo of a {}.",
    ("a photo of a", "middle"): "a photo {} of a.",
    ("a photo of a", "front"): "{} a photo of a.",
    ("one nice photo", "middle"): "one {} nice photo.",
    ("a type of pet, a photo of a", "end"): "a type of pet, a photo of a {}.",
    ("a type of pet, a photo of a", "front"): "{} a type of pet, a photo of a.",
}


@pytest.mark.parametrize(("words", "position"), RE_ORDERED)
def test_init_words_reproduce_the_re_ordered_sentence(vit_backbone, words, position):
    ctx = words_context(vit_backbone, words)
    prompts = ClassPrompts(vit_backbone, NAMES, len(ctx), position)
    sentences = [RE_ORDERED[words, position].replace("{}", name.replace("_", " ")) for name in NAMES]
    with torch.no_grad():
        expected = vit_backbone.encode_text(sentences)
        assert torch.equal(prompts.encode(ctx, share_prefix=False), expected)
        torch.testing.assert_close(prompts.encode(ctx), expected, atol=1e-5, rtol=0)


def test_trimmed_prompts_equal_prompts_of_full_length(vit_backbone):
    ctx = random_context(vit_backbone, 5, seed=0)
    prompts = ClassPrompts(vit_backbone, NAMES, 5, "middle")
    full = torch.zeros(len(NAMES), vit_backbone.context_length, vit_backbone.text_width)
    length = prompts.embeddings.shape[1]
    assert length < vit_backbone.context_length
    full[:, :length] = prompts.insert(ctx)
    torch.testing.assert_close(
        prompts.encode(ctx), vit_backbone.encode_text_embeddings(full, prompts.eot), atol=1e-5, rtol=0
    )


def test_words_are_counted_in_bpe_tokens(vit_backbone):
    assert len(words_context(vit_backbone, "a type of pet, a photo of a")) == 9  # 8 words and a comma
    assert words_context(vit_backbone, "a photo of a").shape == (4, vit_backbone.text_width)


def test_names_that_end_in_punctuation(vit_backbone):
    ctx = words_context(vit_backbone, "a photo of")
    prompts = ClassPrompts(vit_backbone, ["u.s.", "cat"], len(ctx))
    expected = vit_backbone.encode_text(["a photo of u.s..", "a photo of cat."])
    assert torch.equal(prompts.encode(ctx, share_prefix=False), expected)


@pytest.mark.parametrize("position", ["end", "middle", "front"])
def test_every_shape_of_context_gives_what_one_by_one_gives(vit_backbone, position):
    M, C = 3, len(NAMES)
    prompts = ClassPrompts(vit_backbone, NAMES, M, position)
    per_image = random_context(vit_backbone, 2, 5, 1, M, seed=0, std=1.0)  # 2 prompts, 5 images, shared by the classes
    got = prompts.encode(per_image)
    assert got.shape == (2, 5, C, vit_backbone.embed_dim)
    one_by_one = torch.stack([torch.stack([prompts.encode(c[0]) for c in row]) for row in per_image])
    torch.testing.assert_close(got, one_by_one, atol=1e-5, rtol=0)
    per_class = random_context(vit_backbone, 2, C, M, seed=1, std=1.0)  # 2 prompts, class-specific
    got = prompts.encode(per_class)
    for c in range(C):
        torch.testing.assert_close(got[:, c], prompts.encode(per_class[:, c, None])[:, c], atol=1e-5, rtol=0)


def test_shared_prefix_equals_the_plain_pass_with_gradients(vit_backbone):
    prompts = ClassPrompts(vit_backbone, NAMES, 4)
    ctx = random_context(vit_backbone, 4, seed=0)
    target = torch.randn(len(NAMES), vit_backbone.embed_dim, generator=torch.Generator().manual_seed(0))
    results = []
    for share in (True, False):
        leaf = ctx.clone().requires_grad_()
        text = prompts.encode(leaf, share_prefix=share)
        (text * target).sum().backward()
        results.append((text.detach(), leaf.grad))
    torch.testing.assert_close(results[0][0], results[1][0], atol=1e-6, rtol=0)
    torch.testing.assert_close(results[0][1], results[1][1], atol=1e-5, rtol=1e-4)


def test_equal_rows_equal_the_unified_context_and_order_matters(vit_backbone):
    ctx = random_context(vit_backbone, 4, seed=0, std=1.0)
    prompts = ClassPrompts(vit_backbone, NAMES, 4)
    torch.testing.assert_close(prompts.encode(ctx.expand(len(NAMES), 4, -1)), prompts.encode(ctx), atol=1e-5, rtol=0)
    assert (prompts.encode(ctx.flip(0)) - prompts.encode(ctx)).abs().max() > 1e-3


def test_deep_context_and_raw_features_reach_the_text_tower(vit_backbone):
    prompts = ClassPrompts(vit_backbone, NAMES, 4)
    ctx, deeper = random_context(vit_backbone, 2, 4, seed=0, std=1.0)
    one, two = (prompts.encode(ctx, share_prefix=share, deep={1: deeper}, normalise=False) for share in (True, False))
    torch.testing.assert_close(one, two, atol=1e-5, rtol=1e-5)
    assert (one - prompts.encode(ctx, normalise=False)).abs().max() > 1e-3
    torch.testing.assert_close(torch.nn.functional.normalize(one, dim=-1), prompts.encode(ctx, deep={1: deeper}))
    with pytest.raises(ValueError, match="class_token_position='front' must be 'end'"):
        ClassPrompts(vit_backbone, NAMES, 4, "front").encode(ctx, deep={1: deeper})


def test_no_context_is_the_bare_name(vit_backbone):
    prompts = ClassPrompts(vit_backbone, NAMES, 0)
    expected = vit_backbone.encode_text([name.replace("_", " ") + "." for name in NAMES])
    torch.testing.assert_close(prompts.encode(torch.zeros(0, vit_backbone.text_width)), expected, atol=1e-6, rtol=0)


def test_random_context_has_the_asked_spread_and_its_own_generator(vit_backbone):
    before = torch.get_rng_state()
    ctx = random_context(vit_backbone, 4, 64, seed=3)
    assert torch.equal(before, torch.get_rng_state())
    assert ctx.shape == (4, 64, vit_backbone.text_width) and ctx.std().item() == pytest.approx(0.02, rel=0.05)
    assert torch.equal(ctx, random_context(vit_backbone, 4, 64, seed=3))
    assert not torch.equal(ctx, random_context(vit_backbone, 4, 64, seed=4))


def test_nearest_words_finds_the_words_themselves(vit_backbone):
    words = nearest_words(vit_backbone, words_context(vit_backbone, "a photo of"), k=2)
    assert [row[0][0] for row in words] == ["a", "photo", "of"]
    assert all(row[0][1] < 1e-3 < row[1][1] for row in words)


def test_half_precision_context_keeps_a_full_precision_copy(vit_backbone):
    half = vit_backbone.to(dtype=torch.bfloat16)
    ctx = random_context(half, 4, seed=0)
    assert ctx.dtype == torch.float32
    text = ClassPrompts(half, NAMES, 4).encode(ctx.requires_grad_())
    assert text.dtype == torch.float32
    text.sum().backward()
    assert ctx.grad.dtype == torch.float32


def test_bad_arguments_are_named(vit_backbone):
    with pytest.raises(ValueError, match="class_token_position='top'"):
        ClassPrompts(vit_backbone, NAMES, 4, "top")
    with pytest.raises(ValueError, match="n_ctx=-1"):
        ClassPrompts(vit_backbone, NAMES, -1)
    ClassPrompts(vit_backbone, NAMES, 26)  # 1 + 26 + 3 + 1 + 1 = 32 tokens just fit
    with pytest.raises(ValueError, match="n_ctx=27 and the class name 'hot air balloon' need 33 tokens, '.*' reads 32"):
        ClassPrompts(vit_backbone, NAMES, 27)
    prompts = ClassPrompts(vit_backbone, NAMES, 4)
    for shape in ((3, 32), (3, 4, 32), (4, 4, 31), (32,)):
        with pytest.raises(ValueError, match="context"):
            prompts.encode(torch.zeros(shape))
    with pytest.raises(ValueError, match="ctx_init='  '"):
        words_context(vit_backbone, "  ")
    with pytest.raises(ValueError, match="k=0"):
        nearest_words(vit_backbone, torch.zeros(2, 32), k=0)
    with pytest.raises(ValueError, match="ctx="):
        nearest_words(vit_backbone, torch.zeros(2, 2, 32))
