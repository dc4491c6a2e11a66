"""The generator: frozen weights, supermask, model file, model card, and export to other formats.

It does not train, and it does not depend on a federation.
"""
