"""How good the images are: metrics, the networks that compute their features, grids of samples.

It sees held-out images only, and nothing from here reaches a client.
"""
