"""Where objects go in a scene: slots for several objects, turned, flipped and scaled without leaving the image.

Coordinates: x to the right, y down, the image is [-1, 1]². An output pixel p shows the sprite at
    q = C + (H / s) F R(-angle) (p - t),
C and H the centre and half size of the sprite's drawn part, s the half size wanted, t the centre wanted, F the flip.
"""

import math

import torch

from vlmcourse.world.draws import Draw

DRAWN = 0.1  # alpha from which a pixel counts as drawn when a sprite's extent is measured
MAX_OBJECTS = 9
GRID = [(x, y) for y in (-0.66, 0.0, 0.66) for x in (-0.66, 0.0, 0.66)]
LAYOUTS: dict[int, list[list[tuple[float, float]]]] = {
    1: [[(0, 0)]],
    2: [[(-0.5, 0), (0.5, 0)], [(0, -0.5), (0, 0.5)], [(-0.48, -0.45), (0.48, 0.45)], [(0.48, -0.45), (-0.48, 0.45)]],
    3: [[(-0.52, -0.5), (0.52, -0.5), (0, 0.5)], [(-0.52, 0.5), (0.52, 0.5), (0, -0.5)],
        [(-0.5, -0.52), (-0.5, 0.52), (0.5, 0)], [(0.5, -0.52), (0.5, 0.52), (-0.5, 0)]],
    4: [[(-0.5, -0.5), (0.5, -0.5), (-0.5, 0.5), (0.5, 0.5)], [(0, -0.64), (0.64, 0), (0, 0.64), (-0.64, 0)]],
    5: [[(-0.62, -0.62), (0.62, -0.62), (-0.62, 0.62), (0.62, 0.62), (0, 0)],
        [(-0.66, -0.5), (0, -0.5), (0.66, -0.5), (-0.4, 0.5), (0.4, 0.5)],
        [(-0.4, -0.5), (0.4, -0.5), (-0.66, 0.5), (0, 0.5), (0.66, 0.5)]],
} | {n: [GRID] for n in range(6, MAX_OBJECTS + 1)}  # fmt: skip
ARRANGEMENTS = torch.tensor([len(LAYOUTS[n]) for n in range(1, MAX_OBJECTS + 1)])
SLOTS = torch.tensor([len(LAYOUTS[n][0]) for n in range(1, MAX_OBJECTS + 1)])
CENTRES = torch.zeros(MAX_OBJECTS, 4, MAX_OBJECTS, 2)  # (objects - 1, arrangement, slot, xy)
for _n, _layouts in LAYOUTS.items():
    for _a, _layout in enumerate(_layouts):
        CENTRES[_n - 1, _a, : len(_layout)] = torch.tensor(_layout)


def extents(alpha: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Drawn part of sprites, alpha (..., h, w): centre and half size (..., 2) as xy in [-1, 1], present (...)."""
    ends = []
    for dim in (-2, -1):  # columns give x, rows give y
        line = alpha.amax(dim) > DRAWN
        n = line.shape[-1]
        first, last = line.float().argmax(-1), n - line.flip(-1).float().argmax(-1)
        ends.append(torch.stack([first, last], -1) * (2 / n) - 1)
    box = torch.stack(ends, -2).float()  # (..., xy, first/last)
    return box.mean(-1), (box[..., 1] - box[..., 0]) / 2, line.any(-1)


def place(
    draw: Draw, centre: torch.Tensor, half: torch.Tensor, present: torch.Tensor, fixed: torch.Tensor, settings
) -> torch.Tensor:
    """Affine maps (n, K, 2, 3) from image to sprite coordinates, as `affine_grid` wants them.

    centre, half (n, K, 2), present (n, K) from `extents`. fixed (n, K): neither turned nor flipped. settings:
    SceneSettings.
    """
    n, k = present.shape
    count = present.sum(1)  # (n,)
    index = (count - 1).clamp(min=0)
    # one slot per present object, in random order
    arrangement = (draw.uniform() * ARRANGEMENTS[index]).long()
    empty = torch.arange(MAX_OBJECTS) >= SLOTS[index][:, None]
    order = (draw.uniform(MAX_OBJECTS) + empty * 2).argsort(1)
    rank = (present.cumsum(1) - 1).clamp(min=0)
    slot = order.gather(1, rank)
    target = CENTRES[index, arrangement].gather(1, slot[..., None].expand(-1, -1, 2))  # (n, K, 2)
    # size: half of the longest side, in units where the image is 2 wide
    limits = torch.tensor(settings.scale)[index.clamp(max=len(settings.scale) - 1)]  # (n, 2)
    size = limits[:, :1] + draw.uniform(k) * (limits[:, 1:] - limits[:, :1])
    longest = half.amax(-1).clamp(min=1e-3)
    stretch = (draw.uniform(k, low=-1, high=1) * settings.stretch).exp()
    stretch = torch.stack([stretch, 1 / stretch], -1)
    angle = draw.uniform(k, low=-1, high=1) * math.radians(settings.rotation) * ~fixed
    cos, sin = angle.cos(), angle.sin()
    flip = torch.where((draw.uniform(k) < settings.flip) & ~fixed, -1.0, 1.0)
    # keep the turned object inside
    width, height = (half / longest[..., None] * stretch * size[..., None]).unbind(-1)
    reach = torch.stack([width * cos.abs() + height * sin.abs(), width * sin.abs() + height * cos.abs()], -1)
    room = (1 - reach).clamp(min=0)
    wander = draw.uniform(k, 2, low=-1, high=1) * settings.shift
    target = target + wander * torch.where(count[:, None, None] == 1, room, 0.12)
    target = torch.minimum(torch.maximum(target, -room), room)
    unit = longest / size
    turn = torch.stack([torch.stack([cos, sin], -1), torch.stack([-sin, cos], -1)], -2)  # R(-angle)
    turn = turn * unit[..., None, None] / stretch[..., None]
    turn = torch.cat([turn[..., :1, :] * flip[..., None, None], turn[..., 1:, :]], -2)
    offset = centre[..., None] - turn @ target[..., None]
    return torch.cat([turn, offset], -1)
