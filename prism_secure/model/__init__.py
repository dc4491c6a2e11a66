"""The generator as a thing: frozen weights, supermask, model file and card, and its other formats.

Nothing here trains, and nothing here knows a federation.
"""
