"""The shipped CLIP: a genuine open_clip model, whole or refused, small, quick to load, and open to every method."""

import json
import subprocess
import sys

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file

from vlmcourse.backbone import emojiclip
from vlmcourse.backbone.emojiclip import EMBED_DIM, PIXELS, TEXT, VISION, build_model, build_tokenizer, load_emojiclip
from vlmcourse.backbone.load import load_backbone
from vlmcourse.backbone.stem import EfficientNetStem
from vlmcourse.backbone.vision import plain_attention
from vlmcourse.errors import DataError
from vlmcourse.files import sha256
from vlmcourse.paths import data_dir

SHIPPED = data_dir() / "emojiclip"
FILES = ("weights.safetensors", "bpe.txt.gz")
needs_weights = pytest.mark.skipif(
    not (SHIPPED / "weights.safetensors").is_file(),
    reason="data/emojiclip/weights.safetensors has not been trained yet",
)


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A data folder with an EmojiCLIP of random weights, stored as the shipped one is; returns (folder, its model)."""
    folder = tmp_path_factory.mktemp("data") / "emojiclip"
    folder.mkdir()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build_model().eval()
    with torch.no_grad():
        norm = model.visual.conv1[1]
        norm.running_mean.normal_(0, 0.1, generator=torch.Generator().manual_seed(1))
    weights = {k: (v.half() if v.is_floating_point() else v).contiguous() for k, v in model.state_dict().items()}
    save_file(weights, folder / "weights.safetensors")
    (folder / "bpe.txt.gz").write_bytes((SHIPPED / "bpe.txt.gz").read_bytes())
    config = {"embed_dim": EMBED_DIM, "vision": VISION, "text": TEXT}
    config["sha256"] = {name: sha256(folder / name) for name in FILES}
    (folder / "config.json").write_text(json.dumps(config))
    return folder.parent, model


@pytest.fixture
def folder(made, tmp_path, monkeypatch):
    """A copy that a test may damage; the package reads it."""
    (tmp_path / "emojiclip").mkdir()
    for path in (made[0] / "emojiclip").iterdir():
        (tmp_path / "emojiclip" / path.name).write_bytes(path.read_bytes())
    monkeypatch.setenv("VLMCOURSE_DATA", str(tmp_path))
    return tmp_path / "emojiclip"


@pytest.fixture(scope="module")
def backbone(made):
    """The shipped EmojiCLIP where there is one, else the random one."""
    if (SHIPPED / "weights.safetensors").is_file():
        return load_emojiclip()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLMCOURSE_DATA", str(made[0]))
        return load_emojiclip()


@pytest.fixture
def pictures(generator):
    return torch.randint(0, 256, (5, 3, 64, 64), generator=generator, dtype=torch.uint8)


# ---- what it is ------------------------------------------------------------------------------------------------------


def test_sizes(backbone):
    assert type(backbone.model) is open_clip.CLIP
    assert type(backbone.model.visual) is open_clip.transformer.VisionTransformer
    assert isinstance(backbone.model.visual.conv1[0], EfficientNetStem)
    assert backbone.name == "emojiclip" and backbone.is_vit
    assert (backbone.image_size, backbone.embed_dim, backbone.text_width) == (64, 256, 192)
    assert (backbone.vision_width, backbone.context_length) == (192, 32)
    assert backbone.mean.flatten().tolist() == backbone.std.flatten().tolist() == [0.5] * 3
    assert backbone.model.visual.preprocess_cfg == PIXELS
    assert not any(p.requires_grad for p in backbone.model.parameters()) and not backbone.model.training
    assert 1 < float(backbone.logit_scale) <= 100
    assert 4.5e6 < sum(p.numel() for p in backbone.model.parameters()) < 5.5e6


@torch.no_grad()
def test_equals_open_clips_own_forward(backbone, pictures):
    """The backbone adds nothing: the same numbers as open_clip's CLIP.forward."""
    sentences = ["a cat", "a drawing of a hot air balloon", "clip art of a key"]
    ready = pictures.float() / 127.5 - 1  # what pretraining read
    with plain_attention():
        image, text, scale = backbone.model(ready, backbone.tokenize(sentences))
        own = backbone.encode_image(pictures), backbone.encode_text(sentences)
    torch.testing.assert_close(own[0], image, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(own[1], text, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(scale, backbone.logit_scale)
    torch.testing.assert_close(backbone.preprocess(pictures), ready)
    hidden = backbone.model.visual.forward_intermediates(ready, indices=1)["image_intermediates"][-1]
    assert hidden.shape == (5, 192, 8, 8)


def test_tokenizer(backbone):
    tokenizer = backbone.tokenizer
    assert tokenizer.vocab_size == TEXT["vocab_size"] == 4610
    assert (tokenizer.sot_token_id, tokenizer.eot_token_id) == (4608, 4609)
    assert tokenizer.context_length == 32
    ids = build_tokenizer()(["a cat", ""])
    assert ids.shape == (2, 32) and ids[0, 0] == 4608 and ids[1, :2].tolist() == [4608, 4609]
    assert int(ids.max()) == 4609 == backbone.model.token_embedding.num_embeddings - 1
    assert tokenizer.decode(tokenizer.encode("hot air balloon")).strip() == "hot air balloon"
    assert torch.equal(backbone.tokenize(["a cat", ""]), ids)
    with pytest.raises(ValueError, match="word word"):
        backbone.tokenize(["word " * 40])


def test_dense_features(backbone, pictures):
    for path in ("value", "value+residual", "full"):
        dense = backbone.dense_features(pictures, path=path)
        assert dense.shape == (5, 256, 8, 8)
        torch.testing.assert_close(dense.norm(dim=1), torch.ones(5, 8, 8))
    assert backbone.patch_tokens(pictures).shape == (5, 64, 192)


def test_image_prompts(backbone, pictures, generator):
    frozen = backbone.encode_image(pictures)
    assert torch.equal(backbone.encode_image_prompted(pictures), frozen)
    prompts = (0.5 * torch.randn(4, 192, generator=generator)).requires_grad_()
    for options in ({}, {"where": "after_cls"}, {"before_ln_pre": True}, {"deep": {2: torch.zeros(4, 192)}}):
        found = backbone.encode_image_prompted(pictures, shallow=prompts, **options)
        assert found.shape == frozen.shape and not torch.allclose(found, frozen, atol=1e-4)
    found.sum().backward()
    assert prompts.grad.isfinite().all() and prompts.grad.abs().sum() > 0


def test_text_prompts(backbone):
    ids = backbone.tokenize(["a picture of a cat", "a picture of a dog"])
    embeddings = backbone.token_embedding(ids)
    plain = backbone.encode_text(ids)
    torch.testing.assert_close(backbone.encode_text_embeddings(embeddings, ids.argmax(1)), plain, rtol=1e-4, atol=1e-5)
    context = embeddings[0, :4].clone().requires_grad_()
    shared = backbone.encode_text_shared_prefix(context, embeddings[:, 4:], ids.argmax(1))
    torch.testing.assert_close(shared, plain, rtol=1e-4, atol=1e-5)
    shared[0, 0].backward()
    assert context.grad.abs().sum() > 0


def test_gradients_reach_the_pixels(backbone, pictures):
    x = backbone.preprocess(pictures).requires_grad_()
    backbone.encode_image(x)[:, 0].sum().backward()
    assert x.grad.isfinite().all() and x.grad.abs().sum() > 0


# ---- how it loads ----------------------------------------------------------------------------------------------------


def test_what_was_saved_is_what_is_loaded(folder, made):
    model = load_emojiclip().model
    expected = made[1].state_dict()
    assert list(model.state_dict()) == list(expected)
    for name, value in model.state_dict().items():
        assert torch.equal(value, expected[name].half().float() if value.is_floating_point() else expected[name]), name


def test_by_name(folder):
    one, two = load_backbone(), load_backbone("emojiclip", dtype=torch.bfloat16)
    assert one.name == two.name == "emojiclip" and two.dtype == torch.bfloat16
    assert one.fingerprint == load_emojiclip().fingerprint != two.fingerprint
    with pytest.raises(ValueError, match="brings its own weights"):
        load_backbone("emojiclip", pretrained="openai")


def test_loading_leaves_the_global_random_stream_alone(folder):
    before = torch.random.get_rng_state()
    load_emojiclip()
    assert torch.equal(torch.random.get_rng_state(), before)


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def cut(path):
    path.write_bytes(path.read_bytes()[:-1000])


def empty(path):
    path.write_bytes(b"")


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize(
    ("damage", "says"), [(flip, "damaged"), (cut, "damaged"), (empty, "damaged"), (None, "missing")]
)
def test_damaged_files(folder, name, damage, says):
    path = folder / name
    damage(path) if damage else path.unlink()
    with pytest.raises(DataError, match=rf"{name} is {says}.*(?i:restore)"):
        load_emojiclip()


@pytest.mark.parametrize(
    "content",
    [
        b"", b"{", b"\xff", b"[]", b"{}", b'{"sha256": {}}', b'{"sha256": null}', None,
        json.dumps({"sha256": dict.fromkeys(FILES, "0"), "vision": None, "text": {}, "embed_dim": 1}).encode(),
    ],
)  # fmt: skip
def test_damaged_config(folder, content):
    path = folder / "config.json"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(DataError, match=r"config\.json cannot be read.*Restore data/emojiclip"):
        load_emojiclip()


def test_weights_of_another_architecture(folder):
    """A config that does not belong to the weights is an error, never a half-filled model."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    config["vision"]["layers"] = 3
    path.write_text(json.dumps(config))
    with pytest.raises(RuntimeError, match="resblocks.3"):
        load_emojiclip()


# ---- what ships ------------------------------------------------------------------------------------------------------


@needs_weights
def test_files_that_ship():
    config = json.loads((SHIPPED / "config.json").read_text(encoding="utf-8"))
    assert set(config["sha256"]) == set(FILES)
    assert {name: sha256(SHIPPED / name) for name in FILES} == config["sha256"]
    assert config["vision"] == VISION and config["text"] == TEXT and config["embed_dim"] == EMBED_DIM
    assert (SHIPPED / "weights.safetensors").stat().st_size <= 16e6
    with safe_open(SHIPPED / "weights.safetensors", "pt") as file:
        kinds = {file.get_slice(name).get_dtype() for name in file.keys()}
        assert kinds <= {"F16", "I64"}
        assert all(np.isfinite(file.get_tensor(name).float().numpy()).all() for name in file.keys())


@needs_weights
def test_it_loads_fast():
    """Under two seconds besides the imports, in a fresh process; the bound allows for a busy machine."""
    code = (
        "import time, torch, open_clip, safetensors.torch\n"
        "import vlmcourse.backbone.emojiclip as e\n"
        "start = time.process_time(); e.load_emojiclip(); print(time.process_time() - start)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert float(done.stdout) < 4


@needs_weights
def test_it_knows_something():
    """Names of well-known things belong to their held-out pictures, far above chance (1 in 12)."""
    from vlmcourse.tasks import get_task

    task, backbone = get_task("everyday"), load_emojiclip()
    text = backbone.encode_text([f"a picture of a {name}" for name in task.class_names])
    image = backbone.encode_image(task.val.images)
    right = ((image @ text.T).argmax(1) == task.val.labels).float().mean()
    assert float(right) > 0.5
    one, other = backbone.encode_text(["a cat", "a kitten"]), backbone.encode_text(["a cat", "a refrigerator"])
    assert float(F.cosine_similarity(*one, dim=0)) > float(F.cosine_similarity(*other, dim=0))


def test_folder_follows_the_environment(folder):
    assert emojiclip.folder() == folder
