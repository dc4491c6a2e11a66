"""The parts for other people's mask-based federated learning; see docs/plug-in.md.

layers             trees of layers as flat vectors, and a mask's release; imports no torch
tracking           what was spent: budget, accountant and ledger in one call a round
sums               secure sums of trees in one process: counts, votes, weighted means
masked_layers      layers with learned masks over frozen weights
dp_scores          DP-SGD on the scores, through Opacus
measured_gradient  gradients in few public directions, carried by the bits that are summed

Each works by itself, in somebody else's loop: it reads no configuration and no run folder, takes data and
coins from its caller, and writes no file but the ledger that `track` is given.
"""

from prism_secure.plug_in.layers import Layers, release_mask
from prism_secure.plug_in.sums import (
    Bounds,
    Counts,
    Mean,
    secure_counts,
    secure_mean,
    secure_votes,
)
from prism_secure.plug_in.tracking import Tracker, track

__all__ = [
    "Bounds",
    "Counts",
    "Layers",
    "Mean",
    "Tracker",
    "release_mask",
    "secure_counts",
    "secure_mean",
    "secure_votes",
    "track",
]
