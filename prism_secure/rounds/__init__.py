"""One round after the other: components, client, server, workers, and the simulation that drives them.

The room where learning, privacy and the secure sum meet; Flower's apps drive the same parties.
"""
