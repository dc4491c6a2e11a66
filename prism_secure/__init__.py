"""Federated learning of binary masks with a secure sum and a privacy accountant."""
