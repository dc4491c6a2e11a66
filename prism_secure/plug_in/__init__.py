"""The parts for other people's mask-based federated learning; see docs/plug-in.md.

layers             secure sum and mask privacy for dictionaries of layers; imports no torch
masked_layers      layers with learned masks over frozen weights
dp_scores          DP-SGD on the scores, through Opacus
measured_gradient  gradients in few public directions, carried by the bits that are summed
"""

from prism_secure.plug_in.layers import Layers, release_mask, secure_counts

__all__ = ["Layers", "release_mask", "secure_counts"]
