"""The five stages of a session, one file each, and what they share.

A stage turns messages into the next state; it knows `wire`, `primitives` and the session, never a client
or a server.
"""
