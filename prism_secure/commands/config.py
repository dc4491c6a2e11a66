"""`prism-secure config`: the resolved configuration, a recipe to start from."""

from __future__ import annotations

import argparse
import json
import textwrap
from typing import TYPE_CHECKING, get_type_hints

import msgspec

from prism_secure.commands.parsing import Commands, add_command, add_config_options, chosen_config
from prism_secure.config import Config, describe, dump_config, meanings
from prism_secure.config.explain import bounds
from prism_secure.config.schema import schema
from prism_secure.config.toml_words import written

if TYPE_CHECKING:
    from prism_secure.accounting.plan import Plan
    from prism_secure.accounting.record_release import RecordRelease


def add_to(commands: Commands) -> None:
    parser = add_command(
        commands,
        "config",
        "print the resolved configuration",
        "Print the configuration that `run` would use, as TOML: a recipe to start from. With --explain, what "
        "each setting means and takes; with --epsilon, what a run of it would guarantee; with --schema, JSON "
        "Schema, from which editors complete and check a TOML file.",
    )
    instead = parser.add_mutually_exclusive_group()
    instead.add_argument("--explain", action="store_true", help="say what each setting means and takes")
    instead.add_argument(
        "--epsilon", action="store_true", help="the planned epsilons; nothing is trained or charged"
    )
    instead.add_argument(
        "--schema", action="store_true", help="JSON Schema of all settings, for editors that check TOML"
    )
    add_config_options(parser)
    parser.set_defaults(command=_config)


def _config(options: argparse.Namespace, command: str) -> int:
    if options.schema:
        print(json.dumps(schema(), indent=2, ensure_ascii=False))
        return 0
    config, told = chosen_config(options)
    if told:
        print(told if options.epsilon else _wrapped(told, "# "))
    if options.epsilon:
        _print_plan(config)
    elif options.explain:
        _explain(config)
    else:
        print(dump_config(config), end="")
    return 0


