"""What people see of a run.

    progress     on the terminal, round by round
    trackers     TensorBoard, W&B, MLflow, or one's own
    report       one run as a page
    disclosure   what it cost and what that assumes, from its signed ledger alone
    plots        the figure of the report, as SVG
    drawing      the look of all figures
    pages        templates, filled: for the pages of sweeps and audits, too

It reads run folders, and imports no torch.
"""
