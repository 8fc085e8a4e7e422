"""DenseCLIP: Language-Guided Dense Prediction with Context-Aware Prompting, Rao et al., CVPR 2022, arXiv 2112.01518.

Image-text matching becomes pixel-text matching: cosine maps between dense image features and class texts are
supervised, and are a further input of an ordinary segmentation decoder.

    [g; z]       (B, 1 + h w, E)   the image tower's last layer at every token, in the joint space; tower fine-tuned
    t_c          = Text([v_1 ... v_M, name_c])                  (C, E); v (M, D) learned, the text tower frozen
    post-model:  t <- t + gamma * Decoder(t, [g; z])            (B, C, E); gamma (E,) learned, 1e-4 at the start
    pre-model:   v <- Decoder(q, [g; z]), t = Text([v, name])   (B, C, E); q (M, D) learned
    S          = <z/|z|, t/|t|>                                 (B, C, h, w) cosines
    logits     = Head(FPN(x_1 ... x_4, S concatenated to one))  (B, C, H, W)
    loss       = CE(logits, y) + 0.4 CE(enlarged S / 0.07, y)   ignored pixels left out

Decoder: [g; z] and the queries are normalised and projected to width 256; three pre-norm layers of self-attention over
the classes, cross-attention to the image, MLP; projected back. The cosine itself goes to the decoder, S / tau only to
the loss. The head's output alone is the prediction. Not in the official code: pre-model prompting (written after the
paper's text, unverified), `path="value"` (z from the value path of MaskCLIP, where "full" tokens are not aligned with
texts) and `ctx_init` (v starts as words).

Deviations: a ViT is read at its four quarters and not after blocks 3, 5, 7, 11; the class embedding is not added twice
(a slip of the code); what stands in front of a ViT's blocks is frozen and computed once; batch norms of a ResNet keep
their statistics; a full stop follows each name; the rate falls as (1 - t/S)^0.9 without warm-up; no augmentation. The
contexts start, as in the code, from N(0, 1) cut at 2, far from token embeddings: `init_std=0.02` starts as CoOp does.
"""

import torch
import torch.nn.functional as F
from torch import nn

from vlmcourse import training
from vlmcourse.backbone import vision
from vlmcourse.methods.augment import TrainingFeatures
from vlmcourse.methods.base import MethodCard, full_precision, register
from vlmcourse.methods.context import ClassPrompts, words_context
from vlmcourse.methods.dense import DenseMethod, enlarge
from vlmcourse.methods.tuned_tower import PIXELS, image_tower, with_own_parameters
from vlmcourse.methods.vision_prompts import TOKENS
from vlmcourse.tasks.segmentation import IGNORE, MaskSplit

PROMPTING, DENSE_PATHS = ("post", "pre", "none"), ("full", "value")


class Attention(nn.Module):
    """Attention of x (B, n, width) to memory (B, m, width); no bias in q, k, v; dropout on the output."""

    def __init__(self, width, heads, dropout, draw):
        super().__init__()
        self.heads, self.dropout, self.draw = heads, dropout, draw
        self.q, self.k, self.v = (nn.Linear(width, width, bias=False) for _ in range(3))
        self.out = nn.Linear(width, width)

    def forward(self, x, memory):
        q, k, v = (m(y).unflatten(-1, (self.heads, -1)).transpose(1, 2)
                   for m, y in ((self.q, x), (self.k, memory), (self.v, memory)))  # fmt: skip
        y = self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
        if self.training and self.dropout:
            keep = torch.rand(y.shape, generator=self.draw).to(y) >= self.dropout
            y = y * keep / (1 - self.dropout)
        return y


class ContextDecoder(nn.Module):
    """Queries (B, n, d_query) look at memory (B, m, d_memory); returns (B, n, d_query), in their order."""

    def __init__(self, d_query, d_memory, width=256, heads=4, layers=3, dropout=0.1, seed=0):
        super().__init__()
        draw = torch.Generator().manual_seed(seed)

        def layer():
            mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))
            parts = {"self": Attention(width, heads, dropout, draw), "cross": Attention(width, heads, dropout, draw)}
            return nn.ModuleDict(parts | {"mlp": mlp, **{f"norm{i}": nn.LayerNorm(width) for i in range(3)}})

        self.memory = nn.Sequential(nn.LayerNorm(d_memory), nn.Linear(d_memory, width), nn.LayerNorm(width))
        self.query = nn.Sequential(nn.LayerNorm(d_query), nn.Linear(d_query, width))
        self.layers = nn.ModuleList(layer() for _ in range(layers))
        self.out = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, d_query))

    def forward(self, queries, memory):
        memory, x = self.memory(memory), self.query(queries)
        for layer in self.layers:
            y = layer["norm0"](x)
            x = x + layer["self"](y, y)
            x = x + layer["cross"](layer["norm1"](x), memory)
            x = x + layer["mlp"](layer["norm2"](x))
        return self.out(x)


