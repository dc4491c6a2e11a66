"""Many runs on one page: what privacy costs and what it buys, for a sweep or for runs named one by one.

    subject    what a page is about: points, their settings and runs
    answers    the best within each epsilon, which setting explains most, and what the runs can't tell
    figures    its figures as SVG
    along      generated images from the smallest epsilon to the largest
    tables     its tables as rows, CSV and Parquet
    page       all of it as HTML

It reads what `prism_secure.sweep.results` reads, and runs nothing.
"""

from prism_secure.sweep.report.page import write_page, write_sweep_page
from prism_secure.sweep.report.subject import Subject, subject_of_runs, subject_of_sweep

__all__ = ["Subject", "subject_of_runs", "subject_of_sweep", "write_page", "write_sweep_page"]
