"""How good the images are: metrics, the networks that they look through, grids of samples.

Sees held-out images only, and nothing here reaches a client.
"""
