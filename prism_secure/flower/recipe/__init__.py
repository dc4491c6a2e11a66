"""The recipes of `prism-secure run` as Flower apps: client, server, and their messages.

Drives the parties of `prism_secure.rounds` over Flower's transport.
"""
