"""load_backbone: every way to name a model, the activation it gets, and an error that helps for every mistake."""

import copy
import json
import shutil
import sys
import types
import warnings
import zipfile

import open_clip
import pytest
import torch
from open_clip.transformer import QuickGELU
from safetensors.torch import save_file

from vlmcourse.backbone.load import load_backbone
from vlmcourse.errors import DataError

NAMES = ("Tiny-ViT", "Tiny-ViT-quickgelu", "Tiny-RN")


@pytest.fixture(autouse=True)
def tiny_names(monkeypatch):
    """Three more names in open_clip's registry, so that nothing large is built."""
    text = {"context_length": 32, "vocab_size": 49408, "width": 32, "heads": 4, "layers": 1}
    vit = {"image_size": 32, "patch_size": 8, "width": 48, "head_width": 12, "layers": 1}
    config = {"embed_dim": 16, "vision_cfg": vit, "text_cfg": text}
    resnet = config | {"vision_cfg": {"image_size": 32, "layers": [1, 1, 1, 1], "width": 8}}
    for name, entry in zip(NAMES, (config, config | {"quick_gelu": True}, resnet)):
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, copy.deepcopy(entry))
    return config


@pytest.fixture
def weights(tmp_path):
    """A local checkpoint of Tiny-ViT in both formats: (safetensors, state dict of torch)."""
    state = load_backbone("Tiny-ViT", "random", seed=3).model.state_dict()
    save_file(state, tmp_path / "weights.safetensors")
    torch.save(state, tmp_path / "weights.pt")
    return tmp_path / "weights.safetensors", tmp_path / "weights.pt"


def is_quick(backbone) -> set[bool]:
    """Which activation both towers have."""
    towers = (backbone.model.transformer, backbone.model.visual.transformer)
    return {isinstance(block.mlp.gelu, QuickGELU) for tower in towers for block in tower.resblocks}


def test_random_weights_are_seeded_and_leave_the_global_stream_alone():
    torch.manual_seed(5)
    before = torch.random.get_rng_state()
    a, b, c = (load_backbone("Tiny-ViT", "random", seed=s) for s in (0, 0, 1))
    assert torch.equal(torch.random.get_rng_state(), before)
    assert a.fingerprint == b.fingerprint != c.fingerprint
    assert a.name == "Tiny-ViT:random"
    assert load_backbone("Tiny/RN", "random").name == "Tiny-RN:random"
    assert load_backbone("Tiny-ViT", "random", dtype=torch.bfloat16).dtype == torch.bfloat16


@pytest.mark.parametrize("index", [0, 1])
def test_local_file_round_trip(weights, index):
    loaded = load_backbone("Tiny-ViT", weights[index], quick_gelu=False)
    assert loaded.fingerprint == load_backbone("Tiny-ViT", "random", seed=3).fingerprint
    assert loaded.name == f"Tiny-ViT:{weights[index].name}"
    assert load_backbone("Tiny-ViT", str(weights[index]), quick_gelu=False).fingerprint == loaded.fingerprint


def test_the_activation_of_a_local_file(weights):
    with pytest.warns(UserWarning, match="weights.pt is loaded into 'Tiny-ViT' with the exact GELU"):
        assert is_quick(load_backbone("Tiny-ViT", weights[1])) == {False}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert is_quick(load_backbone("Tiny-ViT-quickgelu", weights[1])) == {True}
        assert is_quick(load_backbone("Tiny-ViT", weights[1], quick_gelu=True)) == {True}
        assert is_quick(load_backbone("Tiny-ViT", weights[1], quick_gelu=False)) == {False}
        assert is_quick(load_backbone("Tiny-ViT-quickgelu", weights[1], quick_gelu=False)) == {False}


def test_a_tag_brings_its_activation(monkeypatch, weights):
    tags = {"openai": {"file": str(weights[0]), "quick_gelu": True}, "laion": {"file": str(weights[0])}}
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "Tiny-ViT", tags)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        openai = load_backbone("Tiny-ViT", pretrained="openai")
        assert is_quick(openai) == {True} and openai.name == "Tiny-ViT:openai"
        assert is_quick(load_backbone("Tiny-ViT", pretrained="laion")) == {False}
    assert open_clip.pretrained.get_pretrained_cfg("ViT-B-16", "openai")["quick_gelu"] is True  # what this rests on
    with pytest.raises(ValueError, match="'opnai' is neither a file nor a tag of 'Tiny-ViT'; close: openai"):
        load_backbone("Tiny-ViT", pretrained="opnai")


def test_a_failed_download_says_what_to_do(monkeypatch):
    def no_network(*args, **kwargs):
        raise OSError("no route to host")

    monkeypatch.setattr(open_clip.factory, "download_pretrained", no_network)
    monkeypatch.setitem(open_clip.pretrained._PRETRAINED, "Tiny-ViT", {"openai": {"url": "x", "quick_gelu": True}})
    with pytest.raises(DataError, match="could not be downloaded .* use the embedded 'emojiclip'"):
        load_backbone("Tiny-ViT", "openai")


