"""One noisy release of feature moments: its sensitivity, its noise, and how it is stored.

It protects single records, not clients; `masks` protects these. It reads features and sends nothing.
"""
