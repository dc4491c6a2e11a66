"""One module a command; each has `add_to(commands)`, and `prism_secure.cli` lists them.

    audit          and its kinds: audit_mechanism, audit_measured, audit_one_run
    parsing        what the parsers have in common
    looks          what `doctor` tries
    first_checks   paths that cannot be what is asked, refused before anything slow is imported

A command is a function `(options, command_line) -> exit code` that the parser carries as `options.command`.
What it needs beyond the configuration is imported when it runs: nobody waits for torch to read `--help`.
"""
