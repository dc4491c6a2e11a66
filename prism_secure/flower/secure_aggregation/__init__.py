"""The secure sum in any Flower app, on both sides, and how its messages travel.

It does not depend on recipes; what apps use, `prism_secure.flower` exports.
"""
