"""The mechanism for mask bits: what is released, clipping, randomized response, coins, and the outbox.

Nothing here knows what a release costs.
"""