class Decoder(nn.Module):
    """FPN and Semantic-FPN head: four maps (B, c_i, h_i, w_i), fine to coarse, to logits (B, C, h_1, w_1). The
    maps of a ViT have one size and become a pyramid, x 4, x 2, x 1, / 2, behind their lateral convolution."""

    def __init__(self, channels, classes, width, pyramid):
        super().__init__()
        scales = [nn.Identity() for _ in channels]
        if pyramid:
            first, second, third = (nn.ConvTranspose2d(width, width, 2, 2) for _ in range(3))
            scales = [nn.Sequential(first, nn.GELU(), second), third, nn.Identity(), nn.MaxPool2d(2)]
        self.lateral = nn.ModuleList(nn.Conv2d(c, width, 1) for c in channels)
        self.scale = nn.ModuleList(scales)
        self.smooth = nn.ModuleList(nn.Conv2d(width, width, 3, 1, 1) for _ in channels)
        self.norm = nn.ModuleList(nn.GroupNorm(4, width) for _ in channels)
        self.classify = nn.Conv2d(width, classes, 1)

    def forward(self, maps):
        maps = [scale(lateral(x)) for scale, lateral, x in zip(self.scale, self.lateral, maps, strict=True)]
        for i in range(len(maps) - 1, 0, -1):
            maps[i - 1] = maps[i - 1] + F.interpolate(maps[i], size=maps[i - 1].shape[-2:], mode="nearest")
        maps = [F.relu(n(s(x))) for n, s, x in zip(self.norm, self.smooth, maps, strict=True)]
        return self.classify(sum(enlarge(x, maps[0].shape[-2:]) for x in maps))


