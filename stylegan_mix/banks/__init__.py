"""Banks of generated images: written once in blocks, named by their content's recipe, read by map.

`reader` and `store` import no torch: a trainer reads banks without the generator's code.
"""
