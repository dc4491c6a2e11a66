"""Many runs on one page: what privacy costs and what it buys, for a sweep or for runs named one by one."""

from prism_secure.sweep.report.page import write_page, write_sweep_page
from prism_secure.sweep.report.subject import Subject, subject_of_runs, subject_of_sweep

__all__ = ["Subject", "subject_of_runs", "subject_of_sweep", "write_page", "write_sweep_page"]
