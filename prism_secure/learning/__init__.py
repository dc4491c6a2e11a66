"""How scores and theta move: moment matching, local training, the server's aggregation rules.

It uses features and the model; it sends nothing and releases nothing.
"""
