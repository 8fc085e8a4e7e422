"""CuPL: What does a platypus look like? Generating customized prompts for zero-shot image classification, Pratt et al.,
ICCV 2023, arXiv 2209.03320.

A language model describes every class in many sentences; they stand where a prompt ensemble has hand-written templates:

    t_{c,p} = normalise(Text(sentence_{c,p}))             p = 1 ... m_c, the number may differ from class to class
    w_c     = normalise(mean_p t_{c,p})                   (C, E)
    logits  = s f W^T        (B, C); s only matters for probabilities, the release takes the argmax of f W^T
    with_templates: the templates and the sentences in one list, so each side counts by how many sentences it has

Where the sentences come from (`source`):
    None       those that ship with the course (see descriptions.py), a stand-in for the language model's. "base": the
               three sentences of a class; "full": these and "a name, descriptor" for each of its descriptors
    a table    {class: [sentences]} or the path of a JSON file with one, the format of the official files
    a function prompt -> replies: asked the questions of `prompts`, e.g. language_model.ChatEndpoint
The paper asks text-davinci-002 (temperature 0.99, at most 50 tokens, stop at ".", 10 replies for each question): "base"
is three questions for all data sets, "full" are hand-written ones for each; here, those of ImageNet. "base" and "full"
differ by data set and papers reuse both, so say which. "{a} {}" stands for article and class name; the official rule
for "an" looks at upper-case initials only ("a apple").
"""

import torch.nn.functional as F

from vlmcourse.methods.base import Method, MethodCard, register
from vlmcourse.methods.class_text import check_templates, readable
from vlmcourse.methods.descriptions import class_index, class_mean, from_source, shipped, text_features
from vlmcourse.methods.language_model import replies
from vlmcourse.world.captions import article

QUESTIONS = {
    "base": (
        "Describe what {a} {} looks like:",
        "Describe {a} {}:",
        "What are the identifying characteristics of {a} {}?",
    ),
    "full": (
        "Describe what {a} {} looks like",
        "How can you identify {a} {}?",
        "What does {a} {} look like?",
        "Describe an image from the internet of {a} {}",
        "A caption of an image of {a} {}:",
    ),
}


@register
class CuPL(Method):
    """source: see above. prompts: "base", "full", or questions of one's own with one {} (and {a} for the article).
    with_templates: the combined ensemble; templates: for it, None: those of the split. truncate: cut sentences that are
    too long, as the release does (False: ValueError). fix_article: "an" before lower-case vowels, too.
    After fit: `sentences` {class: tuple}, `text` (C, E)."""

    card = MethodCard(
        name="cupl",
        title="What does a platypus look like? Generating customized prompts for zero-shot image classification",
        venue="ICCV",
        year=2023,
        url="https://arxiv.org/abs/2209.03320",
        family="other",
        setup="descriptions of the classes, no images",
        learned="nothing",
        idea="Let a language model write the prompts: sentences that say what each class looks like.",
        acts_on="text only",
        needs="outputs",
    )

    def __init__(
        self,
        backbone,
        *,
        source=None,
        prompts="base",
        with_templates=False,
        templates=None,
        truncate=True,
        fix_article=False,
        seed=0,
        progress=False,
    ):
        super().__init__(backbone, seed=seed, progress=progress)
        if isinstance(prompts, str):
            if prompts not in QUESTIONS:
                raise ValueError(f"prompts={prompts!r} must be one of {tuple(QUESTIONS)} or a list of questions")
        elif not prompts or not all(isinstance(question, str) and question.count("{}") == 1 for question in prompts):
            raise ValueError(f"prompts={prompts!r} must be questions with exactly one {{}} each")
        elif not callable(source):
            raise ValueError(f"prompts={prompts!r} are questions, so source={source!r} must be a function to ask")
        self.source, self.prompts = source, prompts
        self.with_templates, self.truncate, self.fix_article = with_templates, truncate, fix_article
        self.own_templates = None if templates is None else check_templates(templates)

    def _fit(self, train, val):
        self.templates = self.own_templates or self.templates
        self._build()

    def _build(self):
        groups = [self._sentences_of(name) for name in self.class_names]
        self.sentences = dict(zip(self.class_names, groups, strict=True))
        features = text_features(self.backbone, [text for group in groups for text in group], self.truncate)
        index = class_index(groups, features.device)
        self.text = F.normalize(class_mean(features, index, len(groups)), dim=-1)  # (C, E)

    def _sentences_of(self, name):
        """The tuple of sentences of one class. ValueError, naming it, if there are none."""
        if callable(self.source):
            questions = QUESTIONS[self.prompts] if isinstance(self.prompts, str) else self.prompts
            asked = [ask(question, name, self.fix_article) for question in questions]
            sentences = tuple(clean(text) for question in asked for text in replies(self.source, question))
        elif self.source is None:
            (sentences,) = shipped([name], "sentences")
            if self.prompts == "full":
                (descriptors,) = shipped([name], "descriptors")
                sentences += tuple(article(f"a {readable(name)}, {phrase}") for phrase in descriptors)
        else:
            (sentences,) = from_source([name], self.source)
        if self.with_templates:
            sentences = tuple(t.replace("{}", readable(name)) for t in check_templates(self.templates)) + sentences
        if not sentences:
            raise ValueError(f"class {name!r}: the source has an empty list of sentences for it")
        return sentences

    def _logits(self, features):
        return self.backbone.logit_scale * features @ self.text.T

    def for_classes(self, class_names, templates=None):
        moved = self._moved(class_names, templates)
        moved._build()
        return moved


def ask(question, name, fix_article=False):
    """A question about one class: {a} becomes "a" or "an" by the official rule, or by the English one."""
    name = readable(name)
    vowels = "AEIOUaeiou" if fix_article else "AEIOU"
    return question.replace("{a}", "an" if name[:1] in tuple(vowels) else "a").replace("{}", name)


def clean(reply):
    """A reply as a sentence: no blank lines, one full stop at the end (the request stops in front of it)."""
    return reply.replace("\n\n", "").strip().rstrip(".") + "."
