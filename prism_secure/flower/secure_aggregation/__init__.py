"""The secure sum in any Flower app, on both sides, and how its messages travel.

Knows no recipe; `prism_secure.flower` names what apps use.
"""
