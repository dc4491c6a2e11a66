"""How scores and theta move: moment matching, local training, the server's aggregation rules.

Knows features and the model; sends nothing and releases nothing.
"""
