"""Sweeps: one recipe, many runs, on all cores and on many machines, continued after any kill.

    recipe        what a sweep is to do: a base run, the keys that vary, how their values are chosen
    space         a key's values as Optuna sees them
    objectives    what a search improves, by name
    stopping      when a run ends before its last round
    study         the points in Optuna's storage: which wait, which are taken, which are done
    worker        a process that carries out runs, one after the other
    engine        hands runs to workers until every point is done
    display       what one sees meanwhile
    dashboard     Optuna's own page of the study
    results       a sweep's folder, read: the interface for tables and pages
    composition   epsilon over several runs on the same owners' data

Reading needs nothing but the folder; sweeping needs Optuna (the extra `sweep`).
"""