def pyramid_vit(visual, tokens, path="full"):
    """Image tokens (B, 1 + P, Dv) to four maps (B, Dv, h, w) and all tokens in the joint space (B, 1 + P, E)."""
    x, blocks = visual.ln_pre(tokens), visual.transformer.resblocks
    side, ends = round((tokens.shape[1] - 1) ** 0.5), [-(-len(blocks) * i // 4) - 1 for i in (1, 2, 3, 4)]
    after = []
    for block in blocks:
        x = block(x)
        after.append(x)
    maps = [after[max(i, 0)][:, 1:].transpose(1, 2).unflatten(2, (side, side)) for i in ends]
    if path == "value":
        last = blocks[-1]
        before = after[-2] if len(after) > 1 else visual.ln_pre(tokens)
        x = torch.cat([x[:, :1], last.ls_1(vision.values(last.attn, last.ln_1(before)))[:, 1:]], dim=1)
    return maps, visual.ln_post(x) @ visual.proj


def pyramid_resnet(visual, pixels, path="full"):
    """Pixels to the maps of the four stages and the attention pool's output at every position, mean token first."""
    x, maps = visual.stem(pixels), []
    for layer in (visual.layer1, visual.layer2, visual.layer3, visual.layer4):
        x = layer(x)
        maps.append(x)
    pool = visual.attnpool
    stage = x.flatten(2).transpose(1, 2)  # (B, P, Dr)
    x = torch.cat([stage.mean(1, keepdim=True), stage], dim=1)
    x = x + vision.resize_positions(pool.positional_embedding, tuple(maps[-1].shape[-2:])).to(x.dtype)
    q, k, v = (
        m(x).unflatten(-1, (pool.num_heads, -1)).transpose(1, 2) for m in (pool.q_proj, pool.k_proj, pool.v_proj)
    )
    tokens = pool.c_proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
    if path == "value":
        tokens = torch.cat([tokens[:, :1], pool.c_proj(pool.v_proj(stage))], dim=1)
    return maps, tokens


@register
class DenseCLIP(DenseMethod):
    """language: False leaves out texts, score maps and their loss: CLIP's weights as mere initialisation. prompting:
    "post", "pre" or "none" (texts do not look at the image). n_ctx: M. gamma: at the start. init_std, path, ctx_init:
    see above. aux_weight, tau: of the loss on the score maps. width: of the decoder head. tune_backbone: False freezes
    the image tower. backbone_lr: its share of the rate. AdamW. History: "loss", "head", "pixel_text", "lr"."""

    card = MethodCard(
        name="denseclip",
        title="DenseCLIP: Language-Guided Dense Prediction with Context-Aware Prompting",
        venue="CVPR",
        year=2022,
        url="https://arxiv.org/abs/2112.01518",
        family="text prompt",
        setup="dense, supervised",
        learned="context (M, D), context decoder, gamma (E,), image tower, FPN and head",
        idea="Let the class texts look at the image, and give the decoder a map of how well each pixel fits each text.",
        acts_on="text input and image tower",
        needs="weights",
    )

    def __init__(self, backbone, *, language=True, prompting="post", n_ctx=8, ctx_init=None, path="full", gamma=1e-4,
                 init_std=1.0, aux_weight=0.4, tau=0.07, width=256, decoder=None, tune_backbone=True, backbone_lr=0.1,
                 epochs=20, lr=1e-4, batch_size=32, weight_decay=1e-4, seed=0, progress=False):  # fmt: skip
        super().__init__(backbone, seed=seed, progress=progress)
        if prompting not in PROMPTING:
            raise ValueError(f"prompting={prompting!r} must be one of {PROMPTING}")
        if path not in DENSE_PATHS:
            raise ValueError(f"path={path!r} must be one of {DENSE_PATHS}")
        for name, value in (("n_ctx", n_ctx), ("width", width)):
            if not isinstance(value, int) or value < 1 or (name == "width" and value % 4):
                raise ValueError(
                    f"{name}={value!r} must be a whole number >= 1" + " divisible by 4" * (name == "width")
                )
        if not tau > 0 or not aux_weight >= 0:
            raise ValueError(f"tau={tau!r} must be positive and aux_weight={aux_weight!r} >= 0")
        self.start = None if ctx_init is None else words_context(backbone, ctx_init)  # (M, D)
        self.n_ctx = n_ctx if self.start is None else len(self.start)
        self.language, self.prompting, self.path, self.gamma_start = language, prompting, path, gamma
        self.init_std, self.aux_weight, self.tau, self.width = init_std, aux_weight, tau, width
        self.decoder_shape, self.tune_backbone, self.backbone_lr = decoder or {}, tune_backbone, backbone_lr
        self.encoder = TOKENS if backbone.is_vit else PIXELS
        self.recipe = {"epochs": epochs, "lr": lr, "batch_size": batch_size, "weight_decay": weight_decay}

    def _fit(self, train, val):
        if not isinstance(train, MaskSplit):
            raise TypeError(f"train={train!r} must be a MaskSplit: DenseCLIP learns from masks")
        self._build()
        features = TrainingFeatures(self.backbone, train, encoder=self.encoder, seed=self.seed)

        def loss(indices, step):
            return self._loss(features(indices), features.labels[indices])

        def poly(step, steps):
            return (self.recipe["lr"] - 1e-6) * (1 - step / steps) ** 0.9 + 1e-6

        self.new.train()
        self.history = training.fit(
            self._groups(), loss, len(train), optimizer="adamw", schedule=poly, seed=self.seed, progress=self.progress,
            **self.recipe,
        )  # fmt: skip
        self.new.eval().requires_grad_(False)
        for tensor in self.own.values():
            tensor.requires_grad_(False)
        if self.language and self.prompting != "pre":
            with torch.no_grad():
                self.text = self._texts()  # the text tower is no longer needed

    def _build(self):
        backbone, C = self.backbone, len(self.class_names)
        names, _ = image_tower(backbone, blocks_only=backbone.is_vit)
        self.twin, self.own = with_own_parameters(backbone, names if self.tune_backbone else [])
        self.pyramid = pyramid_vit if backbone.is_vit else pyramid_resnet
        visual = self.twin.model.visual
        with torch.no_grad():
            blank = torch.zeros(1, 3, backbone.image_size, backbone.image_size, device=backbone.device)
            maps, joint = self.pyramid(visual, self.encoder(backbone, blank), self.path)
        channels, self.at = [m.shape[1] for m in maps], 2 if backbone.is_vit else 3
        channels[self.at] += C * self.language
        with torch.random.fork_rng(devices=[]):
            torch.random.default_generator.manual_seed(self.seed)
            parts = {"head": Decoder(channels, C, self.width, pyramid=backbone.is_vit)}
            if self.language:
                D, E = backbone.text_width, joint.shape[-1]
                ctx = torch.nn.init.trunc_normal_(torch.empty(self.n_ctx, D), 0, self.init_std, -2, 2)
                ctx = ctx if self.start is None else self.start.clone()
                parts["learned"] = nn.ParameterDict({"ctx": ctx})
                if self.prompting == "post":
                    parts["learned"]["gamma"] = torch.full((E,), float(self.gamma_start))
                if self.prompting != "none":
                    query = E if self.prompting == "post" else D
                    parts["context"] = ContextDecoder(query, E, seed=self.seed, **self.decoder_shape)
                    for module in parts["context"].modules():
                        if isinstance(module, nn.Linear):
                            nn.init.trunc_normal_(module.weight, std=0.02)
                            if module.bias is not None:
                                nn.init.zeros_(module.bias)
                self.prompts, self.text = ClassPrompts(backbone, self.class_names, self.n_ctx), None
            self.new = nn.ModuleDict(parts).to(backbone.device)

    def _groups(self):
        own = [p for p in self.own.values() if p.requires_grad]
        tower = [{"params": own, "lr_scale": self.backbone_lr}] if own else []
        named = list(self.new.named_parameters())
        rest = [p for name, p in named if "norm" not in name]
        return [*tower, {"params": rest}, {"params": [p for n, p in named if "norm" in n], "weight_decay": 0.0}]

    def _texts(self):
        return self.text if self.text is not None else self.prompts.encode(self.new["learned"]["ctx"])  # (C, E)

    def image_texts(self, joint):
        """Class texts (B, C, E), not normalised where they were moved, as the image's tokens (B, 1 + P, E) say."""
        if self.prompting == "pre":
            queries = self.new["learned"]["ctx"].expand(len(joint), -1, -1)
            return self.prompts.encode(self.new["context"](queries, joint)[:, None])
        text = self._texts().expand(len(joint), -1, -1)
        if self.prompting == "none":
            return text
        return text + self.new["learned"]["gamma"] * self.new["context"](text, joint)

    def _forward(self, features):
        """(logits (B, C, h_1, w_1), S (B, C, h, w) or None)."""
        with vision.plain_attention():
            maps, joint = self.pyramid(self.twin.model.visual, features.to(self.backbone.dtype), self.path)
        maps, joint, scores = [full_precision(m) for m in maps], full_precision(joint), None
        if self.language:
            text = F.normalize(self.image_texts(joint), dim=-1)  # (B, C, E)
            scores = text @ F.normalize(joint[:, 1:], dim=-1).transpose(1, 2)  # (B, C, P)
            scores = scores.unflatten(2, tuple(maps[-1].shape[-2:]))
            maps[self.at] = torch.cat([maps[self.at], scores], dim=1)
        return self.new["head"](maps), scores

    def _loss(self, features, labels):
        logits, scores = self._forward(features)
        labels = labels.long()
        head = F.cross_entropy(enlarge(logits, labels.shape[-2:]), labels, ignore_index=IGNORE)
        if scores is None:
            return head, {"head": head}
        aux = F.cross_entropy(enlarge(scores, labels.shape[-2:]) / self.tau, labels, ignore_index=IGNORE)
        return head + self.aux_weight * aux, {"head": head, "pixel_text": aux}

    def _maps(self, features):
        return self._forward(features)[0]

    @torch.no_grad()
    def pixel_text(self, x):
        """S (N, C, h, w), the cosines that go to the decoder. ValueError without language."""
        self._require_fit()
        if not self.language:
            raise ValueError("language=False: this network has no pixel-text scores")
        return torch.cat([self._forward(self.inputs(part))[1] for part in self._chunks(x)])

    def inputs(self, x):
        """What the tuned part of the tower reads; float images (B, 3, S, S) count as preprocessed."""
        if self.encoder is PIXELS and isinstance(x, torch.Tensor) and x.is_floating_point():
            return x.to(self.backbone.device)
        return super().inputs(x)

    def learned_parameters(self):
        if not self._fitted:
            return {}
        return {n: p.detach() for n, p in (*self.own.items(), *self.new.named_parameters())}