def test_local_folder(tmp_path, monkeypatch, tiny_names, weights):
    config = copy.deepcopy(tiny_names)
    config["text_cfg"]["tokenizer_kwargs"] = {"bpe_path": "merges.gz"}
    shutil.copy(open_clip.tokenizer.default_bpe(), tmp_path / "merges.gz")
    preprocess = {"mean": [0.1, 0.2, 0.3], "std": [1, 1, 1]}
    written = json.dumps({"model_cfg": config, "preprocess_cfg": preprocess})
    (tmp_path / "open_clip_config.json").write_text(written)
    monkeypatch.chdir("/")  # a relative bpe_path counts from the folder, not from here
    loaded = load_backbone(f"local-dir:{tmp_path}")
    expected = load_backbone("Tiny-ViT", "random", seed=3)
    assert torch.equal(loaded.encode_text(["a cat"]), expected.encode_text(["a cat"]))
    assert loaded.mean.flatten().tolist() == pytest.approx([0.1, 0.2, 0.3])
    assert loaded.name == tmp_path.name
    with pytest.raises(ValueError, match="brings its own weights"):
        load_backbone(f"local-dir:{tmp_path}", pretrained="openai")
    for file in weights:
        file.unlink()
    with pytest.raises(DataError, match="cannot be read as weights"):
        load_backbone(f"local-dir:{tmp_path}")
    (tmp_path / "open_clip_config.json").write_text(written[:50])
    with pytest.raises(DataError, match="is not a configuration of open_clip"):
        load_backbone(f"local-dir:{tmp_path}")
    with pytest.raises(DataError, match="no open_clip_config.json"):
        load_backbone(f"local-dir:{tmp_path / 'nowhere'}")


def test_wrong_names():
    with pytest.raises(ValueError, match="name='emojclip' is no backbone; close: emojiclip"):
        load_backbone("emojclip")
    with pytest.raises(ValueError, match="close: .*ViT-B-16"):
        load_backbone("vit-b16", pretrained="openai")
    with pytest.raises(ValueError, match="needs pretrained=: a tag to download .openai, .* or 'random'"):
        load_backbone("ViT-B-32")
    with pytest.raises(ValueError, match="'coca_ViT-B-32' is not a plain CLIP"):
        load_backbone("coca_ViT-B-32", pretrained="random")
    with pytest.raises(ValueError, match="'ViT-B-16-SigLIP' is not a plain CLIP"):
        load_backbone("ViT-B-16-SigLIP", pretrained="random")
    with pytest.raises(ValueError, match="download that model to a folder first"):
        load_backbone("hf-hub:some/model")
    with pytest.raises(TypeError, match="name=3, expected a string"):
        load_backbone(3)


def test_wrong_places():
    with pytest.raises(ValueError, match="dtype=torch.int64, expected a floating-point type"):
        load_backbone("Tiny-ViT", "random", dtype=torch.int64)
    if not torch.cuda.is_available():
        with pytest.raises(ValueError, match="PyTorch sees no GPU"):
            load_backbone("Tiny-ViT", "random", device="cuda")


@pytest.mark.parametrize("index", [0, 1])
def test_damaged_files(weights, index):
    file = weights[index]
    whole = file.read_bytes()
    for damaged in (whole[: len(whole) // 2], b"", b"not weights at all"):
        file.write_bytes(damaged)
        with pytest.raises(DataError, match=f"{file.name} cannot be read as weights .* copy or download it again"):
            load_backbone("Tiny-ViT", file, quick_gelu=False)
    file.unlink()
    with pytest.raises(DataError, match="there is no such file"):
        load_backbone("Tiny-ViT", file)


def test_files_of_another_kind(weights, tmp_path):
    with pytest.raises(ValueError, match="holds weights of another architecture than 'Tiny-RN'"):
        load_backbone("Tiny-RN", weights[0], quick_gelu=False)
    program = tmp_path / "program.pt"
    with zipfile.ZipFile(program, "w") as archive:
        archive.writestr("program/code/model.py", "")
    with pytest.raises(ValueError, match="is a TorchScript archive"):
        load_backbone("Tiny-ViT", program, quick_gelu=True)


def test_the_embedded_backbone_is_delegated(monkeypatch, vit_backbone):
    called = []
    stand_in = types.ModuleType("vlmcourse.backbone.emojiclip")
    stand_in.load_emojiclip = lambda device, dtype: called.append((device, dtype)) or vit_backbone
    monkeypatch.setitem(sys.modules, "vlmcourse.backbone.emojiclip", stand_in)
    assert load_backbone(dtype=torch.bfloat16) is vit_backbone
    assert called == [("cpu", torch.bfloat16)]
    with pytest.raises(ValueError, match="brings its own weights"):
        load_backbone("emojiclip", pretrained="openai")
