"""Benchmarks of the secure sum and of its alternatives; run `python -m prism_crypto.bench`.

    secure_sum       what a session costs, with Flower's SecAgg+ beside it where flwr is installed
    flower_secagg    that protocol, driven stage by stage
    growth           one client's cost among very many, without running the others
    limits           this machine's memory and ciphers, on one thread
    rows             a measurement, and how it is written down

Nothing else in the package imports this; `prism-secure bench` writes its own figures in the same form.
"""
