"""What the protocol is built from: keys, keystreams, Shamir shares, graphs, contexts, randomness.

Nothing here knows a message or a stage.
"""
