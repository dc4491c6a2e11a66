"""The building blocks of the protocol; nothing here depends on messages or stages.

keys, hybrid       key agreement, derivation and sealing: X25519, and with ML-KEM-768
agreement_proof    that a value is an agreement of two public keys, without either private key
keystream          a seed expanded into a mask
shamir             shares of a secret
graph, chosen_graph    who masks with whom: drawn by the server, or chosen by the clients
context            the hashes over everything that all parties must see alike
randomness, secret     where random bytes come from; values that are never printed and are overwritten
"""
