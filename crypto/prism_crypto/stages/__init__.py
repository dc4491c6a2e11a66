"""The five stages of a session, one file each, and what they share.

A stage turns messages into the next state. It may use `wire`, `primitives` and the session, but not the
client and the server that drive it.
"""
