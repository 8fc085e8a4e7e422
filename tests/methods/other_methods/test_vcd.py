"""VCD: scores and aggregates, the official phrases, explanations, sources, the contract on known classes, errors."""

import pytest
import torch

from vlmcourse.backbone.features import image_features
from vlmcourse.methods.baselines.zero_shot import ZeroShot
from vlmcourse.methods.descriptions import random_descriptors
from vlmcourse.methods.other_methods.cupl import CuPL
from vlmcourse.methods.other_methods.vcd import VCD, bullets, phrase
from vlmcourse.world.concepts import load_concepts

KNOWN = ("dog", "hot air balloon", "apple", "ankle_boot")
RAGGED = {
    "dog": ["a tail", "ears", "four legs"],
    "hot air balloon": ["a basket"],
    "apple": [],
    "ankle_boot": ["b", "c"],
}


@pytest.fixture
def known(splits):
    return splits(names=KNOWN)


def test_phrases_of_the_official_code():
    expected = {
        "a long tail": "which is a long tail",
        "antlers": "which is antlers",
        "large eyes": "which has large eyes",
        "often found in trees": "which often found in trees",
        "used for cooking": "which is used for cooking",
        "has fur": "which has fur",
        "can fly": "which can fly",
        "candles": "which candles",
        "": "which has ",
    }
    assert {d: phrase(d) for d in expected} == expected
    repaired = {"antlers": "which has antlers", "candles": "which has candles", "an arm": "which is an arm"}
    assert {d: phrase(d, whole_words=True) for d in repaired} == repaired
    assert phrase("can fly", whole_words=True) == "which can fly"


