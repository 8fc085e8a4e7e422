"""The small world that the embedded CLIP has read: concepts, sprites, scenes with captions, labels, boxes and masks.

sprites.py      artwork, one 64 x 64 RGBA cell per icon or emoji
compose.py      sprites -> scenes (images, masks, boxes)
backgrounds.py  colours and patterns behind the objects
styles.py       style shifts, for the robustness suite
"""
