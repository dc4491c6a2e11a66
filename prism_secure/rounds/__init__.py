"""One round after the other: components, client, server, workers, and the simulation that drives them.

Learning, privacy and the secure sum meet here, and only here; Flower's apps drive the same parties.
"""
