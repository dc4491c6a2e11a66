"""Looking for what is wrong with a run: its folder, its ledgers together, and what attackers could learn.

    oracle           every epsilon once more, by other code than the accountant's
    findings         what a check says, and how sure it is
    evidence         what a run folder holds, read without changing it
    checks           one question each
    run_audit        all of them on one folder, and the verdict
    floors           what no correct account of a ledger can go below
    measured_client  the client of measured rounds as a black box; measured_law defines it by other code
    one_run          a lower bound from canaries; played_rounds is a run with an auditor's own data
    budget           what many ledgers of one data owner cost together: budget_file has the owner's limits,
                     spent_ledgers what each ledger charged
    pages, figures   the page of an audit; membership_page is who can be told apart, beside epsilon

It trusts neither the accountant nor the run. Of a run folder it changes nothing but two files of its own:
audit.json, which the command writes, and one-run.json.
"""
