"""What people see of a run: progress, trackers, the report and its figures.

Reads run folders only; no torch.
"""
