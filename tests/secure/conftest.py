"""Which modules beside the tests are not to be imported when doctests are looked for."""

collect_ignore = ["second_device.py", "train_on_card.py"]  # they change torch for the whole process
