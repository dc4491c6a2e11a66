"""The mechanism for mask bits: what is released, clipping, randomized response, coins, and the outbox.

Draws coins and keeps them in files; what a release costs is for `accounting` to say.
"""
