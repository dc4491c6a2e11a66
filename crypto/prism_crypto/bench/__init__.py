"""What the secure sum costs, beside what a user would pick instead; run `python -m prism_crypto.bench`.

Nothing in the package imports this room.
"""
