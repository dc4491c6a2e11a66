"""The five stages of a session, one file each, and what they share.

    advertise, share, upload, confirm, unmask    the stages, each from both sides
    vouch            confirm's place on a graph that clients choose
    states           what a client holds between them, and nothing else
    gathering        what the server's sides have in common
    party, advert    what a client brings into a session; what it says of itself first
    contexts, transcript, survivors    what the server computes, keeps and says of who is still in
    evidence         proofs that a client broke the protocol

A stage turns messages into the next state. It may use `wire`, `primitives` and the session, but not the
client and the server that drive it; it holds secrets, and touches neither files nor sockets.
"""
