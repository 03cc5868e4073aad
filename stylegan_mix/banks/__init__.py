"""Banks of generated images: written once in blocks, named by their recipe, read by memory map.

`reader` and `store` import no torch, so a trainer reads banks without the generator's code.
"""
