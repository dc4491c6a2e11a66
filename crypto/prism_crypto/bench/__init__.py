"""Benchmarks of the secure sum and of its alternatives; run `python -m prism_crypto.bench`.

Nothing else in the package imports this.
"""
