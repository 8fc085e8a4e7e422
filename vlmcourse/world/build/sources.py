"""Where the artwork comes from: icon and emoji sets of the npm registry and clip art of Debian.

Every source is one artwork style. Sources of one *family* share designs (an outline and a filled variant of the same
drawing, a re-release of an older set), so the cuts never separate them. Share-alike and copyleft sources are kept in
folders of their own and never enter pretraining.
"""

from dataclasses import dataclass

# Icon sets that are one design house: drawings of the same name are variants of each other.
FAMILIES = {
    "fontawesome": "fa fa-solid fa-regular fa6-solid fa6-regular fa7-solid fa7-regular",
    "material": "ic material-symbols zmdi",
    "icon-park": "icon-park icon-park-outline icon-park-solid icon-park-twotone",
    "streamline": "streamline streamline-color",
    "streamline-flex": "streamline-flex streamline-flex-color",
    "streamline-plump": "streamline-plump streamline-plump-color",
    "streamline-sharp": "streamline-sharp streamline-sharp-color",
    "streamline-ultimate": "streamline-ultimate streamline-ultimate-color",
    "streamline-cyber": "streamline-cyber streamline-cyber-color",
    "streamline-freehand": "streamline-freehand streamline-freehand-color",
    "ion": "ion famicons",
    "bx": "bx bxs",
    "fluent": "fluent fluent-color",
    "fluent-emoji": "fluent-emoji fluent-emoji-flat fluent-emoji-high-contrast",
    "emojione": "emojione emojione-monotone",
    "lucide": "lucide lucide-lab feather",
    "pepicons": "pepicons-pop pepicons-print",
    "uil": "uil uim uis uit",
}
FAMILY_OF = {source: family for family, sources in FAMILIES.items() for source in sources.split()}

EMOJI = (
    "noto noto-v1 twemoji fluent-emoji fluent-emoji-flat fluent-emoji-high-contrast emojione emojione-monotone "
    "openmoji fxemoji streamline-emojis"
).split()
ICONS = (
    "akar-icons ant-design basil bi bx bxs bytesize carbon charm ci cil clarity covid duo-icons ei el eos-icons ep "
    "eva f7 fa fa-regular fa-solid fa6-regular fa6-solid fa7-regular fa7-solid famicons fe feather flat-color-icons "
    "flowbite fluent fluent-color fluent-mdl2 fontisto foundation game-icons garden gg gis gravity-ui grommet-icons "
    "guidance healthicons heroicons hugeicons humbleicons ic icon-park icon-park-outline icon-park-solid "
    "icon-park-twotone iconamoon iconoir icons8 ion ix jam la lets-icons line-md lineicons lsicon lucide lucide-lab "
    "mage majesticons maki map material-symbols mdi medical-icon meteocons meteor-icons mi mingcute mono-icons "
    "mynaui nimbus oi pajamas pepicons-pop pepicons-print ph picon pixel pixelarticons prime proicons quill raphael "
    "ri simple-line-icons solar stash streamline streamline-color streamline-cyber streamline-cyber-color "
    "streamline-flex streamline-flex-color streamline-freehand streamline-freehand-color streamline-kameleon-color "
    "streamline-pixel streamline-plump streamline-plump-color streamline-sharp streamline-sharp-color "
    "streamline-stickies-color streamline-ultimate streamline-ultimate-color system-uicons tabler tdesign "
    "teenyicons temaki uil uim uis uit uiw vaadin whh wi wpf zmdi zondicons"
).split()

# Whole styles that pretraining never sees, from mild to severe; the value is the style's name in the robustness suite.
HELD_OUT_STYLES = {
    "openmoji": "openmoji",
    "fxemoji": "fxemoji",
    "streamline-freehand": "freehand",
    "streamline-freehand-color": "freehand",
    "pixel": "pixel-art",
    "pixelarticons": "pixel-art",
    "streamline-pixel": "pixel-art",
    "openclipart": "clipart",
    "tuxpaint-stamps": "photo",
}
SHARE_ALIKE = {"openmoji": "CC-BY-SA-4.0", "tuxpaint-stamps": "GPL-2.0-only"}
DEBIAN = {"openclipart": "openclipart-svg", "tuxpaint-stamps": "tuxpaint-stamps-default"}


@dataclass(frozen=True)
class Icon:
    """One drawing before rendering: `svg` is markup, or a path of a raster file when `raster` is true."""

    source: str
    name: str
    base: str
    svg: str
    mono: bool
    raster: bool = False

    @property
    def family(self) -> str:
        return FAMILY_OF.get(self.source, self.source)