def test_one_descriptor_per_class_is_a_single_prompt(tower, train, test_split):
    method = VCD(tower, source=dict.fromkeys(train.class_names, ["large eyes"])).fit(train)
    expected = ZeroShot(tower, templates="{}, which has large eyes").fit(train).logits(test_split)
    torch.testing.assert_close(method.logits(test_split), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize(("aggregate", "function"), [("mean", torch.mean), ("sum", torch.sum), ("max", torch.amax)])
def test_scores_aggregate_the_similarities_of_each_class(tower, known, aggregate, function):
    method = VCD(tower, source=RAGGED, aggregate=aggregate).fit(known)
    similarities = method.similarities(known)  # (B, 7)
    assert similarities.shape == (len(known), 3 + 1 + 1 + 2)
    told = [s for name in KNOWN for s in method.sentences[name]]
    features = image_features(tower, known)
    torch.testing.assert_close(similarities, features @ tower.encode_text(told).T, atol=1e-5, rtol=0)
    expected = torch.stack([function(part, 1) for part in similarities.split([3, 1, 1, 2], dim=1)], dim=1)
    torch.testing.assert_close(method.logits(known) / tower.logit_scale, expected, atol=1e-5, rtol=0)


def test_max_is_at_least_mean_and_repetition_changes_neither(vit_backbone, known):
    twice = {name: 2 * texts for name, texts in RAGGED.items()}
    logits = {}
    for aggregate in ("mean", "max"):
        once, again = (
            VCD(vit_backbone, source=s, aggregate=aggregate).fit(known).logits(known) for s in (RAGGED, twice)
        )
        torch.testing.assert_close(once, again, atol=1e-4, rtol=0)
        logits[aggregate] = once
    assert (logits["max"] >= logits["mean"] - 1e-5).all() and (logits["max"] - logits["mean"]).max() > 1e-3


def test_the_mean_is_not_normalised_again_and_that_is_the_difference_to_cupl(vit_backbone, known):
    method = VCD(vit_backbone).fit(known)
    same = CuPL(vit_backbone, source=method.sentences).fit(known)
    lengths = torch.stack([part.mean(0).norm() for part in method.descriptor_text.split(
        [len(method.sentences[name]) for name in KNOWN])])  # fmt: skip
    assert (lengths < 0.999).all() and lengths.max() - lengths.min() > 1e-3
    torch.testing.assert_close(method.logits(known), same.logits(known) * lengths, atol=1e-4, rtol=0)


def test_an_explanation_adds_up_to_the_score(vit_backbone, known):
    method = VCD(vit_backbone, source=RAGGED).fit(known)
    scores = method.logits(known) / vit_backbone.logit_scale
    for i, reasons in enumerate(method.explain(known, k=4)):
        assert [r.name for r in reasons] == [KNOWN[c] for c in scores[i].argsort(descending=True)]
        for reason in reasons:
            c = KNOWN.index(reason.name)
            assert reason.score == pytest.approx(scores[i, c].item(), abs=1e-5)
            assert reason.similarities.mean().item() == pytest.approx(reason.score, abs=1e-5)
            assert len(reason.descriptors) == len(reason.sentences) == len(reason.similarities)
    ((dog, apple),) = method.explain(known.images[0], classes=["dog", "apple"])
    assert dog.descriptors == ("a tail", "ears", "four legs") and dog.sentences[1] == "dog, which has ears"
    assert apple.sentences == ("apple, which has ",), "the release keeps an empty descriptor"
    with pytest.raises(ValueError, match="'cat' is not one of 4 classes"):
        method.explain(known, classes=["cat"])
    with pytest.raises(ValueError, match="k=5"):
        method.explain(known, k=5)


def test_the_forms_of_the_sentence(vit_backbone):
    def sentence(**arguments):
        return VCD(vit_backbone, **arguments).sentence("ankle_boot", "antlers")

    assert sentence() == "ankle boot, which is antlers"
    assert sentence(whole_words=True) == "ankle boot, which has antlers"
    assert sentence(before="a photo of a ", after=".") == "a photo of a ankle boot, which is antlers."
    assert sentence(modify=False, separator=": ") == "ankle boot: antlers"
    assert sentence(name_place="append", modify=False, separator=" of a ") == "antlers of a ankle boot"
    assert sentence(name_place=None, modify=False) == "antlers"


def test_sources(vit_backbone, known):
    shipped = VCD(vit_backbone).fit(known)
    assert shipped.descriptors["dog"] == load_concepts().by_name("dog").descriptors
    assert shipped.sentences["dog"][0] == "dog, which has floppy or folded ears"
    asked = []

    def generate(question):
        asked.append(question)
        return [" round\n- has a handle\n\nI hope this helps"]

    method = VCD(vit_backbone, source=generate).fit(known)
    assert method.descriptors["apple"] == ("round", "has a handle")
    assert asked[3].endswith("A: A ankle boot can be recognised by several visual features:\n-") and len(asked) == 4
    assert bullets("- one\n- two \ntext") == ("one", "two") and bullets("") == ()


def test_random_descriptors_are_a_control(vit_backbone, known):
    method = VCD(vit_backbone, source=random_descriptors(KNOWN, seed=3)).fit(known)
    assert len(method.index) == 4 * 30 and method.descriptors["dog"] == method.descriptors["apple"]


def test_the_contract_of_a_classifier(tower, known):
    method = VCD(tower)
    for call in (method.logits, method.similarities, method.explain):
        with pytest.raises(RuntimeError, match="fit"):
            call(known)
    assert method.fit(known) is method and method.n_learned == 0 and method.history == {}
    logits = method.logits(known)
    assert logits.shape == (len(known), 4) and logits.dtype == torch.float32 and not logits.requires_grad
    features = image_features(tower, known)
    for x in (known.images, features, 7 * features):
        torch.testing.assert_close(method.logits(x), logits, atol=1e-4, rtol=0)
    assert method.score(known) == (logits.argmax(-1) == known.labels).double().mean().item()
    assert torch.equal(VCD(tower).fit(known).logits(known), logits)
    half = VCD(tower.to(dtype=torch.bfloat16), aggregate="max").fit(known).logits(known)
    assert half.dtype == torch.float32 and torch.isfinite(half).all()


def test_other_classes(vit_backbone, known):
    method = VCD(vit_backbone).fit(known)
    moved = method.for_classes(["lion", "dog"])
    torch.testing.assert_close(moved.logits(known)[:, 1], method.logits(known)[:, 0], atol=1e-4, rtol=0)
    assert moved.descriptors["lion"] == load_concepts().by_name("lion").descriptors
    assert "lion" not in method.descriptors


def test_unknown_classes_are_named(vit_backbone, known, train):
    with pytest.raises(ValueError, match="class 'tabby cat': no descriptors ship for it"):
        VCD(vit_backbone).fit(train)
    with pytest.raises(ValueError, match="class 'lion': the source has no texts"):
        VCD(vit_backbone, source=RAGGED).fit(known).for_classes(["lion"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"aggregate": "median"}, "aggregate='median'"),
        ({"name_place": "middle"}, "name_place='middle'"),
        ({"source": 7}, "source=int"),
        ({"source": lambda question: "a reply"}, "non-empty list of strings"),
    ],
)
def test_bad_arguments_are_named(vit_backbone, known, arguments, message):
    with pytest.raises(ValueError, match=message):
        VCD(vit_backbone, **arguments).fit(known)
