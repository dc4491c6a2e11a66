"""A run on disk. It reads and writes files; it does not train and renders no pages.

    folder           what is kept, and how a run is found again after a kill
    records          metrics.jsonl: one object for each round
    environment      where a run took place, and nothing about who ran it
    enrolment        the folder of a client across machines: who it is, with whom it sums, what it demands
    history          what a folder says of its run, also while it goes on
    run              one run, read: what `prism_secure.run` gives
    tables           rows, and what becomes of them: CSV, Arrow, Parquet
    one_run_record   what an audit with canaries in one run found
    export           from a finished run to one model file, with its card

It may read keys of `enrolment`, which sign; a client's coins it never reads.
"""