def _print_plan(config: Config) -> None:
    from prism_privacy import Adjacency, View
    from prism_secure.accounting.measured import cut_off
    from prism_secure.accounting.plan import large_delta
    from prism_secure.wording import SUM_NOT_RUN, format_delta, format_epsilon

    plan, release, images = _plan(config)
    rounds = f"{plan.rounds} round{'' if plan.rounds == 1 else 's'}"
    if plan.rounds < config.federation.rounds:
        rounds += f" of {config.federation.rounds}, as far as {config.limits} goes"
    bits = plan.measured[0].coordinates if plan.measured else plan.mask.dim
    carrying = f" that carry {config.measured.directions:,} numbers" if plan.measured else ""
    print(f"{rounds}; {config.federation.clients:,} clients, {bits:,} mask bits of each{carrying}")
    if plan.measured:
        print(f"one {config.record} of a client, replaced by any other")
        print(
            f"  observer of the opened sums: ε(SUM)        {format_epsilon(plan.image_epsilon(View.SUM)):>10}"
        )
        seen = format_epsilon(plan.image_epsilon(View.UPLOAD))
        print(f"  observer of its client's uploads: ε(UPLOAD){seen:>10}")
    else:
        image = format_epsilon(release.guarantee.epsilon if release else float("inf"))
        print(f"one image of a client, replaced by any other   ε = {image}")
    if release:
        print(f"  {release.view.words}")
        width = max((len(who) for who, _ in release.view.weaker), default=0)
        for who, epsilon in release.view.weaker:
            print(f"  with {who:<{max(width, 50)}}   {format_epsilon(epsilon)}")
    print("everything that one client contributes         left out    replaced")
    for view, words in (
        (View.SUM, "observer of the opened sums: ε(SUM)"),
        (View.UPLOAD, "observer of its uploads: ε(UPLOAD)"),
    ):
        cells = (format_epsilon(plan.epsilon(view, adjacency)) for adjacency in Adjacency)
        print(f"  {words:<43}" + "".join(f"{cell:>10}  " for cell in cells).rstrip())
    print(f"over all rounds together, at δ = {format_delta(config.privacy.delta)}")
    if plan.measured:
        print(f"ε(SUM) counts on {_honest(config)}; ε(UPLOAD) on nobody")
    for line in _growth(plan, config.record):
        print(line)
    if config.secure_sum.simulate:
        print(SUM_NOT_RUN)
    drowned = release.drowned if release is not None else ""
    delta = large_delta(config, -(-images // config.federation.clients))
    cut = cut_off(plan.measured, config.measured) if plan.measured else ""
    for text in filter(None, (*map(str, plan.unbounded), drowned, cut, delta)):
        print(_wrapped(text, ""))


def _plan(config: Config) -> tuple[Plan, RecordRelease | None, int]:
    """The plan, the release of moments or None, and how many images there are."""
    from prism_secure.accounting.plan import Plan
    from prism_secure.accounting.record_release import RecordRelease
    from prism_secure.config.dimensions import check_batch, feature_dimension, mask_dimension
    from prism_secure.config.public_seed import public_seed
    from prism_secure.data.partition import partition

    channels, counts = _images(config)
    classes = len(counts) if config.model.conditional else 0
    check_batch(config, classes)
    if config.own_network:  # which alone knows its weights, and needs torch to tell
        from prism_secure.model.network import architecture_of, weight_count

        dimension = weight_count(architecture_of(config, channels=channels, classes=classes))
    else:
        dimension = mask_dimension(config, channels=channels, classes=classes)
    sizes, persons, release = None, None, None
    if config.data.person is not None:  # who has which label matters, and that is more than the counts say
        from prism_secure.rounds.components import Components

        dealt = Components(config).partition
        sizes, persons = dealt.sizes, dealt.persons
    elif config.record_level or config.measures:
        labels = [label for label, count in enumerate(counts) for _ in range(count)]
        sizes = partition(
            labels,
            config.federation.clients,
            config.data.partition,
            seed=public_seed(config.federation.seed, "partition"),
            shards_per_client=config.data.shards_per_client,
            dirichlet_alpha=config.data.dirichlet_alpha,
        ).sizes
    if config.record_level and sizes is not None:
        release = RecordRelease(config, sizes, classes or 1, feature_dimension(config))
    plan = Plan(config, dimension, release, sizes=sizes, persons=persons)
    return plan, release, sum(counts)


def _growth(plan: Plan, record: str) -> list[str]:
    """Of measured rounds: how far bits move in some of them, and what client and record have spent."""
    from prism_privacy import Adjacency, Unit, View
    from prism_secure.wording import a_record, format_epsilon

    if not plan.measured:
        return []
    shown = {1, 2, plan.rounds // 2, plan.rounds} - {0}
    table = "{:>5}{:>9}{:>15}{:>14}{:>10}{:>14}{:>10}".format
    lines = [
        f"by round: how far at most a client moves its bits, C, and {a_record(record)} does, R;",
        f"to date ε of a client, left out, and of {a_record(record)}, replaced",
        table("round", "C", f"R of {a_record(record)}", "client: SUM", "UPLOAD", f"{record}: SUM", "UPLOAD"),
    ]
    for number, release in enumerate(plan.measured[: plan.rounds], 1):
        if number in shown:
            cells = [
                format_epsilon(plan.account(unit, number).epsilon(view, Adjacency.ZERO_OUT))
                for unit in (Unit.CLIENT, Unit.RECORD)
                for view in (View.SUM, View.UPLOAD)
            ]
            lines.append(table(number, f"{release.clip:.3g}", f"{release.record_radius():.3g}", *cells))
    return lines


def _honest(config: Config) -> str:
    """The clients that an epsilon against observers of sums counts on, and why they are not all."""
    invited, least, colluders = config.invited, config.min_survivors, config.privacy.colluders
    words = f"{config.cohort:,} honest clients of {invited:,}, "
    words += "guaranteed by the graph that they choose; " if config.graph == "chosen" else ""
    words += f"{colluders:,} collude{'s' if colluders == 1 else ''}" if colluders else "none colludes"
    return words + (f", {invited - least:,} may drop out" if least < invited else "")


def _images(config: Config) -> tuple[int, list[int]]:
    """Channels, and how many training images of each class: all that epsilon needs to know of them.

    Sizes of the clients' parts depend on the counts alone, in whatever order the images come.
    """
    if config.data.source == "fashion_mnist_12k":
        return 1, [1000] * 10
    from prism_secure.rounds.components import Components

    dataset = Components(config).dataset
    counts = dataset.train_labels.bincount(minlength=len(dataset.classes)).tolist()
    return dataset.channels, counts


def _explain(config: Config) -> None:
    for section, kind in get_type_hints(Config).items():
        print(f"[{section}]\n{_wrapped(kind.__doc__ or '', '# ')}")
        values = msgspec.structs.asdict(getattr(config, section))
        for key, hint in get_type_hints(kind).items():
            takes = _takes(describe(hint), bounds().get((section, key), ""))
            print(f"  {key} = {written(values[key])}    ({takes})")
            print(_wrapped(meanings()[section, key], "      "))
        print()


def _takes(kind: str, must: str) -> str:
    """A setting's type and what its section requires, nothing twice.

    >>> _takes("a number | none", "a positive number or inf")
    'a positive number or inf | none'
    >>> _takes("a whole number | 'end'", "'end', or a whole number, at least 1")
    "'end', or a whole number, at least 1"
    """
    if must.startswith("a positive number"):
        return kind.replace("a number", must)
    choices = [choice.strip("'") for choice in kind.split(" | ")]
    if len(choices) > 1 and all(choice in must for choice in choices):
        return must
    return f"{kind}, {must}" if must else kind


def _wrapped(text: str, indent: str) -> str:
    return textwrap.fill(
        " ".join(text.split()), 100, initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
    )
