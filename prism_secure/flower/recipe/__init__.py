"""The recipes of `prism-secure run` as Flower apps; drives the parties of `prism_secure.rounds`.

    client      one client: its data, its coins, its own ledger
    server      the rounds, as the coordinator runs them
    messages    the request for moments, and each round's broadcast

The server's side has no images and no coins.
"""
