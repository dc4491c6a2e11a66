"""From releases to epsilon: accountant, participation, filters, budgets, calibration.

Reads descriptions of releases, never data; `kappa` has the certified constants behind it. Releases of every
kind add up through `events.compose`.
"""
