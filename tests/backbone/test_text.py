"""The text tower from embeddings: open_clip's own result, trimmed or with a shared prefix, and its gradients."""

import pytest
import torch

SENTENCES = ["a photo of a cat.", "a drawing of a very long dachshund on a sofa.", "x"]


@pytest.fixture(params=["plain", "layer scale", "quick gelu"])
def backbone(request, vit_backbone, make_backbone):
    if request.param == "layer scale":
        return make_backbone("vit", text={"ls_init_value": 0.7})
    return make_backbone("vit", quick_gelu=True) if request.param == "quick gelu" else vit_backbone


def prompts(backbone):
    """Embeddings (3, 32, 32) and end positions of the sentences."""
    ids = backbone.tokenize(SENTENCES)
    return backbone.token_embedding(ids), ids.argmax(dim=-1)


def test_encode_text_is_open_clips(backbone):
    ids = backbone.tokenize(SENTENCES)
    expected = backbone.model.encode_text(ids, normalize=True)
    torch.testing.assert_close(backbone.encode_text(SENTENCES), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(backbone.encode_text(ids), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(backbone.encode_text(SENTENCES, batch_size=2), expected, rtol=0, atol=1e-6)
    raw = backbone.encode_text(SENTENCES, normalise=False)
    torch.testing.assert_close(raw, backbone.model.encode_text(ids), rtol=0, atol=1e-6)


def test_from_embeddings_is_bit_equal_to_open_clip(backbone):
    features = backbone.encode_text_embeddings(*prompts(backbone), normalise=False)
    assert torch.equal(features, backbone.model.encode_text(backbone.tokenize(SENTENCES)))


def test_trimmed_prompts_give_the_same(backbone):
    embeddings, eot = prompts(backbone)
    full = backbone.encode_text_embeddings(embeddings, eot)
    trimmed = backbone.encode_text_embeddings(embeddings[:, : eot.max() + 1], eot)
    torch.testing.assert_close(trimmed, full, rtol=0, atol=1e-6)


def test_any_leading_shape(vit_backbone, generator):
    embeddings = torch.randn(2, 3, 4, 9, 32, generator=generator)
    eot = torch.tensor([8, 5, 7, 6])  # one per class, broadcast over (2, 3)
    features = vit_backbone.encode_text_embeddings(embeddings, eot)
    assert features.shape == (2, 3, 4, 16)
    one = vit_backbone.encode_text_embeddings(embeddings[1, 2, 3], torch.tensor(6))  # no leading shape
    assert one.shape == (16,)
    torch.testing.assert_close(one, features[1, 2, 3], rtol=0, atol=1e-6)


@pytest.mark.parametrize("n_prefix", [1, 5])
@pytest.mark.parametrize("deep_layers", [(), (1, 2)])
def test_shared_prefix_equals_plain(backbone, generator, n_prefix, deep_layers):
    n_deep = n_prefix - 1
    suffix = torch.randn(7, 4, 32, generator=generator, requires_grad=True)
    prefix = torch.randn(n_prefix, 32, generator=generator, requires_grad=True)
    deep = {i: torch.randn(n_deep, 32, generator=generator, requires_grad=True) for i in deep_layers}
    eot = n_prefix + torch.randint(0, 4, (7,), generator=generator)
    leaves = [prefix, suffix, *(p for p in deep.values() if n_deep)]
    target = torch.randn(7, 16, generator=generator)

    plain = backbone.encode_text_embeddings(torch.cat([prefix.expand(7, -1, -1), suffix], 1), eot, deep)
    shared = backbone.encode_text_shared_prefix(prefix, suffix, eot, deep)
    torch.testing.assert_close(shared, plain, rtol=0, atol=1e-5)
    expected = torch.autograd.grad((plain * target).sum(), leaves)
    for found, wanted in zip(torch.autograd.grad((shared * target).sum(), leaves), expected):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_shared_prefix_with_several_contexts(vit_backbone, generator):
    prefix = torch.randn(2, 3, 5, 32, generator=generator)
    suffix = torch.randn(7, 4, 32, generator=generator)
    eot = torch.full((7,), 8)
    features = vit_backbone.encode_text_shared_prefix(prefix, suffix, eot)
    assert features.shape == (2, 3, 7, 16)
    one = vit_backbone.encode_text_shared_prefix(prefix[1, 2], suffix, eot)
    torch.testing.assert_close(features[1, 2], one, rtol=0, atol=1e-6)


def test_the_end_token_must_lie_in_the_suffix(vit_backbone):
    with pytest.raises((RuntimeError, IndexError), match="index"):
        vit_backbone.encode_text_shared_prefix(torch.zeros(5, 32), torch.zeros(2, 4, 32), torch.tensor([6, 3]))


def test_gradients_reach_the_prompts_and_nothing_else(vit_backbone):
    embeddings, eot = prompts(vit_backbone)
    context = torch.zeros(4, 32, requires_grad=True)
    mixed = torch.cat([embeddings[:, :1], context.expand(3, -1, -1), embeddings[:, 5:]], dim=1)
    vit_backbone.encode_text_embeddings(mixed, eot).sum().backward()
    assert context.grad.abs().sum() > 0
    assert all(p.grad is None and not p.requires_grad for p in vit_backbone.model.parameters())
    assert not vit_backbone.encode_text(SENTENCES).requires_grad


def test_deep_prompts_replace_the_context_before_their_layer(vit_backbone, generator):
    model, (embeddings, eot) = vit_backbone.model, prompts(vit_backbone)
    deep = {1: torch.randn(2, 32, generator=generator), 2: torch.randn(3, 2, 32, generator=generator)}
    x = embeddings + model.positional_embedding
    for i, block in enumerate(model.transformer.resblocks):
        if i in deep:
            x = x.clone()
            x[:, 1:3] = deep[i]
        x = block(x, attn_mask=model.attn_mask)
    expected = model.ln_final(x[torch.arange(3), eot]) @ model.text_projection
    found = vit_backbone.encode_text_embeddings(embeddings, eot, deep, normalise=False)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    called = vit_backbone.encode_text_embeddings(embeddings, eot, {1: lambda x: deep[1], 2: deep[2]}, normalise=False)
    assert torch.equal(called, found)


def test_tokenize(vit_backbone):
    ids = vit_backbone.tokenize("a cat")
    assert ids.shape == (1, 32) and ids.dtype == torch.long
    assert ids[0, :4].tolist() == [49406, *vit_backbone.tokenizer.encode("a cat"), 49407]
    assert ids[0, 4:].eq(0).all()
    with pytest.raises(ValueError, match="'cat cat .*' has 42 tokens, the text tower reads at most 32"):
        vit_backbone.tokenize(["fine", "cat " * 40])
    with pytest.raises(TypeError, match="non-empty list of strings"):
        vit_backbone.tokenize([])
    with pytest.raises(TypeError, match="non-empty list of strings"):
        vit_backbone.encode_text(["a", 3])


def test_wrong_shapes_and_types_are_named(vit_backbone):
    eot = torch.zeros(2, dtype=torch.long)
    with pytest.raises(ValueError, match=r"embeddings has shape \(2, 5, 31\), expected \(..., l, 32\)"):
        vit_backbone.encode_text_embeddings(torch.zeros(2, 5, 31), eot)
    with pytest.raises(ValueError, match="1 to 32 tokens"):
        vit_backbone.encode_text_embeddings(torch.zeros(2, 33, 32), eot)
    with pytest.raises(TypeError, match="not ids"):
        vit_backbone.encode_text_embeddings(torch.zeros(2, 5, 32, dtype=torch.long), eot)
    with pytest.raises(ValueError, match="1 to 32 tokens"):
        vit_backbone.encode_text_shared_prefix(torch.zeros(17, 32), torch.zeros(2, 16, 32), eot + 20)
    with pytest.raises(ValueError, match=r"suffix has shape .* expected \(C, l, 32\)"):
        vit_backbone.encode_text_shared_prefix(torch.zeros(4, 32), torch.zeros(5, 32), eot)
    with pytest.raises(ValueError, match="deep text prompts have shape"):
        vit_backbone.encode_text_embeddings(torch.zeros(2, 5, 32), eot, {0: torch.zeros(5, 32)})
    for encode in (vit_backbone.encode_text_embeddings, vit_backbone.encode_text_shared_prefix):
        tokens = (torch.zeros(2, 5, 32),) * (1 if encode == vit_backbone.encode_text_embeddings else 2)
        with pytest.raises(ValueError, match=r"deep has layers \[3\], expected integers from 0 to 2"):
            encode(*tokens, eot + 6 * (len(tokens) - 1), {3: torch.zeros(2, 32)})
    with pytest.raises(ValueError, match="batch_size=0"):
        vit_backbone.encode_text(["a"], batch_size=0)
    with pytest.raises(ValueError, match="token ids have shape"):
        vit_backbone.encode_text(torch.zeros(2, 5))


def test_autocast(vit_backbone, generator):
    prefix, suffix = torch.randn(5, 32, generator=generator), torch.randn(7, 4, 32, generator=generator)
    eot = torch.full((7,), 8)
    with torch.autocast("cpu", torch.bfloat16):
        shared = vit_backbone.encode_text_shared_prefix(prefix, suffix, eot)
        plain = vit_backbone.encode_text_embeddings(torch.cat([prefix.expand(7, -1, -1), suffix], 1), eot)
    exact = vit_backbone.encode_text_shared_prefix(prefix, suffix, eot)
    for features in (shared, plain):
        assert (features.float() - exact).abs().max() < 0.05
