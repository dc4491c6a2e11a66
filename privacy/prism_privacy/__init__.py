"""Randomized response, clipping, accountants, ledger, audit."""
