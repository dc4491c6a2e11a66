"""The certified constant kappa: the Renyi divergence of one round, for each unit of squared influence.

Computed, cached and shipped as a table; only `accounting` asks for it.
"""
