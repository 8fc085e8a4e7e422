"""CuPL: its ensemble, where sentences come from, the questions, the generic contract on known classes, errors."""

import json

import pytest
import torch
import torch.nn.functional as F

from vlmcourse.backbone.features import image_features
from vlmcourse.methods.baselines.zero_shot import ZeroShot
from vlmcourse.methods.class_text import template_features
from vlmcourse.methods.other_methods.cupl import QUESTIONS, CuPL, ask, clean
from vlmcourse.world.concepts import load_concepts

KNOWN = ("dog", "hot air balloon", "apple", "ankle_boot")


@pytest.fixture
def known(splits):
    return splits(names=KNOWN)


def table(class_names, templates):
    return {name: [t.replace("{}", name.replace("_", " ")) for t in templates] for name in class_names}


def test_templates_as_sentences_are_the_standard_ensemble(tower, train, test_split):
    for templates in (train.templates, train.templates[:1]):
        method = CuPL(tower, source=table(train.class_names, templates)).fit(train)
        expected = ZeroShot(tower, templates=templates).fit(train).logits(test_split)
        torch.testing.assert_close(method.logits(test_split), expected, atol=1e-4, rtol=0)


def test_class_features_are_unit_means_of_unit_features(vit_backbone, known):
    method = CuPL(vit_backbone).fit(known)
    for c, name in enumerate(KNOWN[:3]):
        sentences = load_concepts().by_name(name).sentences
        assert method.sentences[name] == sentences
        expected = F.normalize(vit_backbone.encode_text(list(sentences)).mean(dim=0), dim=0)
        torch.testing.assert_close(method.text[c], expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(method.text.norm(dim=-1), torch.ones(4))
    assert "heel" in " ".join(method.sentences["ankle_boot"])


def test_neither_order_nor_repetition_matters_but_the_number_may_differ(vit_backbone, known):
    one = {"dog": ["a b", "c"], "hot air balloon": ["d"], "apple": ["e", "f g", "h"], "ankle_boot": ["i"]}
    other = {name: sentences[::-1] * 2 for name, sentences in reversed(one.items())}
    texts = [CuPL(vit_backbone, source=source).fit(known).text for source in (one, other)]
    torch.testing.assert_close(texts[0], texts[1], atol=1e-5, rtol=0)
    torch.testing.assert_close(texts[0][1], vit_backbone.encode_text(["d"])[0], atol=1e-5, rtol=0)


def test_the_combined_ensemble_lies_between_both_and_counts_sentences(vit_backbone, known):
    method = CuPL(vit_backbone, with_templates=True).fit(known)
    assert method.sentences["dog"][:2] == ("a photo of a dog.", "an icon of a dog.")
    hand = template_features(vit_backbone, KNOWN, known.templates)  # (C, 2, E)
    own = torch.stack([vit_backbone.encode_text(list(CuPL(vit_backbone).fit(known).sentences[n])) for n in KNOWN])
    expected = F.normalize((hand.sum(dim=1) + own.sum(dim=1)) / 5, dim=-1)
    torch.testing.assert_close(method.text, expected, atol=1e-5, rtol=0)
    given = CuPL(vit_backbone, with_templates=True, templates="the {}").fit(known)
    assert given.sentences["apple"][0] == "the apple" and len(given.sentences["apple"]) == 4


def test_full_adds_a_sentence_for_every_descriptor(vit_backbone, known):
    method = CuPL(vit_backbone, prompts="full").fit(known)
    apple = load_concepts().by_name("apple")
    assert method.sentences["apple"][:3] == apple.sentences
    assert method.sentences["apple"][3] == f"an apple, {apple.descriptors[0]}"
    assert len(method.sentences["apple"]) == 3 + len(apple.descriptors)


def test_a_json_file_is_read_in_the_order_of_the_classes(vit_backbone, known, tmp_path):
    path = tmp_path / "prompts.json"
    path.write_text(json.dumps(table(KNOWN[::-1], ("a {}", "the {}"))))
    for source in (path, str(path)):
        method = CuPL(vit_backbone, source=source).fit(known)
        assert method.sentences["hot air balloon"] == ("a hot air balloon", "the hot air balloon")


def test_a_generator_is_asked_the_papers_questions(vit_backbone, known):
    asked = []

    def generate(question):
        asked.append(question)
        return ["\n\nIt is round", "It flies. "]

    method = CuPL(vit_backbone, source=generate).fit(known)
    assert asked[0] == "Describe what a dog looks like:" and len(asked) == 4 * 3
    assert method.sentences["dog"] == ("It is round.", "It flies.") * 3
    CuPL(vit_backbone, source=generate, prompts="full").fit(known)
    assert asked[12 + 4] == "A caption of an image of a dog:" and len(asked) == 12 + 4 * 5
    CuPL(vit_backbone, source=generate, prompts=["What is {}?"]).fit(known)
    assert asked[-1] == "What is ankle boot?"


def test_the_article_rule_is_the_officials_unless_repaired():
    question = QUESTIONS["full"][1]
    assert ask(question, "Apple") == "How can you identify an Apple?"
    assert ask(question, "apple") == "How can you identify a apple?"
    assert ask(question, "apple", fix_article=True) == "How can you identify an apple?"
    assert ask(question, "red_fox", fix_article=True) == "How can you identify a red fox?"
    assert clean("\n\nA dog has\n\n ears") == "A dog has ears."


def test_sentences_that_are_too_long_are_cut_and_keep_their_end(vit_backbone, known):
    long = "dog " * 40
    source = {name: [long] for name in KNOWN}
    method = CuPL(vit_backbone, source=source).fit(known)
    expected = vit_backbone.encode_text(["dog " * 30])  # 32 tokens with start and end
    torch.testing.assert_close(method.text[:1], expected, atol=1e-5, rtol=0)
    with pytest.raises(ValueError, match="dog dog"):
        CuPL(vit_backbone, source=source, truncate=False).fit(known)


def test_the_contract_of_a_classifier(tower, known):
    method = CuPL(tower)
    with pytest.raises(RuntimeError, match="fit"):
        method.logits(known)
    assert method.fit(known) is method and method.n_learned == 0 and method.history == {}
    logits = method.logits(known)
    assert logits.shape == (len(known), 4) and logits.dtype == torch.float32 and not logits.requires_grad
    features = image_features(tower, known)
    torch.testing.assert_close(method.logits(7 * features), logits, atol=1e-4, rtol=0)
    torch.testing.assert_close(logits, tower.logit_scale * features @ method.text.T, atol=1e-4, rtol=0)
    assert method.score(known) == (logits.argmax(-1) == known.labels).double().mean().item()
    assert torch.equal(CuPL(tower).fit(known).logits(known), logits)
    half = CuPL(tower.to(dtype=torch.bfloat16)).fit(known).logits(known)
    assert half.dtype == torch.float32 and torch.isfinite(half).all()


def test_other_classes(vit_backbone, known):
    method = CuPL(vit_backbone).fit(known)
    moved = method.for_classes(["lion", "dog"])
    torch.testing.assert_close(moved.text[1], method.text[0], atol=1e-5, rtol=0)
    assert moved.sentences["lion"] == load_concepts().by_name("lion").sentences and "lion" not in method.sentences


def test_unknown_classes_are_named(vit_backbone, known, train):
    with pytest.raises(ValueError, match="class 'tabby cat': no sentences ship for it"):
        CuPL(vit_backbone).fit(train)
    with pytest.raises(ValueError, match="class 'dogg'.*close names: dog"):
        CuPL(vit_backbone).fit(known).for_classes(["dogg"])
    with pytest.raises(ValueError, match="class 'ankle boot': the source has no texts"):
        CuPL(vit_backbone, source=table(KNOWN[:3], ("a {}",))).fit(known)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"prompts": "huge"}, "prompts='huge'"),
        ({"prompts": ["What?"], "source": lambda question: ["a"]}, "exactly one {}"),
        ({"prompts": ["What is {}?"]}, "must be a function to ask"),
        ({"source": 7}, "source=int"),
        ({"source": "/no/such/file.json"}, "not a readable JSON file"),
        ({"source": dict.fromkeys(KNOWN, ())}, "empty list of sentences"),
        ({"source": dict.fromkeys(KNOWN, "a dog")}, "must be a list of strings"),
        ({"source": lambda question: "a reply"}, "non-empty list of strings"),
        ({"source": lambda question: []}, "non-empty list of strings"),
        ({"templates": "a photo"}, "a photo"),
    ],
)
def test_bad_arguments_are_named(vit_backbone, splits, arguments, message):
    with pytest.raises(ValueError, match=message):
        CuPL(vit_backbone, **arguments).fit(splits(names=KNOWN))
