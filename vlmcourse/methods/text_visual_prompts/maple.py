"""MaPLe: Multi-modal Prompt Learning, Khattak et al., CVPR 2023, arXiv 2210.03117.

Both towers get M prompts at each of their first J layers, and those of the image tower are a learned function of those
of the text tower:

    P_0, P_1 ... P_{J-1}   (M, D)     learned; P_0 starts at words ("a photo"), the others from N(0, 0.02^2)
    V_i = F_i(P_i)         (M, Dv)    coupling functions F_i: linear D -> Dv, learned; V_i are no parameters
    text    [SOS | P_0 | of a name_c . EOT]           before block i = 1 ... J-1 tokens 1..M are replaced by P_i
    image   ln_pre([CLS ; patches ; V_0])  (B, 1 + P + M, Dv)   before block i the last M tokens are replaced by V_i
    logits = s f W^T   (B, C),   loss = CE(logits, y)           from block J on the prompts live on by themselves

F_1 ... F_{J-1} start as copies of one layer, F_0 has a start of its own. The gradient reaches P_i through both towers.

Recipe of the official code, base-to-new: J = 9, M = 2, SGD 0.0035 as in CoOp, batch 4, 5 epochs, 16 shots, ViT-B/16
(3,555,072 numbers). Cross-data-set and domain generalisation: J = 3, lr 0.0026, 2 epochs, source ImageNet. There is no
official recipe for few-shot learning on all classes. J layers have J - 1 replacements: J = 1 is "shallow MaPLe".
`prompting` gives the baselines of the paper's ablation from the same code base: "independent" (IVLP; its recipe is
J = 12), "vision" (deep prompts in the image tower only, hand-written text), "language" (in the text tower only).
"""

import torch

from vlmcourse.methods.base import MethodCard, register
from vlmcourse.methods.class_text import readable
from vlmcourse.methods.context import ClassPrompts, random_context, words_context
from vlmcourse.methods.meta_net import MetaNet
from vlmcourse.methods.text_prompts.coop import CoOp
from vlmcourse.methods.vision_prompts import TOKENS, encode_prompted, normal_prompts

PROMPTING = ("coupled", "independent", "vision", "language")
DEPTH = 9  # the paper's, for towers of 12 layers


