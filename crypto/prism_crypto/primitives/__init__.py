"""The building blocks of the protocol: keys, keystreams, Shamir shares, graphs, contexts, randomness.

Nothing here depends on messages or stages.
"""
