"""One noisy release of feature moments: its sensitivity, its noise, and how it is stored.

It protects single records; masks are another room.
"""
