"""`dbcpu batch merge`: the shards of a run put together."""

from __future__ import annotations

import click

from dbcpu.cli.options import verbosity_options


@click.command(short_help="Put the manifests of --shard runs together.")
@click.argument("results", type=click.Path(), metavar="RESULTS")
@click.option("--partial", is_flag=True, help="Also while shards are missing or unfinished.")
@click.option("--log-json", is_flag=True, help="Tell on stderr how it ended as a line of JSON.")
@verbosity_options
def merge(results: str, partial: bool, log_json: bool) -> None:
    """Make one manifest, summary and contact sheet of what `dbcpu batch --shard` has left in RESULTS.

    Then the shards' own manifests go; a later run, with any number of shards or none, goes on from the whole.
    """
    from dbcpu.batch.object_store import results_at
    from dbcpu.batch.shards import check_alone, merge_shards
    from dbcpu.batch.store import OWN
    from dbcpu.cli.progress import Progress
    from dbcpu.errors import UsageError

    if not results:
        raise UsageError("the folder of the results has no name", remedy="the current one is .")
    progress = Progress(as_json=log_json)
    store = results_at(results)
    store.make()
    with store.locked(f"{OWN}/lock"):
        check_alone(store, None)
        store.clear()
        totals = merge_shards(store, partial=partial)
    progress.end(totals)
