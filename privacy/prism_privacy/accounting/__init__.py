"""From releases to epsilon: accountant, participation, filters, budgets, calibration.

Reads descriptions of releases, never data; the certified constants behind it are in `kappa`. Releases of
every kind add up through `events.compose`.
"""
