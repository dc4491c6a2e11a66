"""Which modules beside the tests are not to be imported when doctests are looked for."""

# They change torch for the whole process, or are scripts.
collect_ignore = ["second_device.py", "track_privately.py", "train_on_card.py"]