@register
class MaPLe(CoOp):
    """n_ctx: M, for each tower. ctx_init: the words of the prompt; the first M tokens are learned, the others stay in
    front of the name. Where there are fewer than M, P_0 starts as noise and no words stay (as the official code does
    for M > 4). depth: J; None: 9, or all layers of the shallower tower where it has fewer. prompting: see above.
    The rest as in CoOp, without csc and class_token_position."""

    card = MethodCard(
        name="maple",
        title="MaPLe: Multi-modal Prompt Learning",
        venue="CVPR",
        year=2023,
        url="https://arxiv.org/abs/2210.03117",
        family="text-visual prompt",
        setup="few-shot supervised",
        learned="text prompts (J, M, D) and linear coupling functions D -> Dv for each of the J layers",
        idea="Prompt both towers layer by layer, and derive the visual prompts from the text prompts.",
        acts_on="text and image input, inner layers",
        needs="internals",
    )

    def __init__(
        self,
        backbone,
        *,
        n_ctx=2,
        ctx_init="a photo of a",
        depth=None,
        prompting="coupled",
        epochs=5,
        lr=3.5e-3,
        batch_size=4,
        **coop,
    ):
        super().__init__(backbone, n_ctx=n_ctx, epochs=epochs, lr=lr, batch_size=batch_size, **coop)
        if prompting not in PROMPTING:
            raise ValueError(f"prompting={prompting!r} must be one of {PROMPTING}")
        if self.csc or self.class_token_position != "end":
            raise ValueError(
                f"csc={self.csc} and class_token_position={self.class_token_position!r} must be False and 'end': "
                "deep prompts stand behind the start token and are shared by all classes"
            )
        towers = []
        if prompting != "language":
            backbone.require_vit("MaPLe")
            towers.append(backbone.model.visual)
            self.encoder = TOKENS
        if prompting != "vision":
            towers.append(backbone.model)
        layers = min(len(tower.transformer.resblocks) for tower in towers)
        depth = min(DEPTH, layers) if depth is None else depth
        if isinstance(depth, bool) or not isinstance(depth, int) or not 1 <= depth <= layers:
            raise ValueError(f"depth={depth!r} must be a whole number from 1 to {layers}, the layers that are there")
        self.depth, self.prompting, self.ctx_init, self.rest = depth, prompting, ctx_init, ""
        ids = backbone.tokenizer.encode(readable(ctx_init)) if ctx_init else []
        if len(ids) >= n_ctx:
            self.start = words_context(backbone, readable(ctx_init))[:n_ctx]  # (M, D)
            self.rest = backbone.tokenizer.decode(ids[n_ctx:]).strip()

    def _prompts(self, class_names):
        return ClassPrompts(self.backbone, [f"{self.rest} {name}".strip() for name in class_names], self.n_ctx)

    def _fit(self, train, val):
        backbone, deep = self.backbone, self.depth - 1
        self.deep_ctx = random_context(backbone, deep, self.n_ctx, seed=self.seed + 2_000_003, std=self.init_std)
        self.coupling, self.ctx_vision, self._frozen_text = [], None, {}
        if self.prompting == "coupled":
            options = {"device": backbone.device, "dtype": torch.promote_types(backbone.dtype, torch.float32)}
            widths = backbone.text_width, backbone.vision_width
            for layer in range(self.depth):  # equal seeds: F_1, F_2 ... start as copies of one layer
                self.coupling.append(MetaNet(*widths, hidden=(), seed=self.seed + 3_000_003 + (layer > 0), **options))
        elif self.prompting != "language":
            self.ctx_vision = normal_prompts(
                backbone, self.depth, self.n_ctx, seed=self.seed + 3_000_003, std=self.init_std
            ).requires_grad_()  # (J, M, Dv)
        if self.prompting != "vision":
            self.deep_ctx.requires_grad_()  # (J - 1, M, D)
        super()._fit(train, val)

    def _parameters(self):
        text = [] if self.prompting == "vision" else [self.ctx, self.deep_ctx]
        image = [] if self.ctx_vision is None else [self.ctx_vision]
        return [*text, *image, *(tensor for net in self.coupling for tensor in net.parameters())]

    def text_prompts(self):
        """J tensors (M, D): P_0, and what replaces the context before blocks 1 ... J-1."""
        return [self.ctx, *self.deep_ctx]

    def visual_prompts(self):
        """J tensors (M, Dv), differentiable: V_i = F_i(P_i), or those learned independently; none for "language"."""
        if self.coupling:
            return [couple(prompts) for couple, prompts in zip(self.coupling, self.text_prompts(), strict=True)]
        return [] if self.ctx_vision is None else [*self.ctx_vision]

    def text_features(self, prompts=None):
        prompts = prompts or self.prompts
        if self.prompting == "vision":  # nothing in the text is learned: computed once
            if prompts not in self._frozen_text:
                with torch.no_grad():
                    self._frozen_text[prompts] = prompts.encode(self.ctx)
            return self._frozen_text[prompts]
        deep = dict(enumerate(self.text_prompts()[1:], start=1))
        return prompts.encode(self.ctx, share_prefix=self.share_prefix, deep=deep)

    def _image_features(self, x):
        if self.prompting == "language":
            return x
        first, *deep = self.visual_prompts()
        return encode_prompted(self.backbone, x, first, dict(enumerate(deep, start=1)))

    def _freeze(self):
        self.deep_ctx = self.deep_ctx.detach()
        self.ctx_vision = None if self.ctx_vision is None else self.ctx_vision.detach()
        for net in self.coupling:
            net.requires_grad_(False)
        super()._freeze()

    def learned_parameters(self):
        if not self._fitted:
            return {}
        text = {} if self.prompting == "vision" else {"ctx": self.ctx, "deep_ctx": self.deep_ctx}
        image = {} if self.ctx_vision is None else {"ctx_vision": self.ctx_vision}
        nets = {f"coupling.{i}.{n}": t for i, net in enumerate(self.coupling) for n, t in net.named_parameters()}
        return {name: tensor.detach() for name, tensor in (text | image | nets).items()}
